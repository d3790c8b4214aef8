"""Making a backup: one snapshot of the database, the configuration and the secrets together.

The dump is made into a folder of its own first, so that a dump that fails is no snapshot.
"""

import json
import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from click import ClickException

from gatehouse import state
from gatehouse.settings import Settings
from gatehouse.tool import dump, restic, stack
from gatehouse.tool.errors import CannotLookError, ProblemError
from gatehouse.tool.progress import human
from gatehouse.tool.restic import NoRepositoryError, Repository
from gatehouse.version import version

NOUN = "backup"
WORK = restic.FOLDER / "staging"
DUMP, GLOBALS, MANIFEST = "litellm.dump", "globals.sql", "manifest.json"
CONFIGURATION = Path("/etc/gatehouse")
STATE = Path("/var/lib/gatehouse/state")
_CURRENT = Path("/opt/gatehouse/current")
_SERVICES = ("litellm", "postgres", "redis")
_MIB = 2**20
# So long everything is kept that was saved before a restore.
_BEFORE_DAYS = 30

Say = Callable[[str], None]
# Bytes done and bytes in all, as far as restic knows by now.
Moved = Callable[[int, int], None]


@dataclass(frozen=True)
class Made:
    """A snapshot that was made."""

    snapshot: str
    seconds: float
    dump_bytes: int
    added_bytes: int
    rows: dict[str, int]


def kept() -> dict[str, Any]:
    """Give what is remembered of backups: `good`, `last`, `verify`, `repository`, `shown`."""
    return state.read(NOUN) or {}


def remember(**changes: object) -> None:
    """Add to what is remembered."""
    found = kept()
    found.pop("written", None)
    state.write(NOUN, {**found, **changes})


def make(  # noqa: PLR0913 - three have a default
    settings: Settings,
    repository: Repository,
    say: Say,
    *,
    moved: Moved = lambda _done, _total: None,
    tag: str = restic.TAG,
    begin_anew: bool = False,
) -> Made:
    """Make a snapshot and remember it; raises as it fails, with older snapshots untouched.

    `begin_anew`: make another repository where the one that is known is gone.
    """
    begin = time.monotonic()
    try:
        prepared(repository, say, begin_anew=begin_anew)
        with folder(WORK):
            say("dumping the database")
            enough_room(settings, repository)
            rows = _collect(WORK)
            size = (WORK / DUMP).stat().st_size
            say(f"saving {human(size)} of database, the configuration and the secrets")
            summary = _saved(repository, tag, moved)
    except BaseException as error:
        with written_down(error):
            remember(last={"at": time.time(), "ok": False, "error": words(error)})
        raise
    made = Made(
        snapshot=str(summary["snapshot_id"])[:8],
        seconds=round(time.monotonic() - begin, 1),
        dump_bytes=size,
        added_bytes=int(summary.get("data_added", 0)),
        rows=rows,
    )
    good = {"at": time.time(), **vars(made)}
    first = kept().get("first") or good["at"]
    remember(last={"at": good["at"], "ok": True, "error": ""}, good=good, first=first)
    return made


def forget(settings: Settings, repository: Repository) -> int:
    """Forget what the policy does not keep, and remove its data; gives how many snapshots are left.

    Each kind of each host is kept by the policy for itself: what was saved before a restore, or by
    another host, is no day's last one that another of that day replaces. Others' are kept by this
    host's policy, too. Raises `ProblemError`.
    """
    keep = {
        "daily": settings.backup_keep_daily,
        "weekly": settings.backup_keep_weekly,
        "monthly": settings.backup_keep_monthly,
    }
    policy = [f"--keep-{each}={number}" for each, number in keep.items() if number]
    left = 0
    for tag, more in (
        (restic.TAG_BEFORE, [f"--keep-within={_BEFORE_DAYS}d"]),
        (restic.TAG, []),
    ):
        said = repository.run(
            *("forget", "--host", restic.HOST, "--tag", tag, "--group-by", "host,tags"),
            *("--json", "--prune", *policy),
            *more,
        )
        # What pruning says may follow.
        groups = next((line for line in said.splitlines() if line.startswith("[")), "[]")
        left += sum(len(each.get("keep") or []) for each in json.loads(groups))
    return left


