"""A release that has passed every check: `… RELEASE OPERATOR NUMBER`, by the deploy.

It becomes the one that is gone back to; NUMBER of them are kept.
"""

import os
import sys
from contextlib import suppress

import click

from gatehouse import audit
from gatehouse.tool import release_store
from gatehouse.tool.release_store import GOOD, VENV


def main() -> None:
    """Keep what it placed, note how it fared, and remove what is too old."""
    name, operator, number = sys.argv[1:]
    try:
        release = release_store.find(name)
        # Nothing is called good that a power cut in the next half minute would take away.
        os.sync()
        release_store.keep(release)
        release_store.link(release.venv, VENV.readlink())
        with suppress(OSError):
            release_store.remember(
                name,
                "good",
                reason=None,
                who=audit.actor(),
                came_from=operator,
                images=release.images,
            )
        release_store.link(GOOD, release.folder)
        # A rollback that did not end is overtaken.
        release_store.ROLLBACK.unlink(missing_ok=True)
        for each in release_store.prune(int(number)):
            click.echo(f"{each} is too old and is gone")
    except (click.ClickException, OSError) as error:
        sys.exit(str(error.message if isinstance(error, click.ClickException) else error))


if __name__ == "__main__":
    os.umask(0o022)
    main()
