"""The operator's `gatehouse --host NAME`: who is meant, and how they are reached."""

from pathlib import Path

import pytest
from click.testing import CliRunner

from gatehouse.commands import remote
from gatehouse.tool.__main__ import main

INVENTORY = "boxes = [('big', {'ssh_hostname': '10.0.0.7', 'ssh_port': 2222, 'ssh_user': 'ann'})]\n"


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, list[str], str]]:
    """Note who would be called, instead of calling."""
    seen: list[tuple[str, list[str], str]] = []

    def run(name: str, words: list[str], inventory: str) -> int:
        seen.append((name, words, inventory))
        return 1

    monkeypatch.setattr(remote, "run", run)
    return seen


def test_words_after_the_host_are_the_command(calls: list[tuple[str, list[str], str]]) -> None:
    """They go over as they were typed, options too, and the exit code comes back."""
    words = ["engine", "logs", "--lines", "3", "--", "a b"]
    result = CliRunner().invoke(main, ["--host", "big", *words])
    assert result.exit_code == 1
    assert calls[0][0] == "big"
    assert calls[0][1] in (words, [word for word in words if word != "--"])
    assert calls[0][2] == "inventory"


@pytest.mark.parametrize("name", ["-oProxyCommand=id", "", " ", "a b"])
def test_name_that_is_an_option_is_refused(name: str, tmp_path: Path) -> None:
    """Nothing that ssh would take for an option of its own reaches it."""
    with pytest.raises(remote.CannotLook, match="no name of a host"):
        remote.run(name, ["log"], str(tmp_path / "none"))


def test_host_of_the_inventory_is_told_from_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its data say how it is reached; a near miss is corrected; another name is ssh's own."""
    path = tmp_path / "inventory"
    path.write_text(INVENTORY)
    way = remote.way("big", path)
    assert remote.address(way) == "-p 2222 ann@10.0.0.7"
    with pytest.raises(remote.CannotLook, match="did you mean 'big'"):
        remote.way("bigg", path)
    assert remote.address(remote.way("elsewhere.example", path)) == "elsewhere.example"
