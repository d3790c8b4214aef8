"""restic, called so that no secret is in a command line: it reads the password from a file.

Only what restic 0.14 knows is used.
"""

import hashlib
import json
import os
import re
import subprocess
import tarfile
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from pydantic import SecretStr

from gatehouse.settings import Settings
from gatehouse.tool.errors import CannotLookError, ProblemError
from gatehouse.tool.here import SECRETS

FOLDER = Path("/var/lib/gatehouse/backup")
PASSWORD = SECRETS / "backup_password"
# NAME=value lines for a repository that is elsewhere.
CREDENTIALS = SECRETS / "backup_credentials"
# Fixed, or a host that is renamed would keep its older snapshots for ever.
HOST, TAG = "gatehouse", "gatehouse"
# What was saved before a restore: kept beside the daily ones, by the same policy and for a month.
TAG_BEFORE = "before-restore"
MACHINE_ID = Path("/etc/machine-id")
_MACHINE = "machine-"
_NAMES = re.compile(
    r"(AWS|B2|AZURE|GOOGLE|OS|ST|SWIFT|RCLONE|RESTIC_REST)_[A-Z0-9_]{1,60}", re.ASCII
)
_NO_REPOSITORY = (
    "unable to open config file",
    "repository does not exist",
    "is there a repository",
)
# A server that lets nobody in is asked about in the same words; what it answered stands among them.
_NOT_LET_IN = ("unauthorized", "forbidden", "access denied", "access key")
_PASSED_ON = ("PATH", "HOME", "LANG", "TMPDIR", "http_proxy", "https_proxy", "no_proxy")
# Into so many parts it is read, one a day.
PARTS = 7
_CHUNK = 2**20

Told = Callable[[dict[str, Any]], None]


class NoRepositoryError(ProblemError):
    """There is no repository there."""


@dataclass(frozen=True)
class Repository:
    """One repository and what opens it."""

    location: str
    password: Path = PASSWORD
    credentials: dict[str, SecretStr] = field(default_factory=dict)

    @property
    def local(self) -> Path | None:
        """The folder, where it is one of this host."""
        return Path(self.location) if self.location.startswith("/") else None

    def run(self, *words: str, told: Told | None = None) -> str:
        """Run restic and give what it prints; `told` gets each JSON line as it comes.

        Raises `CannotLookError` where there is no restic, `NoRepositoryError`, and `ProblemError`
        with restic's own words.
        """
        lines: list[str] = []
        with self._started(*words, lines=lines) as output:
            for each in output:
                line = each.decode(errors="replace")
                if told and line.startswith("{"):
                    told(json.loads(line))
                else:
                    lines.append(line)
        return "".join(lines)

    @contextmanager
    def files(self, snapshot: str) -> Iterator[Iterator[tuple[Path, IO[bytes]]]]:
        """Give each plain file of a snapshot with its content, which is to be read at once.

        In one call: each takes half a second to open the repository. All of it is read, whoever
        asks for how much: damage anywhere is noticed. Not `restic restore`: that wants to give
        files to their owners, which the unit of a timer may not. Raises as `run` does.
        """
        whole = True
        with self._started("dump", snapshot, "/") as output:
            try:
                with tarfile.open(fileobj=output, mode="r|", bufsize=_CHUNK) as tar:
                    yield _members(tar)
                    for _ in tar:
                        pass
            except tarfile.TarError:
                # Where restic is the reason, it says why.
                whole = False
        if not whole:
            raise ProblemError(f"snapshot {snapshot[:8]} cannot be read to its end")

    def read(self, snapshot: str, path: Path) -> bytes:
        """Give a file of a snapshot; raises as `run` does."""
        with self._started("dump", snapshot, str(path)) as output:
            return output.read()

    @contextmanager
    def _started(self, *words: str, lines: list[str] | None = None) -> Iterator[IO[bytes]]:
        """Give what restic prints; raises as `run` does, when all of it was read.

        `lines`: what was read so far, for a restic that complains there.
        """
        # A file, not a pipe: nobody has to read it while the other one is read.
        with tempfile.TemporaryFile("w+", errors="replace") as complaints:
            try:
                process = subprocess.Popen(
                    ["restic", *words],
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.PIPE,
                    stderr=complaints,
                    env=self._environment(),
                )
            except FileNotFoundError:
                raise CannotLookError(
                    "restic is missing on this host: apt-get install restic, or deploy again "
                    "(pyinfra inventory deploy.py)"
                ) from None
            with process:
                assert process.stdout  # noqa: S101 - asked for above
                try:
                    yield process.stdout
                    while process.stdout.read(_CHUNK):
                        pass
                except BaseException:
                    process.terminate()
                    raise
            complaints.seek(0)
            complaint = complaints.read()
        if process.returncode:
            raise self._refused(words[0], complaint or "".join(lines or []))

    def document(self, *words: str) -> Any:  # noqa: ANN401 - any JSON
        """Run restic with --json and read what it prints; raises as `run` does."""
        return json.loads(self.run(*words, "--json") or "null")

    def snapshots(self) -> list[dict[str, Any]]:
        """Give the gateway's snapshots, the oldest first; raises as `run` does."""
        found = self.document("snapshots", "--host", HOST) or []
        return sorted(
            (each for each in found if {TAG, TAG_BEFORE} & set(each.get("tags") or [])),
            key=lambda each: str(each["time"]),
        )

    def snapshot(self, wanted: str = "latest") -> dict[str, Any]:
        """Give one of them: by the begin of its id, or the last of the regular ones.

        Of this host's, where it has made some: a host that it took the place of may still be
        making others.
        """
        found = self.snapshots()
        if wanted == "latest":
            regular = [each for each in found if TAG in each["tags"]]
            if not regular:
                raise ProblemError(f"no backup is in {self.location}: sudo gatehouse backup now")
            mine = [each for each in regular if machine() in each["tags"]]
            return (mine or regular)[-1]
        mine = [each for each in found if each["id"].startswith(wanted)] if wanted else []
        if len(mine) != 1:
            what = "several snapshots begin" if mine else "no snapshot begins"
            raise ProblemError(f"{what} with {wanted!r}: sudo gatehouse backup list")
        return mine[0]

    def id(self) -> str:
        """Give what tells this repository from any other; raises as `run` does."""
        return str(json.loads(self.run("cat", "config"))["id"])

    def unlock(self) -> None:
        """Remove the locks of processes that are no more; those of living ones stay."""
        self.run("unlock")

    def check(self, part: int | None) -> None:
        """Check the repository's structure and read a seventh of its data, or all (None)."""
        subset = "--read-data" if part is None else f"--read-data-subset={part}/{PARTS}"
        self.run("check", subset)

    def _environment(self) -> dict[str, str]:
        return {
            **{name: os.environ[name] for name in _PASSED_ON if name in os.environ},
            "RESTIC_REPOSITORY": self.location,
            "RESTIC_PASSWORD_FILE": str(self.password),
            "RESTIC_CACHE_DIR": str(FOLDER / "cache"),
            "RESTIC_PROGRESS_FPS": "1",
            **{name: value.get_secret_value() for name, value in self.credentials.items()},
        }

    def _refused(self, word: str, complaint: str) -> ProblemError:
        words = _plain(complaint)
        low = words.lower()
        if "wrong password" in low:
            which = f"{self.password}: put the right one back"
            if self.password.is_relative_to("/proc"):
                which = "the one that was given"
            return ProblemError(
                f"the repository {self.location} was made with another password than {which}"
            )
        if any(sign in low for sign in _NOT_LET_IN):
            return ProblemError(
                f"{self.location} does not let this host in: {words}: "
                "sudo gatehouse backup credentials"
            )
        if any(sign in low for sign in _NO_REPOSITORY):
            return NoRepositoryError(f"there is no repository at {self.location}: {words}")
        if "already locked" in low:
            return ProblemError(f"another restic is at work in {self.location}: {words}")
        return ProblemError(f"restic {word} failed: {words}")


