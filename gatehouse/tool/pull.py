"""Downloads of model files: gone on with after a kill, in place only when they are right."""

import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from fnmatch import fnmatch
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import click

from gatehouse.tool.errors import ProblemError
from gatehouse.tool.gguf import HEADER_BYTES, gguf_problem
from gatehouse.tool.hub import Card, Hub, InterruptedDownloadError, Remote, StalePartError
from gatehouse.tool.progress import bar, human
from gatehouse.tool.store import Manifest, Wanted, part, parts, sha256

_SPARE_BYTES = 256 << 20
_TRIES = 5
_TRIES_ASKING = 2
# The same weights again, in forms that nobody loads where there are safetensors.
_OTHER_WEIGHTS = ("*.bin", "*.pt", "*.pth", "*.h5", "*.msgpack", "*.ot", "*.onnx", "*.gguf")
_OTHER_FOLDERS = ("onnx/*", "original/*", "coreml/*", "openvino/*")

Found = TypeVar("Found")


class UnreachableError(ProblemError):
    """The hub gives no answer at all."""


@dataclass(frozen=True)
class Job:
    """One file to download."""

    wanted: Wanted
    target: str
    file: str
    remote: Remote
    licence: str | None

    @property
    def expected(self) -> str | None:
        """The checksum that it must have, as far as anybody says."""
        return self.wanted.single_sha256 or self.remote.sha256


def plan(hub: Hub, wanted: Wanted) -> list[Job]:
    """Ask the hub what is to be downloaded; raises `ProblemError`."""
    repository = wanted.repository
    if repository is None:
        raise ProblemError(
            f"{wanted.target}: the settings do not say where it comes from: give the engine "
            f"{wanted.engines[0]} a repository, or put the file into models_dir yourself"
        )
    card = _card(hub, repository, wanted)
    licence = wanted.licence or (card.licence if card else None)
    files = [wanted.file] if wanted.file else selected(card.files if card else ())
    if not files:
        raise ProblemError(f"{repository} holds no files")
    revision = card.commit if card and not wanted.file else wanted.revision
    jobs = []
    for file in files:
        _safe(file)
        target = wanted.target if wanted.file else f"{wanted.target}/{file}"
        remote = _patiently(partial(hub.remote, repository, revision, file))
        jobs.append(Job(wanted, target, file, remote, licence))
    return jobs


def _card(hub: Hub, repository: str, wanted: Wanted) -> Card | None:
    try:
        return _patiently(partial(hub.card, repository, wanted.revision))
    except UnreachableError:
        raise
    except ProblemError:
        # A plain mirror of files has no cards; a single file can do without.
        if wanted.file:
            return None
        raise


def selected(files: tuple[str, ...]) -> list[str]:
    """Leave out what nobody loads: the same weights in other forms, and the hub's own files."""
    safe = any(fnmatch(file, "*.safetensors") and "/" not in file for file in files)
    skipped = (".gitattributes", *(_OTHER_WEIGHTS + _OTHER_FOLDERS if safe else ()))
    return [file for file in files if not any(fnmatch(file, each) for each in skipped)]


def _safe(file: str) -> None:
    if file.startswith("/") or ".." in Path(file).parts or "\\" in file:
        raise ProblemError(f"the hub names a file {file!r}, which would lie outside: refused")


def refuse_without_room(folder: Path, jobs: list[Job]) -> None:
    """Raise `ProblemError` when the disk does not hold what is still to come."""
    need = 0
    for job in jobs:
        path = folder / job.target
        have = part(path, job.remote.tag)
        need += max((job.remote.size or 0) - _size(have), 0)
    free = shutil.disk_usage(folder).free
    if need + _SPARE_BYTES > free:
        raise ProblemError(
            f"{human(need)} are to be downloaded, {human(free)} are free on {folder}: free some "
            "space, or move models_dir to a larger disk"
        )


def announce(job: Job, hub: Hub) -> None:
    """Say what will be downloaded, from where, and under which licence."""
    size = human(job.remote.size) if job.remote.size is not None else "unknown size"
    click.echo(f"{job.target}: {size} from {job.wanted.repository} at {job.remote.commit[:12]}")
    page = f"{hub.url}/{job.wanted.repository}"
    if job.licence:
        source = "the settings" if job.wanted.licence else "the model's card"
        click.echo(f"  licence, according to {source}: {job.licence} ({page})")
    else:
        click.echo(f"  licence: nobody says; read {page} before you use it")


