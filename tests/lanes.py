"""Two pytests at once: `python -m tests.lanes PYTEST-ARGUMENTS`.

Tests that share the run's workstation must follow each other. Those that have one of their own, or
the engines', need not wait for them: most of their time is waiting for containers.
"""

import subprocess
import sys
from threading import Thread
from typing import IO

from gatehouse.lab import images
from gatehouse.lab.engine import engine
from gatehouse.lab.progress import Progress

LANES = {"shared": "shared", "others": "not shared"}
_NOTHING_COLLECTED = 5


def main(arguments: list[str]) -> int:
    """Run both and give the worse exit code; each line says which of them wrote it."""
    progress = Progress()
    # Both need them, and only one could make them.
    client = engine(progress)
    images.archive(client, images.ensure(client, progress), progress)
    processes = {name: _start(marks, arguments) for name, marks in LANES.items()}
    readers = [
        Thread(target=_show, args=(name, process.stdout)) for name, process in processes.items()
    ]
    for reader in readers:
        reader.start()
    try:
        codes = [process.wait() for process in processes.values()]
    except KeyboardInterrupt:
        codes = [process.wait() for process in processes.values()]
    for reader in readers:
        reader.join()
    return max(0 if code == _NOTHING_COLLECTED else abs(code) for code in codes)


def _start(marks: str, arguments: list[str]) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-m", "pytest", "-m", marks, *arguments],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
    )


def _show(name: str, lines: IO[str] | None) -> None:
    for line in lines or ():
        sys.stdout.write(f"{name}: {line}")
        sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
