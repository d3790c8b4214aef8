"""What every engine is doing: one small file an engine, replaced as a whole, and one lock."""

import fcntl
import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from gatehouse.engines.errors import EngineError

LOADING = "loading"
AWAKE = "awake"
LEAVING = "leaving"
REFUSED = "refused"
FAILED = "failed"
# The states in which an engine holds memory or has it promised.
LIVE = (LOADING, AWAKE, LEAVING)

LOCK_SECONDS = 30


@dataclass(frozen=True)
class State:
    """What an engine is doing; no state at all means asleep."""

    state: str
    since: float
    need_mib: int = 0
    reason: str = ""
    # The server's first process, once it is awake: finding its memory needs no word with Docker.
    pid: int | None = None


class States:
    """The state files of a host."""

    def __init__(self, run: Path) -> None:
        """Keep them in this folder."""
        self._run = run

    def get(self, name: str) -> State | None:
        """Give what the engine is doing; None when it is asleep or its file cannot be read."""
        try:
            found = json.loads((self._run / f"{name}.json").read_text())
            return State(
                state=found["state"],
                since=float(found["since"]),
                need_mib=int(found["need_mib"]),
                reason=str(found["reason"]),
                pid=found.get("pid"),
            )
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return None

    def put(self, name: str, state: State) -> None:
        """Say what the engine is doing; the mark `NAME.awake` exists exactly while it is awake."""
        if state.state != AWAKE:
            self._mark(name).unlink(missing_ok=True)
        write(self._run / f"{name}.json", asdict(state))
        if state.state == AWAKE:
            write(self._mark(name), None)

    def drop(self, name: str) -> None:
        """Say that the engine is asleep."""
        self._mark(name).unlink(missing_ok=True)
        (self._run / f"{name}.json").unlink(missing_ok=True)

    def is_awake(self, name: str) -> bool:
        """Say whether connections may be handed on."""
        return self._mark(name).exists()

    def ask_force(self, name: str) -> None:
        """Ask that the next start tries at once, even right after a failure."""
        write(self._run / f"{name}.force", None)

    def take_force(self, name: str) -> bool:
        """Say whether somebody asked for that, once."""
        try:
            (self._run / f"{name}.force").unlink()
        except FileNotFoundError:
            return False
        return True

    def _mark(self, name: str) -> Path:
        return self._run / f"{name}.awake"


def write(path: Path, content: object | None) -> None:
    """Replace a file that everybody may read; readers see the old or the new one, never a half."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_text("" if content is None else json.dumps(content))
    temporary.chmod(0o644)
    temporary.replace(path)


@contextmanager
def locked(path: Path, seconds: float = LOCK_SECONDS) -> Iterator[None]:
    """Hold the lock under which memory is given out; it goes with the process, however it ends."""
    end = time.monotonic() + seconds
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > end:
                    raise EngineError(
                        f"{path} is held by another start for more than {seconds:g} s; "
                        f"`sudo fuser -v {path}` names it"
                    ) from None
                time.sleep(0.01)
        yield
    finally:
        os.close(descriptor)
