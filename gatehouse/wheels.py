"""The wheels that the host's command is installed from: fetched once, carried over by the deploy.

`python -m gatehouse.wheels` (or `make wheels`) fills `build/wheels/`, for an operator whose own
machine reaches no package index later.
"""

import hashlib
import io
import json
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import threading
import time
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from packaging.requirements import Requirement
from packaging.tags import Tag, compatible_tags, cpython_tags
from packaging.utils import InvalidWheelFilename, canonicalize_name, parse_wheel_filename

from gatehouse.render.template import ROOT

LOCK = ROOT / "requirements-host.lock"
FOLDER = ROOT / "build" / "wheels"
# What was built, by the identity of the sources.
OWN = FOLDER / "own"
_OLD_SECONDS = 24 * 3600
# Several hosts are deployed to at the same time.
_ONE_AT_A_TIME = threading.Lock()


# Ubuntu 22.04 has glibc 2.35, the oldest of the hosts that are supported.
_GLIBC = range(35, 16, -1)
_PYTHONS = ("3.11", "3.12", "3.13", "3.14")
_MACHINES = ("x86_64", "aarch64")


@dataclass(frozen=True)
class Target:
    """What the wheels are to fit: a Python, `3.13`, and a processor as `uname -m` calls it."""

    python: str
    machine: str

    def __str__(self) -> str:
        """Give it as a part of a file's name."""
        return f"{self.python}-{self.machine}"

    @property
    def platforms(self) -> list[str]:
        """The platform tags that such a host takes, the best first."""
        old = {17: "manylinux2014"}
        names = [name for minor in _GLIBC for name in (f"manylinux_2_{minor}", old.get(minor))]
        return [f"{name}_{self.machine}" for name in names if name]

    def tags(self) -> frozenset[Tag]:
        """Give the tags of the wheels that such a host takes."""
        major, minor = map(int, self.python.split("."))
        version = (major, minor)
        return frozenset(
            [
                *cpython_tags(version, platforms=self.platforms),
                *compatible_tags(version, f"cp{major}{minor}", platforms=self.platforms),
            ]
        )

    def wanted(self) -> Iterator[str]:
        """Yield the names of the packages that the lock has for such a host."""
        environment = {
            "python_version": self.python,
            "python_full_version": f"{self.python}.0",
            "platform_machine": self.machine,
            "sys_platform": "linux",
            "platform_system": "Linux",
            "os_name": "posix",
            "implementation_name": "cpython",
            "platform_python_implementation": "CPython",
        }
        for line in LOCK.read_text().splitlines():
            if "==" in line:
                requirement = Requirement(line.removesuffix("\\").strip())
                if requirement.marker is None or requirement.marker.evaluate(environment):
                    yield canonicalize_name(requirement.name)


# Every kind of host that is supported; `make wheels` fetches for all of them.
TARGETS = tuple(Target(python, machine) for machine in _MACHINES for python in _PYTHONS)


class Unavailable(Exception):  # noqa: N818 - it names a state of affairs
    """The wheels cannot be had; the message says what to do."""


