"""Lines that tell a person what the lab is doing and for how long it has been doing it."""

import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TextIO


class Progress:
    """Prints a line for each step, rewritten every second on a terminal, repeated in a log."""

    def __init__(self, stream: TextIO | None = None, every_seconds: float = 30) -> None:
        """Print to `stream`, standard error when None; `every_seconds` counts off a terminal."""
        self._stream = sys.stderr if stream is None else stream
        self._terminal = self._stream.isatty()
        self._every = 1 if self._terminal else every_seconds

    def say(self, text: str) -> None:
        """Print one line."""
        self._write(f"gatehouse.lab: {text}\n")

    @contextmanager
    def step(self, text: str) -> Iterator[None]:
        """Show `text` and the seconds that have passed, for as long as the block runs."""
        begin = time.monotonic()
        over = threading.Event()

        def elapsed() -> str:
            return f"gatehouse.lab: {text} ... {time.monotonic() - begin:.0f} s"

        def tick() -> None:
            while not over.wait(self._every):
                self._write(f"\r{elapsed()}" if self._terminal else f"{elapsed()}\n")

        if self._terminal:
            self._write(f"gatehouse.lab: {text} ...")
        ticker = threading.Thread(target=tick, daemon=True)
        ticker.start()
        outcome = "failed"
        try:
            yield
            outcome = "done"
        finally:
            over.set()
            ticker.join()
            start = "\r" if self._terminal else ""
            self._write(f"{start}{elapsed()}, {outcome}\n")

    def _write(self, text: str) -> None:
        self._stream.write(text)
        self._stream.flush()