def download(hub: Hub, folder: Path, job: Job, manifest: Manifest) -> None:
    """Download one file, check it, put it in place and write it down; raises `ProblemError`."""
    path = folder / job.target
    path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
    beginning = part(path, job.remote.tag)
    for old in parts(path):
        if old != beginning:
            old.unlink()
    _fetch(hub, job, beginning)
    digest = checked(job, beginning)
    beginning.chmod(0o644)
    beginning.replace(path)
    manifest.files[job.target] = entry(path, digest) | {
        "repository": job.wanted.repository,
        "revision": job.wanted.revision,
        "commit": job.remote.commit,
        "licence": job.licence,
    }
    manifest.save()


def _fetch(hub: Hub, job: Job, beginning: Path) -> None:
    size = job.remote.size
    if size is not None and _size(beginning) > size:
        beginning.unlink()
    start = _size(beginning)
    if start:
        click.echo(f"  going on after {human(start)}")
    with bar(Path(job.target).name, size, start) as advance:
        tries, stale = _TRIES, 0
        while size is None or _size(beginning) < size:
            before = _size(beginning)
            try:
                _append(hub, job.remote, beginning, advance)
                if size is None:
                    return
                problem = "the hub sends less than it announced"
            except InterruptedDownloadError as error:
                problem = str(error)
                if isinstance(error, StalePartError):
                    stale += 1
                    beginning.unlink(missing_ok=True)
                    advance(-before)
            tries = _TRIES if _size(beginning) > before else tries - 1
            if not tries or stale > 1:
                raise ProblemError(
                    f"{job.target}: {problem}. What is here stays; the same command goes on"
                )
            time.sleep(2 ** (_TRIES - tries) / 2)
    if size is not None and _size(beginning) != size:
        beginning.unlink()
        raise ProblemError(f"{job.target}: the hub sent more than it announced: pull it again")


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _append(hub: Hub, remote: Remote, beginning: Path, advance: Callable[[int], None]) -> None:
    offset = _size(beginning)
    goes_on, chunks = hub.read(remote, offset)
    if offset and not goes_on:
        advance(-offset)
    with beginning.open("ab" if goes_on else "wb") as file:
        for chunk in chunks:
            file.write(chunk)
            advance(len(chunk))


def checked(job: Job, path: Path) -> str:
    """Give the checksum of what came; raises `ProblemError`, and removes it, when it is wrong."""
    with bar(f"checking {Path(job.target).name}", path.stat().st_size) as advance:
        digest = sha256(path, advance)
    problem = None
    if job.expected and digest != job.expected:
        who = "the setting sha256" if job.wanted.single_sha256 else "the hub"
        problem = f"its sha256 is {digest}, {who} says {job.expected}"
        if job.wanted.single_sha256 and digest == job.remote.sha256:
            problem += "; it is what the hub has: correct sha256, or pin the right revision"
    elif job.file.endswith(".gguf"):
        problem = header_problem(path)
    if problem:
        path.unlink()
        raise ProblemError(f"{job.target}: {problem}. What came was removed")
    return digest


def header_problem(path: Path) -> str | None:
    """Say what is wrong with a GGUF file's header."""
    with path.open("rb") as file:
        return gguf_problem(file.read(HEADER_BYTES), path.stat().st_size)


def entry(path: Path, digest: str) -> dict[str, Any]:
    """Give what is written down of a file that was just hashed."""
    now = datetime.now(UTC).isoformat(timespec="seconds")
    return {"sha256": digest, "size": path.stat().st_size, "at": now, "verified": now}


def _patiently(ask: Callable[[], Found]) -> Found:
    for again in range(_TRIES_ASKING):
        try:
            return ask()
        except InterruptedDownloadError as error:
            if again == _TRIES_ASKING - 1:
                raise UnreachableError(str(error)) from None
            time.sleep(1)
    raise AssertionError("unreachable")
