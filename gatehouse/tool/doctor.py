"""`gatehouse doctor`: what is the cause, what should be, and what mends it."""

from typing import Literal

import click
from pydantic import BaseModel, Field
from rich.markup import escape

from gatehouse import audit
from gatehouse.checks import Finding, every, ordered
from gatehouse.tool import here
from gatehouse.tool.checking import Status, answer, look
from gatehouse.tool.errors import ProblemError
from gatehouse.tool.show import busy, console, emit, json_option

# The longest is a migration of a large database.
REPAIR_SECONDS = 900


class Repair(BaseModel):
    """One thing that was tried."""

    check: str = Field(description="The check that did not hold.")
    outcome: Literal["done", "failed", "declined"] = Field(description="What came of it.")
    said: str = Field(description="What the repair said, in one line.")


class Diagnosis(BaseModel):
    """What `gatehouse doctor --json` prints."""

    before: Status = Field(description="What was found at first.")
    repairs: list[Repair] = Field(description="What was tried; empty without --fix.")
    after: Status | None = Field(description="What was found after repairs; null without any.")

    @property
    def exit_code(self) -> int:
        """0 when nothing fails in the end."""
        return (self.after or self.before).exit_code


@click.command("doctor")
@click.option("--fix", is_flag=True, help="Make the repairs that are safe, each asked for.")
@click.option("--yes", is_flag=True, help="Do not ask before each repair.")
@json_option
def doctor(*, fix: bool, yes: bool, as_json: bool) -> None:
    """Say what is wrong, what it comes from, and what mends it.

    \b
    sudo gatehouse doctor              what is wrong, and what to do
    sudo gatehouse doctor --fix        ask for each safe repair, make it, and look again
    sudo gatehouse doctor --fix --yes  the same without asking

    Checks that fail only because another one fails are not repeated. Beside what `gatehouse status`
    looks at, it logs in to the web interface. Each repair is written to the audit log.

    Exit codes: 0 nothing fails (any more), 1 something fails, 2 it could not look.
    """  # noqa: D301 - click's mark for a block that stays as it is
    here.be_root("doctor")
    if yes and not fix:
        raise click.UsageError("--yes is for --fix")
    checks = ordered(every(here.settings()))
    with busy("looking"):
        before, found = look(checks)
    if not as_json:
        explain(found, before)
    repairs = _mended(found, yes=yes, quiet=as_json) if fix else []
    after = None
    if any(each.outcome != "declined" for each in repairs):
        with busy("looking again"):
            after, found = look(checks)
        if not as_json:
            explain(found, after)
    diagnosis = Diagnosis(before=before, repairs=repairs, after=after)
    if as_json:
        emit(diagnosis)
    raise SystemExit(diagnosis.exit_code)


def causes(found: list[Finding]) -> list[Finding]:
    """Give what does not hold by itself, in the order in which one depends on the other."""
    return [each for each in found if each.state in {"failure", "warning"}]


def explain(found: list[Finding], status: Status) -> None:
    """Print each cause with what was expected and found, and what to do."""
    out = console()
    for each in causes(found):
        style = "bold red" if each.state == "failure" else "yellow"
        follows = [other.check.name for other in found if each.check.name in other.because]
        out.print(f"[{style}]{each.state}[/] {escape(each.check.name)}")
        out.print(f"  expected  {escape(each.check.expected)}")
        out.print(f"  found     {escape(each.result.found)}")
        out.print(f"  fix       {escape(each.check.fix)}")
        if each.check.repair:
            out.print("  repair    sudo gatehouse doctor --fix")
        if follows:
            out.print(f"  [dim]so fail  {escape(', '.join(follows))}[/]")
    count = status.summary
    if not causes(found):
        out.print(f"[green]nothing is wrong[/]: {count.ok} checks hold ({status.seconds:.1f} s)")


def _mended(found: list[Finding], *, yes: bool, quiet: bool) -> list[Repair]:
    """Make the repairs, each once however many checks it mends; says what it does."""
    made: list[Repair] = []
    by_command: dict[str, list[str]] = {}
    for each in causes(found):
        if each.check.repair:
            by_command.setdefault(each.check.repair, []).append(each.check.name)
    for command, names in by_command.items():
        made.append(_mend(command, names, yes=yes))
        if not quiet:
            words = f"{made[-1].outcome}: {made[-1].check}"
            console().print(escape(f"{words} ({made[-1].said})" if made[-1].said else words))
    return made


def _mend(command: str, names: list[str], *, yes: bool) -> Repair:
    name = ", ".join(names)
    try:
        here.confirm(f"Mend “{name}”?", yes=yes)
    except ProblemError:
        return Repair(check=name, outcome="declined", said="")
    with busy(f"mending {name}"):
        code, output = answer(command, REPAIR_SECONDS)
    said = " ".join(output.split())[-300:]
    audit.record("doctor --fix", "failed" if code else "ok", checks=names, said=said or None)
    return Repair(check=name, outcome="failed" if code else "done", said=said)
