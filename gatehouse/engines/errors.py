"""What goes wrong with engines, in words for people."""

import sys


class EngineError(Exception):
    """The engine cannot be served; the text says why and what mends it."""


class UnknownEngineError(EngineError):
    """Nobody has configured an engine of that name."""


class RefusedError(EngineError):
    """The engine may not start now; the text says who holds what."""


def say(text: str) -> None:
    """Write a line for the journal."""
    sys.stderr.write(f"{text}\n")
