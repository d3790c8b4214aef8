"""`gatehouse timers`: what runs by itself, how it went, and when it runs again."""

import os
import re
import subprocess
import time
from datetime import UTC, datetime
from typing import Literal

import click
from pydantic import BaseModel, Field
from rich.markup import escape

from gatehouse.tool.errors import CannotLookError
from gatehouse.tool.show import ago, console, emit, json_option, span, table

_PATTERN = "gatehouse-*.timer"
_PROPERTIES = (
    *("Id", "Description", "ActiveState", "UnitFileState", "Triggers", "LastTriggerUSec"),
    *("NextElapseUSecRealtime", "NextElapseUSecMonotonic", "TimersCalendar", "TimersMonotonic"),
    *("Result", "ExecMainStatus", "ExecMainStartTimestamp"),
    *("ExecMainStartTimestampMonotonic", "ExecMainExitTimestampMonotonic"),
)
_SECONDS = 20
_UNITS = {
    "us": 1e-6,
    "ms": 1e-3,
    "s": 1.0,
    "min": 60.0,
    "h": 3600.0,
    "d": 86400.0,
    "w": 7 * 86400.0,
    "month": 30.4375 * 86400.0,
    "y": 365.25 * 86400.0,
}
_SPAN = re.compile(r"([0-9.]+)(us|ms|s|min|h|d|w|month|y)\b")
_SCHEDULE = re.compile(r"\{ On(Calendar|UnitActiveUSec|UnitInactiveUSec)=([^;]*?) ;")
Outcome = Literal["ok", "problem found", "failed", "running", "not yet"]

# Property → what systemd says of one unit.
Facts = dict[str, str]


class Timer(BaseModel):
    """One job that runs by itself."""

    name: str = Field(description="the job: gatehouse-NAME.timer and gatehouse-NAME.service")
    what: str = Field(description="what it does")
    armed: bool = Field(description="whether it will run again, after a reboot too")
    schedule: list[str] = Field(
        description="systemd's calendar expressions, or how often it is repeated"
    )
    last: float | None = Field(description="when it ran last, in seconds since the epoch")
    seconds: float | None = Field(description="how long that took")
    result: Outcome = Field(
        description="of the last run; problem found: it did its work and found one; not yet: it "
        "has not run since the host was started"
    )
    reason: str = Field(description="systemd's word for why it failed, with the exit code")
    next: float | None = Field(description="when it runs next, in seconds since the epoch")


class TimersDocument(BaseModel):
    """What `gatehouse timers` shows."""

    timers: list[Timer] = Field(description="by name")


@click.command()
@json_option
def timers(*, as_json: bool) -> None:
    """List what runs by itself: when it ran, how it went, and when it runs next.

    \b
    gatehouse timers                    all of them
    journalctl -u gatehouse-smoke       what one of them said
    sudo systemctl start gatehouse-smoke   run one now

    When each runs is a setting (timers_smoke and so on). Exit codes: 0 fine, 1 one failed or will
    not run again, 2 systemd could not be asked.
    """  # noqa: D301 - click's mark for a block that stays as it is
    document = look()
    if as_json:
        emit(document)
    else:
        _show(document.timers)
    if any(each.result == "failed" or not each.armed for each in document.timers):
        raise SystemExit(1)


def look() -> TimersDocument:
    """Ask systemd; raises `CannotLookError`."""
    found = [facts for facts in _facts(_PATTERN) if facts.get("Id", "").endswith(".timer")]
    services = {
        facts["Id"]: facts
        for facts in _facts(*(facts["Triggers"] for facts in found if facts.get("Triggers")))
        if "Id" in facts
    }
    rows = [timer(facts, services.get(facts.get("Triggers", ""), {})) for facts in found]
    return TimersDocument(timers=sorted(rows, key=lambda each: each.name))


def timer(facts: Facts, service: Facts) -> Timer:
    """Read what systemd says of a timer and of what it starts."""
    begin = _moment(service.get("ExecMainStartTimestamp"))
    took = _microseconds(service, "Exit") - _microseconds(service, "Start")
    triggered = _moment(facts.get("LastTriggerUSec"))
    last = begin or triggered
    result, reason = _result(service)
    return Timer(
        name=facts["Id"].removeprefix("gatehouse-").removesuffix(".timer"),
        what=service.get("Description", "").removeprefix("Gatehouse: "),
        armed=facts.get("ActiveState") == "active" and facts.get("UnitFileState") == "enabled",
        schedule=schedule(facts),
        last=last,
        seconds=round(took / 1e6, 3) if begin and took >= 0 else None,
        result=result,
        reason=reason,
        next=_next(facts),
    )


