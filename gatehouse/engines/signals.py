"""Being stopped by systemd in the middle of a wait."""

import signal
from types import FrameType
from typing import NoReturn


class StoppedError(BaseException):
    """SIGTERM came: unwind, so that nothing is left half done, and end.

    With exit code 0. The unit is on its way out by then and does not go on whatever we say; any
    other end, the signal's own too, would make a failed start of what somebody only stopped.
    """


def unwind_when_stopped() -> None:
    """Let SIGTERM unwind the program instead of ending it where it stands."""
    signal.signal(signal.SIGTERM, _stopped)


def _stopped(number: int, frame: FrameType | None) -> NoReturn:  # noqa: ARG001 - signal's own call
    raise StoppedError