def others(repository: Repository) -> list[dict[str, Any]]:
    """Give the snapshots that this host has not made, the oldest first.

    Those from before hosts were told apart are among them. Raises `CannotLookError` where this host
    has made none.
    """
    found = repository.snapshots()
    theirs = [each for each in found if restic.machine() not in each["tags"]]
    if len(theirs) == len(found):
        raise CannotLookError(
            "this host has made no snapshot there yet, nothing was forgotten: "
            "sudo gatehouse backup now"
        )
    return theirs


def prune(settings: Settings, repository: Repository, *also: str) -> int:
    """As `forget`, and remove what broken-off backups have left, too; `also`: ids to forget."""
    repository.unlock()
    if also:
        repository.run("forget", *also)
    left = forget(settings, repository)
    repository.run("prune")
    return left


def verify(repository: Repository, *, everything: bool = False) -> None:
    """Check the repository, and read the part of it that is today's turn; remembers the result.

    Every pack is read within a week. Raises `ProblemError`.
    """
    part = None if everything else time.localtime().tm_yday % restic.PARTS + 1
    begin = time.monotonic()

    def noted(error: str = "") -> None:
        remember(
            verify={
                "at": time.time(),
                "ok": not error,
                "error": error,
                "part": part,
                "seconds": round(time.monotonic() - begin, 1),
            }
        )

    try:
        repository.unlock()
        repository.check(part)
    except BaseException as problem:
        with written_down(problem):
            noted(words(problem))
        raise
    noted()


def measure(repository: Repository, snapshots: int) -> None:
    """Remember how many snapshots there are, and how large the repository is."""
    local = repository.local
    if local:
        size = sum(path.stat().st_size for path in local.rglob("*") if path.is_file())
    else:
        size = int(repository.document("stats", "--mode", "raw-data")["total_size"])
    known = kept().get("repository") or {}
    remember(
        repository={
            **known,
            "location": repository.location,
            "at": time.time(),
            "snapshots": snapshots,
            "bytes": size,
        }
    )


@contextmanager
def folder(path: Path) -> Iterator[Path]:
    """Give an empty folder for root only; it is gone afterwards, and what a killed run left too."""
    shutil.rmtree(path, ignore_errors=True)
    try:
        path.mkdir(mode=0o700, parents=True)
    except OSError as error:
        raise ProblemError(f"{path} cannot be made: {error.strerror}") from None
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)


def enough_room(settings: Settings, repository: Repository) -> None:
    """Refuse where a dump, or what is new in the repository, would fill a disk.

    Raises `ProblemError` with what is free and what is needed.
    """
    wanted = dump.size()
    known = kept().get("good") or {}
    # What is new in most of the dumps is little; the first one is new as a whole.
    new = min(wanted, 2 * int(known.get("added_bytes", wanted)) + 16 * _MIB)
    needs = [(restic.FOLDER, wanted)]
    if repository.local:
        needs.append((_existing(repository.local), new))
    room(needs, settings.backup_reserve_mib)


def room(needs: list[tuple[Path, int]], reserve_mib: int) -> None:
    """Refuse where a file system does not hold that many bytes more and the reserve."""
    by_device: dict[int, tuple[Path, int]] = {}
    for path, size in needs:
        device = path.stat().st_dev
        first, before = by_device.get(device, (path, 0))
        by_device[device] = (first, before + size)
    for path, size in by_device.values():
        free = shutil.disk_usage(path).free
        if free < size + reserve_mib * _MIB:
            raise ProblemError(
                f"the disk of {path} has {human(free)} free, and {human(size)} are needed besides "
                f"the {human(reserve_mib * _MIB)} that are left to others (backup_reserve_mib): "
                "make room; nothing was written"
            )


