"""The operator's commands: they look at every host, touch none, and say what is wrong."""

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from gatehouse.__main__ import run
from gatehouse.render import Machine
from tests.given import PROVIDER_KEY, checkout, rendered

Gatehouse = Callable[..., tuple[int, str, str]]


@pytest.fixture
def gatehouse(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Gatehouse:
    """Give a call of `python -m gatehouse` in a checkout: its exit code, output and errors."""
    monkeypatch.chdir(checkout(tmp_path))

    def call(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["gatehouse", *arguments])
        try:
            code = run()
        except SystemExit as ended:
            code = int(ended.code or 0)
        return code, *capsys.readouterr()

    return call


def test_settings_of_the_shipped_inventory_are_valid(gatehouse: Gatehouse) -> None:
    """`gatehouse settings` prints the table and says that all is well."""
    code, output, _ = gatehouse("settings")
    assert code == 0
    assert "litellm_request_timeout_seconds" in output
    assert "The settings of @local are valid." in output


def test_settings_show_the_problems_of_every_host(gatehouse: Gatehouse) -> None:
    """Problems of all hosts and of the file with keys are shown at once, exit code 1."""
    Path("inventory").write_text(
        'boxes = [("one", {"litellm_prot": 1, "litellm_port": "x"}), ("two", {"redis_port": 1})]\n'
        'more = [("three", {"secrets_file": "keys.env"})]\n'
    )
    Path("keys.env").write_text("sk-not-shown\n")
    code, _, errors = gatehouse("settings")
    assert code == 1
    assert "problems in the settings: 4" in errors
    for key in ("one: litellm_prot", "one: litellm_port", "two: redis_port", "keys.env:1"):
        assert key in errors
    assert "sk-not-shown" not in errors


def test_inventory_that_cannot_be_read_is_named(gatehouse: Gatehouse) -> None:
    """An inventory that is no Python, or is not there, is an error of one line: nobody can look."""
    Path("broken").write_text("boxes = [\n")
    for inventory in ("broken", "missing"):
        code, output, errors = gatehouse("settings", "--inventory", inventory)
        assert code == 2
        assert len(errors.splitlines()) == errors.count(inventory) == 1
        assert "Traceback" not in output + errors


def test_render_writes_what_the_host_would_get(
    gatehouse: Gatehouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`gatehouse render` writes the tree of each host, with its modes, and touches no host."""
    monkeypatch.setenv(PROVIDER_KEY, "not-shown")
    Path("inventory").write_text('boxes = [("192.0.2.1", {"redis_maxmemory_mib": 128})]\n')
    code, output, _ = gatehouse("render")
    assert code == 0
    machine = Machine(provider_keys=frozenset({PROVIDER_KEY}))
    expected = rendered(machine, redis_maxmemory_mib=128)
    target = Path("build/render/192.0.2.1")
    written = {f"/{path.relative_to(target)}": path for path in target.rglob("*") if path.is_file()}
    assert written.keys() == expected.files.keys()
    for path, file in expected.files.items():
        assert written[path].read_text() == file.content
        assert f"{written[path].stat().st_mode & 0o777:o}" == file.mode
        assert "not-shown" not in file.content
    assert expected.release_id in output
    assert f"{machine.cores} cores" in output


def test_unknown_command_is_a_usage_error(gatehouse: Gatehouse) -> None:
    """A command that there is not is answered with exit code 2."""
    code, _, errors = gatehouse("deploi")
    assert code == 2
    assert "deploi" in errors
