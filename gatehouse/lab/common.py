"""What every part of the lab shares: names, labels, the way it fails and the way it waits."""

import fcntl
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from gatehouse.lab.progress import Progress

ROOT = Path(__file__).parents[2]
BUILD = ROOT / "build" / "lab"
LOCK = Path.home() / ".cache" / "gatehouse" / "lab.lock"

PREFIX = "gatehouse-lab"
# Every Docker object that the lab makes carries it, so that all of them can be found again.
LABEL = "gatehouse.lab"
# Its value is the workstation's name, or one of these, which no workstation can have.
OF_IMAGES, OF_SEEDS, OF_HELPERS = "_image", "_images", "_helper"


class LabError(Exception):
    """The lab cannot do it; the message says what was found and what to do."""


def wait_for(
    what: str,
    problem: Callable[[], str | None],
    deadline_seconds: float,
    every_seconds: float = 0.2,
) -> None:
    """Ask `problem` again and again until it has none to tell.

    Raises `LabError` with the last problem when the deadline is over.
    """
    end = time.monotonic() + deadline_seconds
    while (found := problem()) is not None:
        if time.monotonic() > end:
            raise LabError(f"waited {deadline_seconds:.0f} s for {what}; last seen: {found}")
        time.sleep(every_seconds)


@contextmanager
def alone(progress: Progress) -> Iterator[None]:
    """Let one run at a time make what all workstations share: the images and the seed.

    They belong to the engine, so every checkout of this user waits for the same lock.
    """
    LOCK.parent.mkdir(parents=True, exist_ok=True)
    with LOCK.open("w") as lock:
        # The system lets go of it when the run that has it dies.
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            with progress.step("waiting for another run that makes images"):
                fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def run(
    command: list[str], *, check: bool = True, text: str = "", timeout_seconds: float = 600
) -> subprocess.CompletedProcess[str]:
    """Run a command with `text` as its standard input and keep its output.

    Raises `LabError` when it fails and `check` is true, and when it takes too long.
    """
    shown = " ".join(command)
    try:
        found = subprocess.run(
            command,
            input=text,
            capture_output=True,
            text=True,
            timeout=timeout_seconds,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise LabError(f"`{shown}` was not done after {timeout_seconds:.0f} s") from None
    if check and found.returncode:
        raise LabError(f"`{shown}` failed ({found.returncode}):\n{found.stdout}{found.stderr}")
    return found
