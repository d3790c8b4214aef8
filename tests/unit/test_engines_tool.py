"""`gatehouse engine`, with a systemctl that starts and stops as the test says."""

import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from click.testing import CliRunner, Result

from gatehouse.engines.host import Host
from gatehouse.engines.state import AWAKE, FAILED, LOADING, REFUSED, State
from gatehouse.tool.engine import engine
from gatehouse.tool.engine_documents import EngineList, EnginePlan
from tests.engines import host_with, state_of

A = {"name": "chat-a", "port": 18084, "memory_mib": 6000}
B = {"name": "chat-b", "port": 18085, "memory_mib": 5000}
C = {"name": "chat-c", "port": 18086, "memory_mib": 1000}
D = {"name": "chat-d", "port": 18087, "memory_mib": 9500}

# `show` tells of units whose file is there, everything else is noted and may be answered by a script.
SYSTEMCTL = """#!/bin/sh
units={units}
if [ "$1" = show ]; then
    shift 3
    for name; do
        if [ -e "$units/$name" ]; then
            read -r active pid < "$units/$name"
        else
            active=inactive pid=0
        fi
        printf 'Id=%s\\nActiveState=%s\\nMainPID=%s\\n\\n' "$name" "$active" "$pid"
    done
    exit 0
fi
echo "$@" >> {root}/asked
. {root}/then
"""

Run = Callable[..., Result]


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Host:
    """Give a host with engines, one of them awake and idle, and a systemctl of its own."""
    found, units = host_with(tmp_path, monkeypatch, A, B, C, D, foreign_mib=1000)
    found.states.put("chat-a", State(AWAKE, time.time() - 90, 6000))
    units.run("gatehouse-server-chat-a.service", 1)
    programs = tmp_path / "bin"
    programs.mkdir()
    (tmp_path / "then").write_text("exit 0\n")
    scripts = {
        "systemctl": SYSTEMCTL.format(units=tmp_path / "units", root=tmp_path),
        "journalctl": f'#!/bin/sh\necho "$@" > {tmp_path}/journal\n',
    }
    for name, text in scripts.items():
        (programs / name).write_text(text)
        (programs / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}:{os.environ['PATH']}")
    return found


def run(*arguments: str) -> Result:
    """Run the command."""
    return CliRunner().invoke(engine, list(arguments))


def valid(document: type[EngineList | EnginePlan], text: str) -> Any:  # noqa: ANN401 - JSON
    """Read what was printed, after it was held against its schema."""
    jsonschema.validate(json.loads(text), document.model_json_schema(mode="serialization"))
    return json.loads(text)


def write_then(root: Path, host: Host, name: str, state: State) -> None:
    """Let the next systemctl leave an engine in a state."""
    host.states.put("other", state)
    kept = host.paths.run / "other.json"
    target = host.paths.run / f"{name}.json"
    (root / "then").write_text(f"cp {kept} {target}\n")


def test_list_shows_every_engine(host: Host) -> None:
    """What is awake and since when it is idle, what sleeps, and what each needs."""
    rows = {row["name"]: row for row in valid(EngineList, run("list", "--json").stdout)}
    assert (rows["chat-a"]["state"], rows["chat-a"]["need_mib"]) == (AWAKE, 6000)
    assert 89 <= rows["chat-a"]["idle_seconds"] <= 100
    assert (rows["chat-b"]["state"], rows["chat-b"]["port"]) == ("asleep", 18085)
    text = run("list").stdout
    assert all(word in text for word in ("chat-a", "awake", "2 min", "asleep", "18087"))


def test_list_does_not_show_what_was_killed_as_awake(host: Host, tmp_path: Path) -> None:
    """A state whose unit is dead is left over."""
    (tmp_path / "units/gatehouse-server-chat-a.service").unlink()
    rows = valid(EngineList, run("list", "--json").stdout)
    assert [row["state"] for row in rows] == ["asleep"] * 4


def test_plan_shows_the_ledger_and_what_would_happen(host: Host) -> None:
    """Who fits, who would make another go, and who would be refused and why."""
    (pool,) = valid(EnginePlan, run("plan", "--json").stdout)
    assert (pool["pool"], pool["total_mib"], pool["foreign_mib"]) == ("card 0", 10000, 1000)
    assert (pool["free_mib"], pool["engines"][0]["doing"]) == (3000, "idle")
    asleep = {each["name"]: each for each in pool["asleep"]}
    assert asleep["chat-c"]["decision"] == "fits"
    assert (asleep["chat-b"]["decision"], asleep["chat-b"]["evicts"]) == ("evicts", ["chat-a"])
    assert asleep["chat-d"]["decision"] == "refused"
    text = run("plan").stdout
    assert "chat-b: would stop chat-a (5000 MiB)" in text
    assert "chat-d: would be refused: needs 9500 MiB, 3000 MiB free of 10000" in text


