"""The wheels that the host's command is installed from: fetched once, carried over by the deploy.

`python -m gatehouse.wheels` (or `make wheels`) fills `build/wheels/`, for an operator whose own
machine reaches no package index later.
"""

import hashlib
import io
import json
import shutil
import subprocess
import sys
import tarfile
import tempfile
import threading
import time
import tomllib
from pathlib import Path

from gatehouse.render.template import ROOT

LOCK = ROOT / "requirements-host.lock"
FOLDER = ROOT / "build" / "wheels"
# What was built, by the identity of the sources.
OWN = FOLDER / "own"
_OLD_SECONDS = 24 * 3600
# Several hosts are deployed to at the same time.
_ONE_AT_A_TIME = threading.Lock()


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


def bundle(name: str) -> Path:
    """Give the archive of everything that is installed, with the wheel that was built as `name`.

    Raises `Unavailable`.
    """
    path = archive(name)
    with _ONE_AT_A_TIME:
        if not path.is_file():
            data = _tar([LOCK, *fetch(), *(OWN / name).glob("*.whl")])
            new = path.with_suffix(".new")
            new.write_bytes(data)
            new.rename(path)
            _prune(name)
    return path


def archive(name: str) -> Path:
    """Give where the archive is, or will be."""
    return OWN / f"{name}.tar"


def _prune(name: str) -> None:
    """Remove what earlier states of the sources left, but what another deploy may be at."""
    for old in OWN.iterdir():
        if not old.name.startswith(name) and time.time() - old.stat().st_mtime > _OLD_SECONDS:
            shutil.rmtree(old) if old.is_dir() else old.unlink()


def fetch() -> list[Path]:
    """Give the locked wheels, downloaded where they are not there yet; raises `Unavailable`."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    have = _locked()
    wanted = _count()
    if len(have) < wanted:
        problem = _download()
        have = _locked()
        if len(have) < wanted:
            raise Unavailable(
                f"{wanted - len(have)} of the {wanted} Python packages that the gatehouse command "
                f"needs on the host cannot be had: {problem}\n"
                "On a machine that reaches a Python package index, run `make wheels` in the same "
                f"version of this repository, and copy build/wheels/ here to {FOLDER} "
                "(docs/airgap.md)"
            )
    return have


def _locked() -> list[Path]:
    """Give the wheels at hand whose hash stands in the lock."""
    lock = LOCK.read_text()
    return [
        path
        for path in sorted(FOLDER.glob("*.whl"))
        if f"--hash=sha256:{hashlib.sha256(path.read_bytes()).hexdigest()}" in lock
    ]


def _count() -> int:
    return sum("==" in line for line in LOCK.read_text().splitlines())


def _download() -> str:
    """Let pip download what the lock names; give what it said when it could not."""
    # Platform "any": the lock names pure Python only, so one set of wheels fits every host.
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check"]
    command += ["--require-hashes", "--no-deps", "--only-binary=:all:", "--platform=any"]
    command += ["--python-version=3.11", f"--dest={FOLDER}", f"--requirement={LOCK}"]
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
    """Fetch the wheels and say where they are."""
    try:
        files = fetch()
    except Unavailable as unavailable:
        sys.exit(str(unavailable))
    size = sum(path.stat().st_size for path in files) / 1e6
    sys.stdout.write(f"{len(files)} wheels, {size:.1f} MB, in {FOLDER.relative_to(ROOT)}/\n")


if __name__ == "__main__":
    main()