def _existing(path: Path) -> Path:
    """Give the path, or the nearest folder above it that there is."""
    return next(each for each in (path, *path.parents) if each.exists())


def prepared(repository: Repository, say: Say, *, begin_anew: bool = False) -> None:
    """Have a repository that can be opened: the one that is known, or a first one.

    Raises `CannotLookError` and `ProblemError`.
    """
    known = kept().get("repository") or {}
    with suppress(NoRepositoryError):
        repository.unlock()
        if not known.get("id"):
            remember(repository={"location": repository.location, "id": repository.id()})
        return
    if known.get("location") == repository.location and not begin_anew:
        raise ProblemError(
            f"the repository {repository.location}, which was there, is gone: mount its disk or "
            "put it back; to begin another one: sudo gatehouse backup now --begin-anew"
        )
    say(f"making the repository {repository.location}")
    if repository.local:
        above = repository.local.parent
        try:
            above.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise ProblemError(
                f"{above} cannot be made: {error.strerror}: mount its disk, or deploy again "
                "(pyinfra inventory deploy.py)"
            ) from None
    repository.run("init")
    remember(repository={"location": repository.location, "id": repository.id()})


def _collect(target: Path) -> dict[str, int]:
    """Write the dump and what it takes to know it; gives the rows in it."""
    rows = dump.dump(target / DUMP, staged=True)
    roles = stack.docker(
        *("exec", stack.container("postgres")),
        *("pg_dumpall", "-U", "litellm", "--globals-only"),
    )
    _write(target / GLOBALS, roles)
    manifest = {
        "made": time.time(),
        "gatehouse": version(),
        "release": _CURRENT.resolve().name,
        "images": images(),
        "rows": rows,
        "dump_bytes": (target / DUMP).stat().st_size,
    }
    _write(target / MANIFEST, json.dumps(manifest, indent=1))
    return rows


def images() -> dict[str, str]:
    """Give what the services run: service → image reference and id."""
    names = [stack.container(service) for service in _SERVICES]
    shown = stack.docker("inspect", "-f", "{{.Config.Image}} {{.Image}}", *names).splitlines()
    return dict(zip(_SERVICES, shown, strict=True))


def _saved(repository: Repository, tag: str, moved: Moved) -> dict[str, Any]:
    summary: dict[str, Any] = {}

    def told(line: dict[str, Any]) -> None:
        if line.get("message_type") == "summary":
            summary.update(line)
        elif line.get("message_type") == "status":
            moved(int(line.get("bytes_done", 0)), int(line.get("total_bytes", 0)))

    paths = (WORK, _CURRENT.resolve(), CONFIGURATION, STATE)
    try:
        repository.run(
            *("backup", "--json", "--host", restic.HOST, "--tag", f"{tag},{restic.machine()}"),
            *map(str, paths),
            told=told,
        )
    except ProblemError:
        # A snapshot that lacks something is none.
        if summary.get("snapshot_id"):
            with suppress(ProblemError):
                repository.run("forget", str(summary["snapshot_id"]))
        raise
    return summary


def _write(path: Path, text: str) -> None:
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(handle, "w") as file:
        file.write(text)


@contextmanager
def written_down(error: BaseException) -> Iterator[None]:
    """Remember a failure; where not even that can be written, no check would tell of it.

    So `CannotLookError` is raised instead, with the same words: systemd calls that a failed job.
    """
    try:
        yield
    except OSError as problem:
        said = error.message if isinstance(error, ClickException) else words(error)
        raise CannotLookError(
            f"{said}\nand it cannot be written down: {problem.strerror}"
        ) from error


def words(error: BaseException) -> str:
    """Give what to remember of a failure, in one line."""
    said = error.message if isinstance(error, ProblemError | CannotLookError) else repr(error)
    return said.splitlines()[0][:300] if said else type(error).__name__
