"""`gatehouse --host NAME …` on the operator's machine: the same command on the host, over SSH."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from gatehouse.lab.common import ROOT
from gatehouse.lab.workstation import Workstation

GATEHOUSE = Path(sys.executable).with_name("gatehouse")


def gatehouse(
    *arguments: str, inventory: Path | None = None, name: str
) -> subprocess.CompletedProcess[str]:
    """Run the operator's command for a host."""
    where = ["--inventory", str(inventory)] if inventory else []
    return subprocess.run(
        [GATEHOUSE, "--host", name, *where, *arguments],
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
        env=os.environ | {"NO_COLOR": "1"},
        stdin=subprocess.DEVNULL,
        timeout=120,
    )


def changed(workstation: Workstation, tmp_path: Path, **data: object) -> Path:
    """Give the workstation's inventory with other data of its connection."""
    text = workstation.access.inventory.read_text()
    for key, value in data.items():
        start = text.index(f"'{key}': ")
        end = text.index(",", start)
        text = f"{text[:start]}'{key}': {value!r}{text[end:]}"
    path = tmp_path / "inventory"
    path.write_text(text)
    return path


@pytest.mark.parametrize("user", ["root", "operator"])
def test_command_runs_as_root_there(workstation: Workstation, tmp_path: Path, user: str) -> None:
    """Root's commands work for root and for a user with sudo, with the same output and exit code."""
    inventory = changed(workstation, tmp_path, ssh_user=user)
    found = gatehouse("secrets", "list", inventory=inventory, name=workstation.name)
    assert found.returncode == 0, found.stderr
    assert found.stdout == workstation.exec("gatehouse secrets list").stdout
    wrong = gatehouse("secrets", "rotate", "salt", inventory=inventory, name=workstation.name)
    assert wrong.returncode == 1
    assert "encrypted with" in wrong.stderr


def test_words_arrive_as_they_were_typed(workstation: Workstation) -> None:
    """A word with spaces, quotes and dollars is one word there, too."""
    word = "a 'b' \"c\" $HOME; id"
    found = gatehouse(
        "secrets", "rotate", word, inventory=workstation.access.inventory, name=workstation.name
    )
    assert found.returncode == 2
    assert repr(word) in found.stderr


def test_log_says_where_it_came_from(workstation: Workstation) -> None:
    """What is changed from another machine says so in the audit log."""
    inventory, name = workstation.access.inventory, workstation.name
    path = "/etc/gatehouse/secrets/providers/OLLAMA_API_KEY"
    made = subprocess.run(
        [GATEHOUSE, "--host", name, "--inventory", inventory, "secrets", "set", "OLLAMA_API_KEY"],
        input="not-a-real-key\n",
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
        timeout=120,
    )
    try:
        assert made.returncode == 0, made.stderr
        assert "offered after: pyinfra" in made.stdout
        assert workstation.exec(f"stat -c '%a %U:%G' {path}; cat {path}").stdout.split() == [
            "440",
            "root:gatehouse-secrets",
            "not-a-real-key",
        ]
        log = gatehouse("log", "-n", "1", inventory=inventory, name=name).stdout
        assert "secrets set OLLAMA_API_KEY" in log
        assert f"@{os.uname().nodename}" in log
        assert "not-a-real-key" not in log
    finally:
        workstation.exec(f"rm -f {path}")


def test_tunnel_is_the_way_that_the_inventory_knows(workstation: Workstation) -> None:
    """`open` prints a command that leads there from this machine."""
    access = workstation.access
    found = gatehouse("open", inventory=access.inventory, name=workstation.name)
    assert f"-p {access.port} {access.user}@127.0.0.1" in found.stdout
    assert "-L 4000:127.0.0.1:4000" in found.stdout
    assert "-L 8181:127.0.0.1:8181" in found.stdout
    assert "http://127.0.0.1:4000/ui" in found.stdout
    assert "http://127.0.0.1:8181/" in found.stdout


def test_host_that_is_down_is_said_so(workstation: Workstation, tmp_path: Path) -> None:
    """Exit code 2, ssh's reason, and what to look at."""
    inventory = changed(workstation, tmp_path, ssh_port=1)
    found = gatehouse("log", inventory=inventory, name=workstation.name)
    assert found.returncode == 2
    assert "cannot be reached" in found.stderr
    assert "ssh_port" in found.stderr


def test_name_that_is_almost_right_is_corrected(workstation: Workstation) -> None:
    """A typo is not looked up in the whole world."""
    found = gatehouse("log", inventory=workstation.access.inventory, name=f"{workstation.name}x")
    assert found.returncode == 2
    assert f"did you mean '{workstation.name}'" in found.stderr


def test_host_without_gatehouse_is_told_to_deploy(workstation: Workstation) -> None:
    """A machine that is no gateway yet is answered with what makes it one."""
    hidden = "mv /usr/local/bin/gatehouse /usr/local/bin/gatehouse.away"
    workstation.exec(hidden)
    try:
        found = gatehouse("log", inventory=workstation.access.inventory, name=workstation.name)
    finally:
        workstation.exec("mv /usr/local/bin/gatehouse.away /usr/local/bin/gatehouse")
    assert found.returncode == 2
    assert "pyinfra inventory deploy.py" in found.stderr
