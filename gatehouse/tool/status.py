"""`gatehouse status`: is this host what it was made to be?"""

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click
from pydantic import ValidationError
from rich.markup import escape

from gatehouse import state
from gatehouse.checks import Check, every
from gatehouse.tool import here
from gatehouse.tool.checking import Line, Status, Summary, look
from gatehouse.tool.errors import CannotLookError
from gatehouse.tool.show import ago, busy, console, emit, json_option, table

NOUN = "status"
MANIFEST = Path("/opt/gatehouse/current/manifest.json")
_STYLES = {"ok": "green", "warning": "yellow", "failure": "bold red", "hushed": "dim"}


@click.command("status")
@click.option("--component", metavar="NAME", help="Only the checks of this component.")
@click.option("--record", is_flag=True, help="Keep the result for the dashboard and the metrics.")
@click.option("--all", "everything", is_flag=True, help="Show each check, not only what is wrong.")
@json_option
def status(*, component: str | None, record: bool, everything: bool, as_json: bool) -> None:
    """Look whether this host is what it was made to be.

    \b
    sudo gatehouse status                    what is wrong, and how many checks hold
    sudo gatehouse status --all              every check
    sudo gatehouse status --component redis  only some
    gatehouse status                         without root: what was last recorded

    What does not hold because something else does not is hushed: `gatehouse doctor` says what it
    follows from, and mends what is safe to mend.

    Exit codes: 0 nothing fails (warnings may be there), 1 something fails, 2 it could not look.
    """  # noqa: D301 - click's mark for a block that stays as it is
    if os.geteuid():
        if record:
            here.be_root("status --record")
        found, old = recorded(), True
        if component:
            found = only(found, component)
    else:
        if component and record:
            raise CannotLookError("--record keeps the whole result: leave --component away")
        checks = [check for check in every(here.settings()) if not check.thorough]
        wanted = chosen(checks, component)
        with busy("looking"):
            found, _ = look(wanted)
        if component:
            found = only(found, component)
        if record:
            state.write(NOUN, found.model_dump())
        old = False
    if as_json:
        emit(found)
    else:
        show(found, old=old, everything=everything)
    raise SystemExit(found.exit_code)


def chosen(checks: Sequence[Check], component: str | None) -> Sequence[Check]:
    """Give the checks of a component, with all that they need; raises `CannotLookError`."""
    if component is None:
        return checks
    by_name = {check.name: check for check in checks}
    mine = [check for check in checks if check.component == component]
    if not mine:
        raise _unknown(component, {check.component for check in checks})
    wanted: dict[str, None] = {}
    left = [check.name for check in mine]
    while left:
        name = left.pop()
        if name in by_name and name not in wanted:
            wanted[name] = None
            left.extend(by_name[name].needs)
    return [check for check in checks if check.name in wanted]


def only(found: Status, component: str) -> Status:
    """Give the lines of a component; raises `CannotLookError` where there is none."""
    lines = [line for line in found.checks if line.component == component]
    if not lines:
        raise _unknown(component, {line.component for line in found.checks})
    states = [line.state for line in lines]
    summary = Summary(
        ok=states.count("ok"),
        warnings=states.count("warning"),
        failures=states.count("failure"),
        hushed=states.count("hushed"),
    )
    return found.model_copy(update={"checks": lines, "summary": summary})


def recorded() -> Status:
    """Give what the timer last recorded; raises `CannotLookError`."""
    try:
        kept: dict[str, Any] | None = state.read(NOUN)
    except PermissionError:
        raise CannotLookError(
            "what was recorded may be read by root and the group gatehouse only: use "
            "`sudo gatehouse status`, or join the group (usermod -aG gatehouse NAME)"
        ) from None
    try:
        return Status.model_validate(kept)
    except ValidationError:
        raise CannotLookError(
            "nothing was recorded yet, and only root may look: sudo gatehouse status"
        ) from None


def show(found: Status, *, old: bool, everything: bool) -> None:
    """Print a table, the components in their order; what holds is one line for each of them."""
    rows = table("component", "state", "check", "found")
    lines: list[Line] = []
    for component in dict.fromkeys(line.component for line in found.checks):
        mine = [line for line in found.checks if line.component == component]
        shown = mine if everything else [line for line in mine if line.state != "ok"]
        lines += shown
        holding = len(mine) - len(shown)
        if holding:
            rows.add_row(component, "[green]ok[/]", f"{holding} check{'s' * (holding > 1)}", "")
        for line in shown:
            style = _STYLES[line.state]
            name = line.name.removeprefix(f"{component}: ")
            rows.add_row(component, f"[{style}]{line.state}[/]", escape(name), escape(_words(line)))
    out = console()
    out.print(rows)
    count = found.summary
    out.print(
        f"\n{count.ok} hold, {count.failures} fail, {count.warnings} warn, {count.hushed} follow "
        f"from these; looked {ago(found.checked)}, in {found.seconds:.1f} s"
    )
    if images := held():
        out.print(images)
    if old:
        out.print("this is what was recorded; `sudo gatehouse status` looks now")
    elif count.failures or count.warnings:
        out.print("sudo gatehouse doctor says what to do")


def held() -> str:
    """Say how many images of the release cannot become others; nothing where that is unknown."""
    try:
        images: dict[str, list[str]] = json.loads(MANIFEST.read_text())["images"]
    except (OSError, ValueError, KeyError):
        return ""
    loose = [name for name, ids in images.items() if not ids and "@sha256:" not in name]
    words = f"; by tag alone: {', '.join(loose)} (make lock)" if loose else ""
    return f"{len(images) - len(loose)} of {len(images)} images are held by digest{words}"


def _words(line: Line) -> str:
    if line.state == "hushed":
        return f"because of {', '.join(line.because or [])}"
    return line.found


def _unknown(component: str, known: set[str]) -> CannotLookError:
    return CannotLookError(
        f"--component {component}: there is no such component; there are {', '.join(sorted(known))}"
    )
