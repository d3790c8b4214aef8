"""Two pytests at once: `python -m tests.lanes PYTEST-ARGUMENTS`.

Tests that share a workstation must follow each other, so each pytest has one. The first looks at a
gateway at work. The second breaks it, takes it away and brings it back, and has all tests that want
a workstation of their own: what the one waits for, the other has the processors for. Before that it
has those of engines, in a pytest of their own: their workstation ends with it, and works no more.
A few of its tests are the first lane's in the end, because that would be done minutes before it.

Tests here wait for real services, with deadlines that a machine busy with two lanes may miss. The
few that fail are run once more, by themselves, on a new workstation. What fails there
fails the run; what passes there is told as flaky at the end, with why it had failed.
"""

import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from threading import Thread

from gatehouse.lab import images
from gatehouse.lab.common import ROOT
from gatehouse.lab.engine import engine
from gatehouse.lab.progress import Progress
from tests.conftest import LANE

# A lane's pytests, each by the marks of its tests.
LANES = {
    "first": ["first", "late"],
    "second": ["engines", "not first and not late and not engines"],
}
# More than these are no bad luck; one that leaves its workstation wrong takes some others along.
MOST_AGAIN = 12
_FAILED = 1
_NOTHING_COLLECTED = 5
# pytest cuts a line of its summary at the terminal's width; here it must hold the reason.
_COLUMNS = "180"


@dataclass
class Lane:
    """Its name, which tests are its, and what the summaries of its pytests said of what failed."""

    name: str
    marks: list[str]
    arguments: list[str]
    failed: list[str] = field(default_factory=list)
    flaky: list[str] = field(default_factory=list)
    code: int = 0

    @property
    def cache(self) -> Path:
        """Where pytest keeps which tests failed: not the other lane's folder."""
        return ROOT / "build" / "lanes" / self.name

    def run(self) -> None:
        """Run its tests, one pytest after the other."""
        shutil.rmtree(self.cache, ignore_errors=True)
        self.code = max([self._pytest(marks) for marks in self.marks])

    def _pytest(self, marks: str, *more: str) -> int:
        """Run tests and give the exit code; each line says which lane wrote it."""
        process = subprocess.Popen(
            [
                *(sys.executable, "-m", "pytest", "-m", marks, *self.arguments),
                *("-o", f"cache_dir={self.cache}", *more),
            ],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            env=os.environ | {"COLUMNS": _COLUMNS, LANE: self.name},
        )
        for line in process.stdout or ():
            self.tell(line.rstrip())
            if line.startswith(("FAILED ", "ERROR ")):
                self.failed.append(line.rstrip())
        code = process.wait()
        return 0 if code == _NOTHING_COLLECTED else abs(code)

    def tell(self, line: str) -> None:
        """Write a line in its name."""
        sys.stdout.write(f"{self.name}: {line}\n")
        sys.stdout.flush()

    def again(self) -> None:
        """Run what failed once more, if it is little, and keep what that showed."""
        names = self._last_failed()
        if self.code != _FAILED or not 0 < len(names) <= MOST_AGAIN:
            return
        self.tell(f"once more, by themselves: {', '.join(names)}")
        before, self.failed = self.failed, []
        theirs = " or ".join(f"({marks})" for marks in self.marks)
        self.code = self._pytest(theirs, "--last-failed", "--last-failed-no-failures=none")
        still = self._last_failed()
        self.flaky = [line for line in before if not any(name in line for name in still)]

    def report(self) -> None:
        """Tell what failed, and what failed but once."""
        self.tell(f"exit code {self.code}")
        for line in self.failed:
            self.tell(line)
        for line in self.flaky:
            self.tell(f"FLAKY, passed when run again: {line}")

    def _last_failed(self) -> list[str]:
        path = self.cache / "v" / "cache" / "lastfailed"
        return sorted(json.loads(path.read_text())) if path.exists() else []


def main(arguments: list[str]) -> int:
    """Run both and give the worse exit code.

    What failed is told again at the end: one lane may be done long before the other.
    """
    progress = Progress()
    # Both need them, and only one could make them.
    client = engine(progress)
    images.archive(client, images.ensure(client, progress), progress)
    lanes = [Lane(name, marks, arguments) for name, marks in LANES.items()]
    threads = [Thread(target=lane.run) for lane in lanes]
    for thread in threads:
        thread.start()
    try:
        for thread in threads:
            thread.join()
    except KeyboardInterrupt:
        # Both pytests were told, too, and take their workstations down.
        for thread in threads:
            thread.join()
    else:
        for lane in lanes:
            lane.again()
    for lane in lanes:
        lane.report()
    return max(lane.code for lane in lanes)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