def machine() -> str:
    """Give the tag that tells this host's snapshots from another one's in the same repository.

    Both are made for the same `HOST`. The machine's ID itself is not to be shown to others
    (machine-id(5)). Raises `CannotLookError`.
    """
    try:
        known = MACHINE_ID.read_text().strip()
    except OSError as error:
        raise CannotLookError(f"{MACHINE_ID} cannot be read: {error.strerror}") from None
    return _MACHINE + hashlib.sha256(f"gatehouse backup {known}".encode()).hexdigest()[:12]


def of_another(tags: list[str]) -> bool:
    """Tell whether another host made a snapshot with these tags."""
    return any(each.startswith(_MACHINE) and each != machine() for each in tags)


def _members(tar: tarfile.TarFile) -> Iterator[tuple[Path, IO[bytes]]]:
    """Give the plain files of an archive by their paths on the host."""
    for member in tar:
        # Named from the root, with a slash or without, as restic's version has it.
        path = Path("/", member.name)
        file = tar.extractfile(member) if member.isreg() else None
        if file and ".." not in path.parts:
            yield path, file


def here(settings: Settings) -> Repository:
    """Give the repository that the settings name; raises `CannotLookError`."""
    if not settings.backup_enabled:
        raise CannotLookError(
            "backups are switched off: set backup_enabled = True and deploy again"
        )
    return Repository(settings.backup_repository, PASSWORD, credentials())


def credentials() -> dict[str, SecretStr]:
    """Give what the operator gave for a repository elsewhere; raises `CannotLookError`."""
    try:
        return parse(CREDENTIALS.read_text())
    except FileNotFoundError:
        return {}


def parse(text: str) -> dict[str, SecretStr]:
    """Read NAME=value lines; raises `CannotLookError` without showing a value."""
    found = {}
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        name, separator, value = line.strip().removeprefix("export ").partition("=")
        value = value.strip().strip("'\"")
        if not separator or not value or not _NAMES.fullmatch(name):
            shown = name if separator and re.fullmatch(r"\w+", name) else "the line"
            raise CannotLookError(
                f"line {number}: {shown} is none of restic's variables: expected NAME=value with a "
                "name that begins with AWS_, B2_, AZURE_, GOOGLE_, OS_, ST_, SWIFT_, RCLONE_ or "
                "RESTIC_REST_"
            )
        found[name] = SecretStr(value)
    return found


@contextmanager
def elsewhere(location: str, password: SecretStr) -> Iterator[Repository]:
    """Give a repository whose password is not this host's: kept in memory, in no file on disk."""
    handle = os.memfd_create("password", 0)
    try:
        os.write(handle, password.get_secret_value().encode())
        yield Repository(location, Path(f"/proc/{os.getpid()}/fd/{handle}"), credentials())
    finally:
        os.close(handle)


def _plain(complaint: str) -> str:
    """Give restic's complaint in one line; from 0.17 on it may be JSON."""
    lines = []
    for line in complaint.splitlines():
        text = line.strip()
        if text.startswith("{"):
            try:
                found = json.loads(text)
                inner = found.get("error")
                text = str(
                    found.get("message")
                    or (inner.get("message") if isinstance(inner, dict) else inner)
                    or text
                )
            except ValueError:
                pass
        if text and text not in lines:
            lines.append(text)
    return " ".join(lines[-6:])[:500] or "it gave no reason"
