"""One statement about the host that is true or false, with a fix."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

Severity = Literal["failure", "warning"]


@dataclass(frozen=True)
class Result:
    """What a check found: whether it holds, and what was seen.

    `answered` is false where nothing was seen: then it holds as little, and `found` says why.
    """

    holds: bool
    found: str
    answered: bool = True


@dataclass(frozen=True)
class Check:
    """A statement and how to find out.

    `command` is run by root's `sh` on the host and only looks; `judge` gets its exit code and its
    output and is pure, so that a check can be tested without a host. Checks with the very same
    command share one run of it.

    `fix` is for a person; `repair` is a command that is safe to run by itself (`doctor --fix`),
    where there is one. `needs` names checks: where one of them does not hold, this one says nothing
    new.
    A `warning` does not fail a deploy. A `thorough` check costs too much for every few minutes:
    deploys, `gatehouse verify` and the doctor make it, `gatehouse status` does not. What a `past`
    check is about is no deploy's work: a deploy tells of it and does not fail.
    """

    name: str
    component: str
    expected: str
    command: str
    judge: Callable[[int, str], Result]
    fix: str
    severity: Severity = "failure"
    needs: tuple[str, ...] = ()
    repair: str | None = None
    thorough: bool = False
    past: bool = False


def equals(expected: str) -> Callable[[int, str], Result]:
    """Judge that the command succeeded and printed exactly this."""

    def judge(code: int, output: str) -> Result:
        seen = output.strip() or f"nothing (exit code {code})"
        return Result(code == 0 and output.strip() == expected, seen)

    return judge


def silent(code: int, output: str) -> Result:
    """Judge that the command succeeded and had nothing to report."""
    seen = output.strip() or ("nothing wrong" if code == 0 else f"exit code {code}")
    return Result(code == 0 and not output.strip(), seen)