def _microseconds(service: Facts, which: str) -> int:
    return int(service.get(f"ExecMain{which}TimestampMonotonic") or 0)


def schedule(facts: Facts) -> list[str]:
    """Give when a timer runs, as its file says it."""
    found = []
    for key in ("TimersCalendar", "TimersMonotonic"):
        for kind, text in _SCHEDULE.findall(facts.get(key, "")):
            words = text if kind == "Calendar" else f"every {text}"
            found += [words] if words not in found else []
    return found


def seconds_of(text: str) -> float | None:
    """Read a time span as systemd writes it (`1h 2min 3.5s`); None for `infinity` and nothing."""
    parts = _SPAN.findall(text)
    return sum(float(number) * _UNITS[unit] for number, unit in parts) if parts else None


def _result(service: Facts) -> tuple[Outcome, str]:
    status = int(service.get("ExecMainStatus") or 0)
    if service.get("ActiveState") == "activating":
        return "running", ""
    if service.get("Result", "success") != "success":
        code = f", exit code {status}" if service["Result"] == "exit-code" else ""
        return "failed", f"{service['Result']}{code}"
    if _moment(service.get("ExecMainStartTimestamp")) is None:
        return "not yet", ""
    return ("problem found", f"exit code {status}") if status else ("ok", "")


def _next(facts: Facts) -> float | None:
    moments = [_moment(facts.get("NextElapseUSecRealtime"))]
    since_boot = seconds_of(facts.get("NextElapseUSecMonotonic", ""))
    if since_boot:
        moments.append(round(time.time() - time.clock_gettime(time.CLOCK_BOOTTIME) + since_boot, 3))
    return min((each for each in moments if each), default=None)


def _moment(text: str | None) -> float | None:
    """Read a moment, which systemd writes in two ways; empty or 0 is never."""
    if not text:
        return None
    if text.startswith("@"):
        return float(text[1:]) or None
    try:
        # `--timestamp=unix` says nothing to the properties of timers (257).
        return datetime.strptime(text, "%a %Y-%m-%d %H:%M:%S UTC").replace(tzinfo=UTC).timestamp()
    except ValueError:
        return None


def _facts(*units: str) -> list[Facts]:
    if not units:
        return []
    command = ["systemctl", "show", "--all", "--timestamp=unix"]
    command += [f"--property={','.join(_PROPERTIES)}", "--", *units]
    try:
        done = subprocess.run(
            command,
            check=True,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=_SECONDS,
            env=os.environ | {"LC_ALL": "C", "TZ": "UTC"},
        )
    except FileNotFoundError:
        raise CannotLookError("systemctl is missing: this host runs no systemd") from None
    except (OSError, subprocess.SubprocessError) as error:
        said = (getattr(error, "stderr", None) or b"").decode(errors="replace").strip()
        raise CannotLookError(f"systemd cannot be asked: {said or error}") from None
    return [parse(block) for block in done.stdout.decode(errors="replace").split("\n\n")]


def parse(block: str) -> Facts:
    """Read `systemctl show` for one unit; a property that is there twice is put together."""
    facts: Facts = {}
    for line in block.splitlines():
        key, _, value = line.partition("=")
        facts[key] = f"{facts[key]} {value}" if key in facts else value
    return facts


def _show(found: list[Timer]) -> None:
    if not found:
        click.echo("Nothing of Gatehouse runs by itself here (the settings timers_…).")
        return
    styles = {"ok": "green", "problem found": "yellow", "failed": "bold red"}
    rows = table("job", "schedule", "last run", "took", "result", "next run", right=("took",))
    for each in found:
        style = styles.get(each.result, "dim")
        result = f"{each.result} ({each.reason})" if each.reason else each.result
        rows.add_row(
            each.name,
            escape(", ".join(each.schedule)),
            ago(each.last),
            "" if each.seconds is None else f"{each.seconds:.1f} s",
            f"[{style}]{escape(result)}[/]",
            _when(each),
        )
    console().print(rows)
    for each in found:
        unit = f"gatehouse-{each.name}"
        if each.result == "failed":
            click.echo(f"{each.name}: journalctl -u {unit} says why; systemctl start {unit}")
        if not each.armed:
            click.echo(f"{each.name}: does not run again: systemctl enable --now {unit}.timer")


def _when(each: Timer) -> str:
    if not each.armed:
        return "[bold red]never[/]"
    if each.next is None:
        return "after this run" if each.result == "running" else "?"
    return f"in {span(max(0.0, each.next - time.time()))}"
