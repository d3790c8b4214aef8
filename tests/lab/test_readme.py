"""The README: its commands do what it says, run as it writes them."""

import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from gatehouse.lab.common import ROOT
from gatehouse.lab.workstation import Workstation
from tests.lab.status import wait_until_right

README = (ROOT / "README.md").read_text()
# What the README shows in code blocks, without comments, in its order.
COMMANDS = [
    line.strip().split("  #")[0].split("    #")[0].strip()
    for line in re.findall(
        r"^    (?=make |\.venv|cd |docker |sudo |gatehouse )(.+)$", README, re.MULTILINE
    )
]
SECONDS = 900
# Commands for the workstation → a word of their answer.
ANSWERS = {
    "sudo gatehouse status": "litellm",
    "sudo gatehouse doctor": "nothing is wrong",
    "sudo gatehouse smoke": "completion",
    "sudo gatehouse keys new alice": "sk-",
    "sudo gatehouse keys list": "alice",
    "sudo gatehouse spend": "Requests",
    "sudo gatehouse secrets list": "master_key",
    "gatehouse timers": "inventory",
    "sudo gatehouse log": "keys new",
    "sudo gatehouse releases": "good",
    "sudo gatehouse backup now": "snapshot",
    "sudo gatehouse backup list": "snapshot",
    "sudo gatehouse drill": "came back",
}
# Run by something else than `run` below: by whom.
ELSEWHERE = {
    "make test": "the command that runs this test",
    "make demo": "test_demo_answers_and_leaves_nothing",
    ".venv/bin/pyinfra inventory deploy.py": "the fixture `workstation`",
    "docker compose restart litellm": "tests/lab/test_restart.py",
    "gatehouse engine list": "tests/lab/test_engines.py",
    "gatehouse engine plan": "tests/lab/test_admission.py",
}


def run(command: str, **changed: str) -> subprocess.CompletedProcess[str]:
    """Run a command of the README in the repository; its output is the failure's message."""
    done = subprocess.run(
        ["sh", "-c", command],
        cwd=ROOT,
        env=os.environ | changed,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )
    assert done.returncode == 0, f"{command}: {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done


def test_commands_are_all_run() -> None:
    """Each command of the README is run by a test."""
    here = {
        "make settings",
        "make plan",
        "make verify",
        "cd /opt/gatehouse/current && docker compose ps",
        "sudo cat /etc/gatehouse/secrets/ui_password",
        "sudo gatehouse backup password",
        "sudo gatehouse audit",
        *ANSWERS,
    }
    assert set(COMMANDS) == here | ELSEWHERE.keys()


def test_settings_are_valid_and_printed() -> None:
    """`make settings` prints every setting and says that they are valid."""
    output = run("make settings").stdout
    assert "litellm_pool_connections" in output
    assert "are valid" in output


def test_plan_of_a_provisioned_host_is_empty(workstation: Workstation) -> None:
    """`make plan` says that nothing would change on a host that is as it should be."""
    output = run("make plan", INVENTORY=str(workstation.access.inventory)).stdout
    assert "nothing to change" in output


def test_plan_shows_files_and_services_without_secrets(workstation: Workstation) -> None:
    """`make plan` shows a changed setting as a diff, and names the service that it recreates."""
    inventory = workstation.access.folder / "inventory-planned"
    text = workstation.access.inventory.read_text()
    inventory.write_text(text.replace("{", "{'redis_maxmemory_mib': 128, ", 1))
    output = run("make plan", INVENTORY=str(inventory)).stdout
    assert "-maxmemory 256mb" in output
    assert "+maxmemory 128mb" in output
    assert "service redis would be recreated" in output
    assert "service postgres" not in output
    secrets = workstation.exec("cat /etc/gatehouse/secrets/*_key /etc/gatehouse/secrets/*_password")
    found = re.findall(r"[0-9a-f]{64}", secrets.stdout)
    assert len(found) == 6
    assert not any(secret in output for secret in found), "a secret shows in the plan"


def test_verify_proves_a_provisioned_host(workstation: Workstation) -> None:
    """`make verify` runs the proofs against the hosts of an inventory."""
    output = run("make verify", INVENTORY=str(workstation.access.inventory)).stdout
    assert re.search(r"\d+ passed", output)


@pytest.fixture(scope="module")
def _without_alice(workstation: Workstation) -> Iterator[None]:
    """Take the README's key away again."""
    yield
    workstation.exec("gatehouse keys revoke alice --yes", check=False)


@pytest.mark.usefixtures("_without_alice")
@pytest.mark.parametrize(
    ("command", "expected"),
    [
        ("cd /opt/gatehouse/current && docker compose ps", "gatehouse-litellm-1"),
        ("sudo cat /etc/gatehouse/secrets/ui_password | tr '[:xdigit:]' x", "x" * 64),
        ("sudo gatehouse backup password | tr '[:xdigit:]' x", "x" * 64),
        # Debian 13's Docker is older than the benchmark wants it.
        ("sudo gatehouse audit || [ $? = 1 ]", "score: "),
        *ANSWERS.items(),
    ],
)
def test_commands_on_the_host_answer(workstation: Workstation, command: str, expected: str) -> None:
    """The commands that the README gives for the workstation work there, for a user with sudo."""
    if expected == ANSWERS["sudo gatehouse doctor"]:
        wait_until_right(workstation)
    user = "operator" if command.startswith("sudo") else "root"
    assert expected in workstation.ssh(command, user=user).stdout


def test_demo_answers_and_leaves_nothing() -> None:
    """`make demo` provisions a workstation and gets an answer; `make demo-down` removes it."""
    try:
        output = run("make demo").stdout + run("docker ps --format '{{.Names}}'").stdout
        assert "The workstation listens on" in output
        assert "gatehouse-lab-demo" in output
    finally:
        run("make demo-down")
    left = run(
        "docker ps -aq --filter name=gatehouse-lab-demo; "
        "docker volume ls -q --filter name=gatehouse-lab-demo; "
        "docker network ls -q --filter name=gatehouse-lab-demo"
    ).stdout
    assert not left
    assert not Path(ROOT / "build" / "lab" / "demo").exists()
