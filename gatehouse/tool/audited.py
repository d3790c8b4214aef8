"""One line in the audit log for each command that changes something, however it ends."""

from collections.abc import Iterator
from contextlib import contextmanager, suppress

import click

from gatehouse import audit
from gatehouse.tool.errors import CannotLookError


@contextmanager
def audited(action: str, **details: str | float | list[str] | None) -> Iterator[None]:
    """Do what is inside and record it: as ok, as refused (nothing was touched), or as failed."""
    try:
        yield
    except BaseException as error:
        words = error.message if isinstance(error, click.ClickException) else type(error).__name__
        outcome: audit.Outcome = "refused" if isinstance(error, CannotLookError) else "failed"
        # A disk that is full may be the reason, which is to be told.
        with suppress(OSError):
            audit.record(action, outcome, reason=words.splitlines()[0], **details)
        raise
    audit.record(action, "ok", **details)
