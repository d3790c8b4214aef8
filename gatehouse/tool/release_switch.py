"""A rollback by hand: to another release as a whole, or back to the one that served.

What it is about is written down before anything is touched. A unit waits beside each rollback for
the lock of this host, which the kernel takes from whoever dies, and finishes one that did not end;
after a power cut `gatehouse-back.service` does at the boot.
"""

import json
import math
import os
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import asdict, dataclass

import click

from gatehouse import audit
from gatehouse.tool import lock, release_back, release_database, release_store
from gatehouse.tool.errors import CannotLookError, ProblemError
from gatehouse.tool.release_store import VENV, Release

UNIT = "gatehouse-rollback-back"
# Right after a boot everything else starts, too.
_ATTEMPTS = 3
_AGAIN_SECONDS = 10.0


@dataclass(frozen=True)
class Plan:
    """From which release to which; `dump` is the one whose dump takes the database's place."""

    target: str
    present: str
    dump: str | None = None


def unfinished() -> Plan | None:
    """Give the plan of a rollback that did not end, if its releases are there."""
    with suppress(OSError, ValueError, TypeError, CannotLookError):
        plan = Plan(**json.loads(release_store.ROLLBACK.read_text()))
        for each in (plan.target, plan.present, plan.dump or plan.present):
            release_store.find(each)
        return plan
    return None


def possible(plan: Plan) -> None:
    """Raise `CannotLookError` where images of the target are gone, `ProblemError` without room."""
    target = release_store.find(plan.target)
    known = release_store.identities(target)

    def there(image: str) -> bool:
        # A tag that somebody removed is given again where its image is still there.
        kept = "" if "@" in image else known.get(image, "")
        return any(release_store.meant(name) for name in (image, kept) if name)

    missing = [image for image in sorted(release_store.images(target)) if not there(image)]
    if missing:
        raise CannotLookError(
            f"nothing was touched: release {target.id} needs images that this host no longer has "
            f"({', '.join(missing)}): bring them (docker pull, docker load), or deploy what it had "
            "(pyinfra inventory deploy.py)"
        )
    if plan.dump and not _swapped(plan.dump):
        release_database.room()


def begin(plan: Plan) -> None:
    """Write down what is to be done, and have somebody wait who does; the caller has the lock."""
    new = release_store.ROLLBACK.with_name(f"{release_store.ROLLBACK.name}.new")
    try:
        with new.open("w") as file:
            json.dump(asdict(plan), file)
            file.flush()
            os.fsync(file.fileno())
        new.replace(release_store.ROLLBACK)
    except OSError as error:
        raise ProblemError(f"nothing was touched: {new} cannot be written ({error})") from None
    # Where it cannot be started, the next boot and the next rollback still look. Its Python is
    # this version's: the release may bring another one.
    words = ["systemd-run", "--quiet", "--collect", f"--unit={UNIT}"]
    python = str(VENV.resolve() / "bin" / "python")
    subprocess.run([*words, python, "-I", "-m", __name__], capture_output=True, check=False)


def end() -> None:
    """Forget what was to be done: it is, one way or the other."""
    release_store.ROLLBACK.unlink(missing_ok=True)


def carry_out(plan: Plan) -> None:
    """Have the target serve; where that fails, what served before. The caller has the lock.

    Once the database is the target's, there is only the way forward. Raises `ProblemError` with
    what serves.
    """
    target, present = release_store.find(plan.target), release_store.find(plan.present)
    try:
        _serve(target, release_store.find(plan.dump) if plan.dump else present, plan.dump)
    except ProblemError as error:
        if plan.dump and _swapped(plan.dump):
            raise ProblemError(
                f"release {target.id} does not serve yet, and the database is its own already: "
                f"mend this, then: sudo gatehouse rollback {target.id}. {error.message}"
            ) from error
        if target.id == present.id:
            raise
        say(f"it did not work: going back to release {present.id}")
        try:
            _serve(present, target, good=False)
        except ProblemError as other:
            raise ProblemError(
                f"neither release {target.id} serves ({error.message}) nor release {present.id} "
                f"({other.message}): gatehouse doctor, then again: sudo gatehouse rollback"
            ) from other
        end()
        raise ProblemError(f"release {present.id} serves again. {error.message}") from error
    with suppress(OSError):
        release_store.serves(target.id)
    # What the way back of an earlier deploy could not do is no longer wanted.
    release_store.MARKER.unlink(missing_ok=True)
    end()


def say(text: str) -> None:
    """Print a line, where somebody still listens."""
    with suppress(OSError):
        click.echo(text)


def _serve(
    release: Release, failed: Release, dump: str | None = None, *, good: bool = True
) -> None:
    """Have a release serve; raises `ProblemError`, whatever it was."""
    newer = (release.known.get("when") or 0) > (failed.known.get("when") or 0)
    try:
        release_back.go_back(release, failed, say, 0.0 if dump else None, newer=newer)
        if good:
            release_store.link(release_store.GOOD, release.folder)
    except OSError as error:
        raise ProblemError(str(error)) from error
    except click.ClickException as error:
        raise ProblemError(error.message) from error


def _swapped(release: str) -> bool:
    """Tell whether the database is the one from before a release; also where nobody can say."""
    try:
        return not release_database.migrated(release)
    except (OSError, click.ClickException):
        return True


def main() -> None:
    """Wait until no rollback is at work, and finish one that did not end."""
    for attempt in range(_ATTEMPTS):
        if attempt:
            time.sleep(_AGAIN_SECONDS)
        with lock.held("way back of a rollback", patience_seconds=math.inf):
            plan = unfinished()
            if plan is None or _finished(plan):
                return
    sys.exit(1)


def _finished(plan: Plan) -> bool:
    """Finish a rollback; tell whether one release serves."""
    try:
        carry_out(plan)
    except click.ClickException as error:
        say(error.message)
    serving = (
        None if release_store.ROLLBACK.exists() else release_store.linked(release_store.CURRENT)
    )
    with suppress(OSError):
        audit.record(
            "way back",
            "ok" if serving else "failed",
            reason=f"a rollback to release {plan.target} was broken off",
            release=serving,
        )
    return serving is not None


if __name__ == "__main__":
    os.umask(0o022)
    main()
