"""The releases of this host: what they are made of, how they fared, and how long they are kept.

`/opt/gatehouse/releases/ID` holds what a release runs with. What it placed elsewhere (units, the
firewall, the settings) is kept beside the state once the release is good, so that it can be put
back: `/var/lib/gatehouse/releases/ID.tar`.
"""

import json
import os
import shutil
import subprocess
import tarfile
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from gatehouse import state
from gatehouse.tool.errors import CannotLookError, ProblemError

HOME = Path("/opt/gatehouse")
RELEASES, CURRENT, GOOD = HOME / "releases", HOME / "current", HOME / "good"
VENV, VENVS = HOME / "venv", HOME / "venvs"
KEPT = Path("/var/lib/gatehouse/releases")
SNAPSHOTS = Path("/var/lib/gatehouse/snapshots")
# Written when a deploy begins, gone when it has ended: at a boot it says that one was cut off.
MARKER = Path("/var/lib/gatehouse/deploying")
# While a rollback is at work: what it is about (release_switch).
ROLLBACK = Path("/var/lib/gatehouse/rollback")
# The operator's own keys stand beside ours; the second file says which are ours.
DAEMON_JSON, DAEMON_OURS = "/etc/docker/daemon.json", "/etc/gatehouse/docker-daemon.json"
_NOUN = "releases"
_CURRENT = f"{CURRENT}/"
Result = Literal["good", "bad"]


@dataclass(frozen=True)
class Release:
    """One release: what its manifest says, and what is remembered of it."""

    id: str
    manifest: dict[str, Any]
    known: dict[str, Any]

    @property
    def folder(self) -> Path:
        """Where its files are."""
        return RELEASES / self.id

    @property
    def images(self) -> dict[str, str]:
        """Service → image."""
        return {name: each["image"] for name, each in self.manifest["services"].items()}

    @property
    def placed(self) -> list[str]:
        """Give the paths of what it placed outside of its folder."""
        return [path for path in self.manifest["files"] if not path.startswith(_CURRENT)]

    @property
    def archive(self) -> Path:
        """Where what it placed is kept."""
        return KEPT / f"{self.id}.tar"

    @property
    def identities(self) -> Path:
        """Where it is kept which images its references meant when it was good."""
        return KEPT / f"{self.id}.images"

    @property
    def venv(self) -> Path:
        """The link to the virtual environment of the command that belongs to it."""
        return KEPT / f"{self.id}.venv"

    @property
    def served(self) -> float:
        """When it last became the one that serves, by a deploy or by hand; seconds of the epoch."""
        return max(self.known.get("when") or 0.0, self.known.get("served") or 0.0)


def find(release: str) -> Release:
    """Give a release; raises `CannotLookError` where the host has none of that name."""
    try:
        manifest = json.loads((RELEASES / release / "manifest.json").read_text())
    except (FileNotFoundError, NotADirectoryError):
        raise CannotLookError(
            f"this host has no release {release}: gatehouse releases lists those that it has"
        ) from None
    except (OSError, ValueError):
        raise CannotLookError(
            f"what release {release} is made of cannot be read (a disk that was full, a power "
            "cut?): deploy it again, or go back to another one: gatehouse releases"
        ) from None
    return Release(release, manifest, _history().get(release, {}))


def every() -> list[Release]:
    """Give the releases that are there, newest last; one that cannot be read is passed over."""
    found = []
    for path in RELEASES.glob("*"):
        if (path / "manifest.json").is_file():
            with suppress(CannotLookError):
                found.append(find(path.name))
    return sorted(found, key=lambda each: each.known.get("when") or each.folder.stat().st_mtime)


def good() -> list[Release]:
    """Give those that were good, in the order in which they last began to serve."""
    found = [each for each in every() if each.known.get("result") == "good"]
    return sorted(found, key=lambda each: each.served)


def linked(link: Path) -> str | None:
    """Give the release that a link leads to, if it is there."""
    try:
        target = link.readlink()
    except OSError:
        return None
    return target.name if target.is_dir() else None


def link(path: Path, target: Path) -> None:
    """Have a link lead somewhere else, in one step that a power cut does not undo."""
    new = path.with_name(f"{path.name}.new")
    new.unlink(missing_ok=True)
    new.symlink_to(target)
    new.replace(path)
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def remember(release: str, result: Result, **details: object) -> None:
    """Note how a release fared; raises `OSError`."""
    _note(release, when=time.time(), result=result, **details)


def serves(release: str) -> None:
    """Note that a release that was good serves again; raises `OSError`."""
    _note(release, served=time.time())


def _note(release: str, **details: object) -> None:
    history = _history()
    known = {**history.pop(release, {}), **details}
    kept = {name: each for name, each in history.items() if (RELEASES / name).is_dir()}
    state.write(_NOUN, {"releases": {**kept, release: known}})


def _history() -> dict[str, dict[str, Any]]:
    found = (state.read(_NOUN) or {}).get("releases")
    return found if isinstance(found, dict) else {}


