"""Waiting for a condition, never for a time."""

import time
from collections.abc import Callable
from typing import TypeVar

Found = TypeVar("Found")


def wait_for(condition: Callable[[], Found], deadline_seconds: float, what: str) -> Found:
    """Give the first true value of `condition`; fail the test when there is none in time."""
    end = time.monotonic() + deadline_seconds
    while not (found := condition()):
        if time.monotonic() > end:
            raise AssertionError(
                f"waited {deadline_seconds:.0f} s for {what}; last seen: {found!r}"
            )
        time.sleep(0.2)
    return found
