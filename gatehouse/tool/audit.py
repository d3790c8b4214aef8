"""`gatehouse audit`: how hard is this host, by the CIS Docker Benchmark and by our own items?"""

from collections.abc import Mapping, Sequence
from typing import Literal

import click
from pydantic import BaseModel, Field
from rich.markup import escape

from gatehouse.checks import Finding, commands, every, findings
from gatehouse.checks.cis import SECTIONS, Item, items
from gatehouse.settings import Settings
from gatehouse.tool import here
from gatehouse.tool.checking import answer
from gatehouse.tool.show import busy, console, emit, json_option, table

Verdict = Literal["pass", "fail", "unknown", "excepted", "absent"]
# Checks of `gatehouse status` that an audit is about, too.
OTHERS = ("firewall", "network", "secrets")
# It reads every log and file: bounded, but slow on a busy host.
SECONDS = 300
_REMOVE = "remove it from group_data/, and deploy again"
# Of a command that found out nothing: its time was over, or it cannot be run.
_NO_ANSWER = (124, 126, 127)
_STYLES: dict[Verdict, str] = {
    "pass": "green",
    "fail": "bold red",
    "unknown": "bold red",
    "excepted": "yellow",
    "absent": "dim",
}


class Line(BaseModel):
    """One item."""

    id: str = Field(
        description="Of the CIS Docker Benchmark v1.6; G: of Gatehouse; else a check of the status."
    )
    section: str = Field(description="What it is about.")
    title: str = Field(description="What should hold.")
    verdict: Verdict = Field(
        description="unknown: it could not be looked at; excepted: it does not hold, on purpose; "
        "absent: it does not apply here."
    )
    expected: str = Field(description="What should be.")
    found: str = Field(description="What was seen.")
    fix: str = Field(description="What a person can do.")
    reason: str | None = Field(description="Why it is excepted, or does not apply.")


class Audit(BaseModel):
    """What `gatehouse audit --json` prints."""

    passed: int = Field(description="Items that hold.")
    applicable: int = Field(description="Items that apply here, excepted and unknown ones too.")
    excepted: int = Field(description="Items that do not hold on purpose.")
    failed: int = Field(description="Items that do not hold.")
    unknown: int = Field(description="Items that could not be looked at.")
    problems: list[str] = Field(description="What is wrong with the list of exceptions.")
    items: list[Line] = Field(description="Every item.")

    @property
    def exit_code(self) -> int:
        """0 when nothing fails and every exception is one; 2 when something was not looked at."""
        if self.unknown:
            return 2
        return 1 if self.failed or self.problems else 0


@click.command("audit")
@click.option("--all", "everything", is_flag=True, help="Show what holds, too.")
@json_option
def audit(*, everything: bool, as_json: bool) -> None:
    """Measure this host by the CIS Docker Benchmark, and look for what should not be seen.

    \b
    sudo gatehouse audit               the score, and what does not hold
    sudo gatehouse audit --all         every item with its id
    sudo gatehouse audit --json        for programs

    Beside the benchmark: who listens where, the firewall, and a search for the values of the host's
    secrets in everything that people and backups may see. It changes nothing. What does not hold on
    purpose is in audit_exceptions with its reason; an exception that is none any more fails, too.

    Exit codes: 0 all holds or is excepted, 1 something does not, 2 it could not look everywhere.
    """  # noqa: D301 - click's mark for a block that stays as it is
    here.be_root("audit")
    settings = here.settings()
    with busy("looking everywhere"):
        found = audited(settings)
    if as_json:
        emit(found)
    else:
        show(found, everything=everything)
    raise SystemExit(found.exit_code)


def wanted(settings: Settings) -> list[Item]:
    """Give all items: the benchmark's, our own, and checks of the status that belong here."""
    others = [check for check in every(settings) if check.component in OTHERS]
    return [*items(settings), *(Item(check.name, check.name, check) for check in others)]