def keep(release: Release) -> None:
    """Keep what is placed outside of the release's folder, as it is now; raises `ProblemError`.

    And which images its references mean: a tag can mean another one tomorrow.
    """
    KEPT.mkdir(mode=0o700, exist_ok=True)
    lines = [f"{number} {name}\n" for name in sorted(images(release)) if (number := meant(name))]
    release.identities.write_text("".join(lines))
    paths = [path for path in (*release.placed, DAEMON_JSON, DAEMON_OURS) if Path(path).is_file()]
    new = release.archive.with_name(f"{release.id}.tar.new")
    # GNU tar also compares, for the deploy.
    done = subprocess.run(
        ["tar", "--create", "--format=posix", f"--file={new}", "--directory=/", "--no-recursion"]
        + [path.lstrip("/") for path in paths],
        capture_output=True,
        text=True,
        check=False,
        umask=0o077,
    )
    if done.returncode:
        new.unlink(missing_ok=True)
        raise ProblemError(f"what release {release.id} placed cannot be kept: {done.stderr}")
    with new.open("rb") as file:
        os.fsync(file.fileno())
    new.replace(release.archive)


def meant(image: str) -> str:
    """Give the ID of the image that a reference means on this host; empty where it means none."""
    done = subprocess.run(
        ["docker", "image", "inspect", "--format", "{{.Id}}", image],
        capture_output=True,
        text=True,
        check=False,
    )
    return done.stdout.strip() if done.returncode == 0 else ""


def identities(release: Release) -> dict[str, str]:
    """Give image reference → ID from when the release was good; empty where nothing was kept."""
    with suppress(OSError, ValueError):
        lines = release.identities.read_text().splitlines()
        return {name: number for number, name in (line.split(" ", 1) for line in lines)}
    return {}


def placed(release: Release) -> dict[str, tuple[bytes, tarfile.TarInfo]]:
    """Give what a release had placed when it was good, by path; empty where nothing was kept."""
    try:
        with tarfile.open(release.archive) as archive:
            members = [each for each in archive.getmembers() if each.isfile()]
            found = {}
            for each in members:
                file = archive.extractfile(each)
                found[f"/{each.name}"] = (file.read() if file else b"", each)
            return found
    except (OSError, tarfile.TarError):
        return {}


def moment(info: tarfile.TarInfo) -> int:
    """Give when a kept file was written, in nanoseconds; a float would be off by some."""
    seconds, _, rest = info.pax_headers.get("mtime", str(int(info.mtime))).partition(".")
    return int(seconds) * 10**9 + int(rest.ljust(9, "0")[:9])


def texts(release: Release) -> dict[str, str]:
    """Give every file of a release as text, by path; none holds a secret."""
    found = {
        str(path.relative_to(release.folder)): path.read_text(errors="replace")
        for path in release.folder.rglob("*")
        if path.is_file() and path.name != "manifest.json"
    }
    others = placed(release)
    # Merged with keys of the operator's own, which may be a proxy's password.
    others.pop(DAEMON_JSON, None)
    return found | {path: data.decode(errors="replace") for path, (data, _) in others.items()}


def prune(number: int) -> list[str]:
    """Remove all but the newest releases, with what was kept for them and their images.

    What runs and what is gone back to stay, and the good one that served before, however many
    failed since. One that cannot be read goes whatever its age. Gives what was removed.
    """
    releases = every()
    serving = {linked(CURRENT), linked(GOOD)}
    others = [each.id for each in good() if each.id not in serving]
    left = {each.id for each in releases[-number:]} | serving | {*others[-1:]}
    old = [each for each in releases if each.id not in left]
    used = {image for each in releases if each.id in left for image in images(each)}
    removed = []
    for each in old:
        for image in sorted(images(each) - used):
            # An image that a container of anybody uses stays: Docker refuses.
            done = subprocess.run(["docker", "rmi", image], capture_output=True, check=False)
            if done.returncode == 0:
                removed.append(image)
        shutil.rmtree(each.folder, ignore_errors=True)
        removed.append(each.id)
    known = {each.id for each in releases} | serving
    for path in RELEASES.glob("*"):
        if path.is_dir() and path.suffix != ".new" and path.name not in known:
            shutil.rmtree(path, ignore_errors=True)
            removed.append(path.name)
    for folder in (KEPT, SNAPSHOTS):
        for path in folder.glob("*"):
            if path.name.split(".")[0] not in left:
                path.unlink(missing_ok=True)
    sweep()
    return removed


def sweep() -> None:
    """Remove what a deploy has left half done; whoever calls holds the lock.

    Nobody needs it, and a full disk may be why it was broken off.
    """
    left = [
        *(KEPT.parent / name for name in ("ballast", "images.tar")),
        *RELEASES.glob("*.tar"),
        *RELEASES.glob("*.new"),
        *KEPT.glob("*.new"),
        *SNAPSHOTS.glob("*.part"),
        *SNAPSHOTS.glob(".*.copy"),
    ]
    for path in left:
        with suppress(OSError):
            shutil.rmtree(path) if path.is_dir() else path.unlink()


def images(release: Release) -> set[str]:
    """Give the images of its services and engines: both are named in what Compose reads."""
    found = set(release.images.values())
    engines = release.folder / "compose" / "engines.yaml"
    if engines.is_file():
        for line in engines.read_text().splitlines():
            key, _, value = line.strip().partition(": ")
            if key == "image" and "$" not in value:
                found.add(value.strip("\"'"))
    return found