def test_start_waits_and_says_how_long_it_took(host: Host, tmp_path: Path) -> None:
    """The unit is started, and its state says that the engine is awake."""
    write_then(tmp_path, host, "chat-b", State(AWAKE, time.time(), 5000))
    found = run("start", "chat-b")
    assert found.exit_code == 0, found.output
    assert "chat-b is awake after" in found.output
    assert (tmp_path / "asked").read_text() == "start gatehouse-engine-chat-b.service\n"


def test_start_that_is_refused_says_why(host: Host, tmp_path: Path) -> None:
    """The reason is the one that clients get, and the exit code is 1."""
    write_then(tmp_path, host, "chat-d", State(REFUSED, time.time(), reason="needs 9500 MiB"))
    found = run("start", "chat-d")
    assert found.exit_code == 1
    assert "chat-d was refused: needs 9500 MiB" in found.output


def test_start_insists_after_a_failure(host: Host, tmp_path: Path) -> None:
    """A person need not wait for the pause, and the program that refuses clients makes way."""
    host.states.put("chat-b", State(FAILED, time.time(), reason="exit code 3"))
    (tmp_path / "units/gatehouse-engine-chat-b.service").write_text("active 5")
    found = run("start", "--no-wait", "chat-b")
    assert found.exit_code == 0, found.output
    assert host.states.take_force("chat-b")
    asked = (tmp_path / "asked").read_text()
    assert asked == "restart --no-block gatehouse-engine-chat-b.service\n"


def test_start_of_one_that_loads_only_waits(host: Host, tmp_path: Path) -> None:
    """What somebody else has begun is not begun again."""
    host.states.put("chat-b", State(LOADING, time.time(), 5000))
    (tmp_path / "units/gatehouse-engine-chat-b.service").write_text("activating 0")
    run("start", "chat-b")
    assert (tmp_path / "asked").read_text() == "start gatehouse-engine-chat-b.service\n"


def test_stop_waits_until_the_memory_is_free(host: Host, tmp_path: Path) -> None:
    """The command ends when the state is gone."""
    (tmp_path / "then").write_text(f"(sleep 0.3; rm {host.paths.run}/chat-a.json) &\n")
    found = run("stop", "chat-a")
    assert found.exit_code == 0, found.output
    assert "chat-a sleeps" in found.output
    assert state_of(host, "chat-a") is None


def test_what_systemd_refuses_is_said(host: Host, tmp_path: Path) -> None:
    """Exit code 1, with systemd's own words."""
    (tmp_path / "then").write_text("echo 'Access denied' >&2; exit 4\n")
    found = run("start", "chat-b")
    assert found.exit_code == 1
    assert "Access denied" in found.output


@pytest.mark.parametrize("command", ["start", "stop", "logs"])
def test_an_unknown_engine_is_answered_with_the_nearest(host: Host, command: str) -> None:
    """Exit code 2, and the name that was probably meant."""
    found = run(command, "chta-a")
    assert found.exit_code == 2
    assert "there is no engine 'chta-a' (did you mean chat-a" in found.output


def test_a_host_without_engines_says_what_to_do(host: Host) -> None:
    """Exit code 2: there was nothing to look at."""
    host.paths.config.unlink()
    found = run("list")
    assert found.exit_code == 2
    assert "pyinfra inventory deploy.py" in found.output


def test_a_card_that_cannot_be_read_is_a_problem(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The plan says so in place of the card's ledger."""
    monkeypatch.delenv("GATEHOUSE_SIMULATED_CARD")
    text = host.paths.config.read_text().replace('"card": "nvidia"', '"card": "none"')
    host.paths.config.write_text(text)
    found = run("plan")
    assert found.exit_code == 1
    assert "gpu_mode" in found.output


def test_logs_are_the_journals(host: Host, tmp_path: Path) -> None:
    """Both units of the engine, the number of lines and following are passed on."""
    pid = os.fork()
    if not pid:
        run("logs", "chat-a", "-f", "-n", "5")  # becomes journalctl
        os._exit(1)
    os.waitpid(pid, 0)
    assert (tmp_path / "journal").read_text().split() == [
        "--unit=gatehouse-server-chat-a.service",
        "--unit=gatehouse-engine-chat-a.service",
        "--lines=5",
        "--follow",
    ]
