"""Where the value of a new key goes: a file that only its owner reads, or standard output."""

import os
import secrets
import stat
from pathlib import Path

import click

from gatehouse.tool.errors import CannotLookError, ProblemError
from gatehouse.tool.keys_book import digest

# Values of keys that a deploy or the timer made: one file an alias, for root only.
FOLDER = Path("/etc/gatehouse/keys")
_BYTES = 24
_OTHERS = stat.S_IRWXG | stat.S_IRWXO


def value() -> str:
    """Make a value."""
    return f"sk-{secrets.token_urlsafe(_BYTES)}"


class Screen:
    """Standard output: the value alone, once the key works."""

    where = "standard output"
    path = None

    def check(self) -> None:
        """Anything can be printed."""

    def stage(self, made: str) -> None:
        """Keep it."""
        self._value = made

    def commit(self) -> None:
        """Nothing yet: what is printed cannot be taken back."""

    def finish(self, *, quiet: bool = False) -> str | None:
        """Print it."""
        if not quiet:
            click.echo(self._value)
        return self._value

    def holds(self, token: str) -> bool:  # noqa: ARG002 - a file would know
        """Nobody knows what a screen has shown."""
        return False


class Delivery:
    """A file of mode 0600 that never holds half a value, nor one that no key has."""

    def __init__(self, path: Path) -> None:
        """Hold the path; nothing is touched."""
        self.path = path.absolute()
        self.where = str(self.path)
        self._new = self.path.with_name(f".{self.path.name}.new")

    def check(self) -> None:
        """Refuse where the value would not be the caller's alone; raises `ProblemError`."""
        _folder(self.path.parent)
        try:
            found = self.path.lstat()
        except FileNotFoundError:
            return
        except OSError as error:
            raise CannotLookError(f"{self.path} cannot be looked at: {error.strerror}") from None
        if not stat.S_ISREG(found.st_mode):
            raise ProblemError(f"{self.path} is no plain file: name another, or remove it")
        if found.st_uid != os.geteuid() or found.st_mode & _OTHERS or found.st_nlink != 1:
            raise ProblemError(
                f"{self.path} is there, and others own it or may read it: name another, or make it "
                f"yours alone (chown root:root {self.path}; chmod 600 {self.path})"
            )

    def stage(self, made: str) -> None:
        """Write the value beside the file, before any key has it."""
        try:
            self._new.unlink(missing_ok=True)
            handle = os.open(self._new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
            with os.fdopen(handle, "w") as file:
                file.write(f"{made}\n")
                file.flush()
                os.fsync(handle)
        except OSError as error:
            raise ProblemError(f"{self.path} cannot be written: {error.strerror}") from None

    def commit(self) -> None:
        """Put it in place: a key has this value now."""
        self._new.replace(self.path)

    def finish(self, *, quiet: bool = False) -> str | None:  # noqa: ARG002 - a screen's
        """Nothing is left to do."""
        return None

    def holds(self, token: str) -> bool:
        """Tell whether it holds the value of this key; one that waits beside it is put in place."""
        if _holds(self.path, token):
            return True
        if _holds(self._new, token):
            self.commit()
            return True
        return False

    def forget(self, token: str) -> None:
        """Remove it where it holds the value of this key."""
        for path in (self.path, self._new):
            if _holds(path, token):
                path.unlink()


Target = Screen | Delivery


def kept(alias: str) -> Delivery:
    """Give where the value of a declared or marked key is kept on this host."""
    return Delivery(FOLDER / alias)


def make_folder() -> None:
    """Make the folder of kept values."""
    FOLDER.mkdir(mode=0o700, exist_ok=True)


def _holds(path: Path, token: str) -> bool:
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
        with os.fdopen(handle) as file:
            return digest(file.read(4096).strip()) == token
    except (OSError, ValueError):
        return False


def _folder(path: Path) -> None:
    try:
        found = path.stat()
    except FileNotFoundError:
        raise ProblemError(f"there is no folder {path}: make it, or name another file") from None
    except OSError as error:
        raise CannotLookError(f"{path} cannot be looked at: {error.strerror}") from None
    if not stat.S_ISDIR(found.st_mode):
        raise ProblemError(f"{path} is no folder: name another file")
    if found.st_mode & stat.S_IWOTH and not found.st_mode & stat.S_ISVTX:
        raise ProblemError(f"everybody may replace files in {path}: name one in another folder")
