"""`make audit`: every host is asked, and what is no audit is no success."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from gatehouse.commands import audit, remote
from gatehouse.commands.verify import CannotLook, Way

HOSTS = ("one", "two", "three")
Audit = Callable[..., Result]


@dataclass(frozen=True)
class Here(Way):
    """A host on which a script of this machine runs, with what came over as $0."""

    script: str = "exit 0"

    @property
    def local(self) -> bool:
        """It is this machine."""
        return True

    def command(self, config: Path, script: str) -> list[str]:
        """Give the script in the place of the host's command."""
        assert not config.read_text()
        return ["sh", "-c", self.script, script.rpartition("gatehouse ")[2]]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> Audit:
    """Give a call of the command: host → its script; `away` is one that cannot be reached."""

    def call(*arguments: str, **scripts: str) -> Result:
        def way(name: str, _inventory: Path) -> Way:
            if scripts.get(name) == "away":
                raise CannotLook(f"{name} cannot be reached")
            return Here(name, {}, scripts.get(name, "exit 0"))

        monkeypatch.setattr(audit, "hosts", lambda _inventory: {name: {} for name in HOSTS})
        monkeypatch.setattr(remote, "way", way)
        return CliRunner().invoke(audit.command, arguments)

    return call


@pytest.mark.parametrize(
    ("script", "code"), [("exit 0", 0), ("exit 1", 1), ("exit 2", 2), ("exit 137", 2)]
)
def test_worst_host_decides(run: Audit, script: str, code: int) -> None:
    """The exit code is the worst of all hosts; what no audit ends with could not look."""
    assert run(two=script).exit_code == code


def test_audit_that_was_killed_is_no_success(run: Audit) -> None:
    """What a signal ends has proven nothing, and says so by the name of its host."""
    found = run(two="kill -9 $$")
    assert found.exit_code == 2
    assert "two: the audit was killed by signal 9" in found.output


def test_host_that_is_away_does_not_hide_the_others(run: Audit, tmp_path: Path) -> None:
    """All are asked; the first, which cannot be reached, is named and decides the exit code."""
    asked = tmp_path / "asked"
    script = f"echo $0 >>{asked}; exit 1"
    found = run(one="away", two=script, three=script)
    assert found.exit_code == 2
    assert "one cannot be reached" in found.output
    assert asked.read_text().splitlines() == ["audit", "audit"]


def test_options_of_the_audit_go_over(run: Audit, tmp_path: Path) -> None:
    """What is no option of this command is one of the host's."""
    asked = tmp_path / "asked"
    assert run("--limit", "two", "--all", "--json", two=f"echo $0 >{asked}").exit_code == 0
    assert asked.read_text().split() == ["audit", "--all", "--json"]