def identity() -> str:
    """Give the id of what would be installed: the same sources and lock give the same."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    digest = hashlib.sha256(LOCK.read_bytes() + json.dumps(project, sort_keys=True).encode())
    for path in sorted((ROOT / "gatehouse").rglob("*")):
        if path.is_file() and "__pycache__" not in path.parts:
            content = hashlib.sha256(path.read_bytes()).hexdigest()
            digest.update(f"{path.relative_to(ROOT)} {content}\n".encode())
    return digest.hexdigest()[:12]


def build(name: str) -> Path:
    """Give the wheel of this repository, built where that was not done yet.

    `name` is the identity of the sources as they are now. Raises `Unavailable`.
    """
    folder = OWN / name
    with _ONE_AT_A_TIME:
        if not folder.is_dir():
            OWN.mkdir(parents=True, exist_ok=True)
            new = Path(tempfile.mkdtemp(dir=OWN))
            try:
                _build(new)
                new.rename(folder)
            finally:
                shutil.rmtree(new, ignore_errors=True)
    return next(folder.glob("*.whl"))


def bundle(name: str, target: Target) -> Path:
    """Give the archive of all that is installed on such a host, with the wheel built as `name`.

    Raises `Unavailable`.
    """
    path = archive(name, str(target))
    with _ONE_AT_A_TIME:
        if not path.is_file():
            data = _tar([LOCK, *fetch(target), *(OWN / name).glob("*.whl")])
            new = path.with_suffix(".new")
            new.write_bytes(data)
            new.rename(path)
            _prune(name)
    return path


def archive(name: str, what: str) -> Path:
    """Give where the archive is, or will be, for a target or for one host."""
    return OWN / f"{name}-{re.sub('[^A-Za-z0-9._-]', '_', what)}.tar"


def _prune(name: str) -> None:
    """Remove what earlier states of the sources left, but what another deploy may be at."""
    for old in OWN.iterdir():
        if not old.name.startswith(name) and time.time() - old.stat().st_mtime > _OLD_SECONDS:
            shutil.rmtree(old) if old.is_dir() else old.unlink()


def fetch(target: Target) -> list[Path]:
    """Give the locked wheels for such a host, downloaded where they are not there yet.

    Raises `Unavailable`.
    """
    FOLDER.mkdir(parents=True, exist_ok=True)
    wanted = set(target.wanted())
    have = _locked(target)
    if wanted - have.keys():
        problem = _download(target)
        have = _locked(target)
        if missing := sorted(wanted - have.keys()):
            raise Unavailable(
                f"{len(missing)} of the {len(wanted)} Python packages that the gatehouse command "
                f"needs on a host with Python {target.python} on {target.machine} cannot be had "
                f"({', '.join(missing)}): {problem}\n"
                "On a machine that reaches a Python package index, run `make wheels` in the same "
                f"version of this repository, and copy build/wheels/ here to {FOLDER} "
                "(docs/airgap.md)"
            )
    return [have[name] for name in sorted(wanted)]


def _locked(target: Target) -> dict[str, Path]:
    """Give the wheels at hand that fit and whose hash stands in the lock, by package."""
    lock = LOCK.read_text()
    tags = target.tags()
    found = {}
    for path in sorted(FOLDER.glob("*.whl")):
        try:
            name, _, _, fits = parse_wheel_filename(path.name)
        except InvalidWheelFilename:
            continue
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        if tags & fits and f"--hash=sha256:{digest}" in lock:
            found[str(name)] = path
    return found


def _download(target: Target) -> str:
    """Let pip download what the lock names; give what it said when it could not."""
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check"]
    command += ["--require-hashes", "--no-deps", "--only-binary=:all:", "--implementation=cp"]
    command += [f"--platform={platform}" for platform in target.platforms]
    command += [f"--python-version={target.python}", f"--dest={FOLDER}", f"--requirement={LOCK}"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
    return done.stderr.strip().splitlines()[-1] if done.returncode and done.stderr else "unknown"


def _build(folder: Path) -> None:
    """Build this repository's own wheel; the same sources give the same bytes."""
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
    if done.returncode:
        raise Unavailable(f"the wheel of this repository cannot be built:\n{done.stderr.strip()}")


def _tar(files: list[Path]) -> bytes:
    """Pack the files; the same files give the same bytes."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for path in sorted(files, key=lambda each: each.name):
            info = tarfile.TarInfo(path.name)
            info.size, info.mode = path.stat().st_size, 0o644
            with path.open("rb") as file:
                archive.addfile(info, file)
    return buffer.getvalue()


def main() -> None:
    """Fetch the wheels for every kind of host and say where they are."""
    try:
        files = {path for target in TARGETS for path in fetch(target)}
    except Unavailable as unavailable:
        sys.exit(str(unavailable))
    size = sum(path.stat().st_size for path in files) / 1e6
    sys.stdout.write(f"{len(files)} wheels, {size:.1f} MB, in {FOLDER.relative_to(ROOT)}/\n")


if __name__ == "__main__":
    main()