def audited(settings: Settings) -> Audit:
    """Make the audit of this host."""
    asked = wanted(settings)
    answers = {
        command: answer(command, SECONDS) for command in commands([each.check for each in asked])
    }
    return judged(asked, answers, settings.audit_exceptions)


def judged(
    asked: Sequence[Item],
    answers: Mapping[str, tuple[int, str]],
    exceptions: Mapping[str, str],
) -> Audit:
    """Judge every item by the answer to its command, and the exceptions by the items."""
    found = findings([each.check for each in asked], answers)
    lines = [
        _line(item, finding, answers[item.check.command], exceptions)
        for item, finding in zip(asked, found, strict=True)
    ]
    problems = _problems(lines, exceptions)
    count = {verdict: sum(line.verdict == verdict for line in lines) for verdict in _STYLES}
    return Audit(
        passed=count["pass"],
        applicable=len(lines) - count["absent"],
        excepted=count["excepted"],
        failed=count["fail"],
        unknown=count["unknown"],
        problems=problems,
        items=lines,
    )


def _line(
    item: Item, finding: Finding, answered: tuple[int, str], exceptions: Mapping[str, str]
) -> Line:
    why = item.absent(*answered)
    code, _ = answered
    silent = not finding.result.answered or code in _NO_ANSWER or code < 0
    verdict: Verdict
    if why is not None:
        verdict, reason = "absent", why
    elif finding.result.holds:
        verdict, reason = "pass", None
    elif silent:
        verdict, reason = "unknown", None
    elif item.id in exceptions:
        verdict, reason = "excepted", exceptions[item.id]
    else:
        verdict, reason = "fail", None
    return Line(
        id=item.id,
        section=item.section,
        title=item.title,
        verdict=verdict,
        expected=item.check.expected,
        found=finding.result.found,
        fix=item.check.fix,
        reason=reason,
    )


def _problems(lines: Sequence[Line], exceptions: Mapping[str, str]) -> list[str]:
    """Give what is wrong with exceptions: no such item, or nothing to except."""
    verdicts = {line.id: line.verdict for line in lines}
    found = []
    for number in exceptions:
        if number not in verdicts:
            found.append(f"audit_exceptions names {number}, and there is no such item: {_REMOVE}")
        elif verdicts[number] == "pass":
            found.append(f"audit_exceptions names {number}, and that holds: {_REMOVE}")
    return found


def show(found: Audit, *, everything: bool) -> None:
    """Print the items by section, and the score."""
    rows = table("id", "verdict", "item", "found")
    for section in SECTIONS.values():
        mine = [line for line in found.items if line.section == section]
        passed = sum(line.verdict == "pass" for line in mine)
        applicable = sum(line.verdict != "absent" for line in mine)
        rows.add_row("", f"[bold]{passed} of {applicable}[/]", f"[bold]{section}[/]", "")
        for line in mine:
            if line.verdict != "pass" or everything:
                style = _STYLES[line.verdict]
                why = line.found if line.reason is None else line.reason
                number = "" if line.id == line.title else line.id
                rows.add_row(number, f"[{style}]{line.verdict}[/]", escape(line.title), escape(why))
    out = console()
    out.print(rows)
    for line in found.items:
        if line.verdict == "fail":
            name = line.title if line.id == line.title else f"{line.id} {line.title}"
            out.print(f"\n[bold red]fail[/] {escape(name)}")
            out.print(f"  expected  {escape(line.expected)}")
            out.print(f"  found     {escape(line.found)}")
            out.print(f"  fix       {escape(line.fix)}")
    for problem in found.problems:
        out.print(f"[bold red]{escape(problem)}[/]")
    if found.unknown:
        out.print(
            f"\n[bold red]{found.unknown} could not be looked at[/]: the table says why; "
            "mend that, or wait until the host is less busy, and audit it again"
        )
    out.print(
        f"\nscore: {found.passed} of {found.applicable} that apply; {found.excepted} excepted "
        f"with a reason, {found.failed} failed, {found.unknown} unknown"
    )
