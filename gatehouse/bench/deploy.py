"""How long a deploy takes, and where its time goes."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from gatehouse.bench.station import Deploy, provision
from gatehouse.bench.table import Report, Spread, table
from gatehouse.bench.timeline import operations, phases
from gatehouse.lab.common import LabError
from gatehouse.lab.progress import Progress
from gatehouse.lab.workstation import Workstation

NOOP_LIMIT_SECONDS = 12
# Operations that take less are summed up.
SHOWN_SECONDS = 0.15

_ENTRIES = "journalctl -t sshd -t sshd-session --cursor-file=/run/bench.cursor -o cat"
_VERBOSE = "echo LogLevel VERBOSE >/etc/ssh/sshd_config.d/bench.conf && systemctl reload ssh"


@dataclass
class Sessions:
    """What the workstation's own sshd has counted."""

    commands: int = 0
    transfers: int = 0
    connections: int = 0


@contextmanager
def counted(workstation: Workstation) -> Iterator[Sessions]:
    """Count what sshd serves while the block runs: each remote command is a session of its own."""
    workstation.exec(f"{_VERBOSE} && {_ENTRIES} >/dev/null")
    sessions = Sessions()
    yield sessions
    log = workstation.exec(_ENTRIES).stdout.splitlines()
    sessions.commands = sum(line.startswith("Starting session: command") for line in log)
    sessions.transfers = sum(line.startswith("Starting session: subsystem") for line in log)
    sessions.connections = sum(line.startswith("Accepted publickey ") for line in log)


def run(
    workstation: Workstation, fresh: Sequence[Deploy], progress: Progress, *, rounds: int
) -> Report:
    """Repeat the deploy with nothing to change."""
    again = []
    with counted(workstation) as sessions:
        for number in range(1, rounds + 1):
            with progress.step(f"deploy {number} of {rounds} with nothing to change"):
                again.append(unchanged(workstation))
    return report(fresh, again, sessions)


def unchanged(workstation: Workstation) -> Deploy:
    """Deploy again; raises `LabError` when that changes anything."""
    found = provision(workstation)
    if found.totals.unchanged != found.totals.operations:
        raise LabError(
            f"a deploy of what is there already was to change nothing; it changed "
            f"{found.totals.changed} of {found.totals.operations} operations: "
            f"`pyinfra {workstation.access.inventory} deploy.py` shows which"
        )
    return found


def report(fresh: Sequence[Deploy], again: Sequence[Deploy], sessions: Sessions) -> Report:
    """Write the tables; held when the deploy that changes nothing is within its limit."""
    runs = len(again)
    seconds = Spread.of(run.seconds for run in again)
    held = seconds.middle <= NOOP_LIMIT_SECONDS
    rows = [_row("fresh host, images on its disk", "", fresh)]
    rows += [_row("again, nothing to change", f"<= {NOOP_LIMIT_SECONDS}", again)]
    head = ("", "seconds", "limit", "operator's CPU seconds", "operations", "changed")
    text = f"""\
Deploy over SSH, median of {len(fresh)} fresh and {runs} repeated (lowest-highest)

{table(head, rows)}

  With nothing to change: {sessions.commands / runs:g} remote commands, \
{sessions.transfers / runs:g} file transfers, {sessions.connections / runs:g} connection a deploy,
  as the host's own sshd logs them (LogLevel VERBOSE, `Starting session`).

Where the time goes, median seconds, read from the times of pyinfra's own lines

{table(("", "fresh", "again"), _shares(fresh, again))}

  the limit of {NOOP_LIMIT_SECONDS} s with nothing to change is {"held" if held else "NOT held"}"""
    return Report(text, held)


def _row(name: str, limit: str, deploys: Sequence[Deploy]) -> tuple[str, ...]:
    return (
        name,
        Spread.of(run.seconds for run in deploys).text(),
        limit,
        Spread.of(run.cpu_seconds for run in deploys).text(),
        str(deploys[0].totals.operations),
        str(deploys[0].totals.changed),
    )


def _shares(fresh: Sequence[Deploy], again: Sequence[Deploy]) -> list[tuple[str, ...]]:
    """Give the phases, with the operations that take long below theirs."""
    columns = (fresh, again)
    rows = []
    for phase in phases(again[0].lines, again[0].seconds):
        rows.append((phase, *(_phase(phase, runs) for runs in columns)))
        if phase == "operations":
            rows += _operations(fresh, again)
    return rows


def _phase(phase: str, runs: Sequence[Deploy]) -> str:
    return f"{Spread.of(phases(run.lines, run.seconds)[phase] for run in runs).middle:.2f}"


def _operations(fresh: Sequence[Deploy], again: Sequence[Deploy]) -> list[tuple[str, ...]]:
    taken = [_medians(fresh), _medians(again)]
    shown = [name for name in taken[1] if max(each[name] for each in taken) >= SHOWN_SECONDS]
    rows = [(f"  {name}", *(f"{each[name]:.2f}" for each in taken)) for name in shown]
    rest = [sum(value for name, value in each.items() if name not in shown) for each in taken]
    others = len(taken[1]) - len(shown)
    return [*rows, (f"  {others} other operations", f"{rest[0]:.2f}", f"{rest[1]:.2f}")]


def _medians(runs: Sequence[Deploy]) -> dict[str, float]:
    each = [operations(run.lines) for run in runs]
    return {name: Spread.of(found.get(name, 0.0) for found in each).middle for name in each[0]}
