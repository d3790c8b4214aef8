"""One change at a time on this host: a deploy, a backup, a restore, an upgrade, a rollback.

The kernel holds the lock and takes it back from whoever dies; the file only says who it is.
"""

import fcntl
import json
import os
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TextIO

import click

from gatehouse import audit
from gatehouse.tool import show
from gatehouse.tool.errors import CannotLookError, ProblemError

FILE = Path("/run/gatehouse/deploy.lock")
# Of who reads or writes the repository of backups.
REPOSITORY = Path("/run/gatehouse/repository.lock")
_REPOSITORY_SECONDS = 3600.0
# Who only looks whether it is free holds it for a moment.
_PATIENCE_SECONDS = 2.0
_POLL_SECONDS = 0.1


@contextmanager
def held(
    action: str, patience_seconds: float | None = None, file: Path | None = None
) -> Iterator[None]:
    """Hold the lock (`file`: another than the host's); `action` is the command, without secrets.

    Raises `ProblemError` that names the holder where somebody else has it, `CannotLookError` where
    the caller may not take it.
    """
    path = file or FILE
    try:
        path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        opened = path.open("a+")
    except PermissionError:
        raise CannotLookError(f"only root may do this: sudo gatehouse {action}") from None
    with opened:
        _take(opened, _PATIENCE_SECONDS if patience_seconds is None else patience_seconds)
        _write(opened, line(action, audit.actor(), os.environ.get(audit.CAME_FROM), os.getpid()))
        try:
            yield
        finally:
            _write(opened, "")


@contextmanager
def repository(action: str) -> Iterator[None]:
    """Have the repository of backups to oneself, and wait for whoever is at work in it.

    restic's own locks do not wait: a drill beside the daily backup would say that nothing comes
    back. Whoever takes the host's lock as well takes this one first. Raises as `held` does, after
    an hour.
    """
    with ExitStack() as stack:
        try:
            stack.enter_context(held(action, 0, REPOSITORY))
        except ProblemError as error:
            click.echo(f"waiting, for up to an hour: {error.message}", err=True)
            stack.enter_context(held(action, _REPOSITORY_SECONDS, REPOSITORY))
        yield


@contextmanager
def alone(file: Path, what: str) -> Iterator[None]:
    """Have one command of a kind at a time (`what`), beside whatever else changes this host.

    Raises `CannotLookError` where another has the lock of this file.
    """
    file.parent.mkdir(exist_ok=True)
    with file.open("a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise CannotLookError(f"another {what} is at work on this host: wait for it") from None
        yield


def line(action: str, who: str, came_from: str | None = None, pid: int | None = None) -> str:
    """Write down who holds it, as the file says it; `pid` is a process of this host."""
    now = datetime.now(UTC).isoformat(timespec="seconds")
    found = {"who": who, "from": came_from, "action": action, "since": now}
    return json.dumps({**found, "pid": pid}) + "\n"


def holder(text: str) -> str:
    """Say in words who holds it, from what the file says."""
    try:
        found = json.loads(text)
        since = datetime.fromisoformat(found["since"])
        came_from = f" from {found['from']}" if found["from"] else ""
        words = f"`{found['action']}` by {found['who']}{came_from}"
    except (ValueError, KeyError, TypeError):
        return "another change"
    return f"{words}, since {since.astimezone():%H:%M:%S} ({show.ago(since.timestamp())})"


def refusal(text: str) -> str:
    """Say why nothing can be changed now, and what to do."""
    return f"{holder(text)} is under way on this host, nothing was touched: wait until it is done"


def _take(file: TextIO, patience_seconds: float) -> None:
    deadline = time.monotonic() + patience_seconds
    while True:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > deadline:
                file.seek(0)
                raise ProblemError(refusal(file.read())) from None
            time.sleep(_POLL_SECONDS)
        else:
            return


def _write(file: TextIO, text: str) -> None:
    file.seek(0)
    file.truncate()
    file.write(text)
    file.flush()
