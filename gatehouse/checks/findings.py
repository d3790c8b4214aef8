"""What the checks found together: a problem that follows from another one is hushed."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from gatehouse.checks.check import Check, Result

State = Literal["ok", "warning", "failure", "hushed"]
# What a host says that gives no answer at all.
SILENCE = (255, "the host gave no answer")


@dataclass(frozen=True)
class Finding:
    """A check, what it found, and the checks that it follows from where it is hushed."""

    check: Check
    result: Result
    state: State
    because: tuple[str, ...] = ()

    @property
    def line(self) -> str:
        """Say it in one line."""
        return f"{self.check.name}: expected {self.check.expected}, found {self.result.found}"


def commands(checks: Iterable[Check]) -> list[str]:
    """Give each command once: checks that share one share its answer."""
    return list(dict.fromkeys(check.command for check in checks))


def findings(checks: Sequence[Check], answers: Mapping[str, tuple[int, str]]) -> list[Finding]:
    """Judge every check by the answer to its command: exit code and output.

    What does not hold is hushed where something that it needs, however far back, does not hold.
    """
    results = {check.name: check.judge(*answers.get(check.command, SILENCE)) for check in checks}
    causes = _causes(checks, results)
    found = []
    for check in checks:
        result, because = results[check.name], causes[check.name]
        state: State = "ok"
        if not result.holds:
            state = "hushed" if because else check.severity
        found.append(Finding(check, result, state, because if state == "hushed" else ()))
    return found


def ordered(checks: Sequence[Check]) -> list[Check]:
    """Give the checks so that each comes after all that it needs; else in the order given."""
    by_name = {check.name: check for check in checks}
    done: dict[str, Check] = {}

    def add(check: Check, above: tuple[str, ...]) -> None:
        if check.name in done or check.name in above:
            return
        for name in check.needs:
            if name in by_name:
                add(by_name[name], (*above, check.name))
        done[check.name] = check

    for check in checks:
        add(check, ())
    return list(done.values())


def _causes(checks: Sequence[Check], results: Mapping[str, Result]) -> dict[str, tuple[str, ...]]:
    """Give for each check the first ones, back along `needs`, that do not hold."""
    causes: dict[str, tuple[str, ...]] = {}
    for check in ordered(checks):
        found: dict[str, None] = {}
        for name in check.needs:
            if name not in causes:
                continue
            # Its own causes come first: it does not hold because of them.
            found |= dict.fromkeys(causes[name] or ((name,) if not results[name].holds else ()))
        causes[check.name] = tuple(found)
    return causes
