"""Make the checks on this host: each command once, as many at a time as there are cores."""

import os
import subprocess
import time
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Literal

from pydantic import BaseModel, Field

from gatehouse.checks import Check, Finding, commands, findings

# A probe bounds what it waits for by itself; this bounds the rest.
_SECONDS = 30
_TIMED_OUT = 124
# Each mostly waits for somebody else.
_AT_ONCE = max(4, (os.cpu_count() or 1) * 2)


class Line(BaseModel):
    """One check and what it found."""

    name: str = Field(description="The check, unique; it begins with its component.")
    component: str = Field(description="What it is about: redis, litellm, host …")
    expected: str = Field(description="What should be.")
    found: str = Field(description="What was seen.")
    state: Literal["ok", "warning", "failure", "hushed"] = Field(
        description="hushed: it does not hold, and follows from another check that does not."
    )
    severity: Literal["failure", "warning"] = Field(description="How bad it is if it fails.")
    because: list[str] | None = Field(description="The checks that a hushed one follows from.")
    fix: str = Field(description="What a person can do.")
    repair: bool = Field(description="Whether `gatehouse doctor --fix` can mend it.")


class Summary(BaseModel):
    """How many checks are in each state."""

    ok: int = Field(description="They hold.")
    warnings: int = Field(description="They do not hold, and it can wait.")
    failures: int = Field(description="They do not hold.")
    hushed: int = Field(description="They do not hold because of another one.")


class Status(BaseModel):
    """What `gatehouse status --json` prints and `--record` keeps."""

    checked: float = Field(description="When it was looked at: seconds since the epoch.")
    seconds: float = Field(description="How long it took.")
    summary: Summary = Field(description="The states, counted.")
    checks: list[Line] = Field(description="Every check.")

    @property
    def exit_code(self) -> int:
        """0 when nothing fails; a warning is no failure."""
        return 1 if self.summary.failures else 0


def answer(command: str, seconds: float = _SECONDS) -> tuple[int, str]:
    """Run a command of root's shell; give its exit code and all that it says."""
    try:
        done = subprocess.run(
            ["sh", "-c", command],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=seconds,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return _TIMED_OUT, f"no answer in {seconds:.0f} s"
    return done.returncode, done.stdout.decode(errors="replace")


def look(checks: Sequence[Check]) -> tuple[Status, list[Finding]]:
    """Make the checks, and give the document and the findings that it was made of."""
    begin, moment = time.monotonic(), time.time()
    asked = commands(checks)
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        found = findings(checks, dict(zip(asked, pool.map(answer, asked), strict=True)))
    return document(found, moment, time.monotonic() - begin), found


def document(found: Sequence[Finding], moment: float, seconds: float) -> Status:
    """Write the findings down."""
    count = Counter(each.state for each in found)
    return Status(
        checked=round(moment, 3),
        seconds=round(seconds, 3),
        summary=Summary(
            ok=count["ok"],
            warnings=count["warning"],
            failures=count["failure"],
            hushed=count["hushed"],
        ),
        checks=[
            Line(
                name=each.check.name,
                component=each.check.component,
                expected=each.check.expected,
                found=each.result.found,
                state=each.state,
                severity=each.check.severity,
                because=list(each.because) or None,
                fix=each.check.fix,
                repair=each.check.repair is not None,
            )
            for each in found
        ],
    )
