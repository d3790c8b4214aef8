"""Which model files the engines want, which are there, and what is known of them."""

import fcntl
import hashlib
import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from gatehouse.tool.errors import CannotLookError

CONFIG = Path("/opt/gatehouse/current/engines/engines.json")
DEFAULT_HUB = "https://huggingface.co"
_CHUNK_BYTES = 1 << 20


@dataclass(frozen=True)
class Wanted:
    """A model file, or a folder of them, that engines want."""

    # Below models_dir; for a model that Ollama keeps itself, ollama:NAME.
    target: str
    engines: tuple[str, ...]
    models: tuple[str, ...] = ()
    repository: str | None = None
    revision: str = "main"
    # In the repository; None is the whole of it.
    file: str | None = None
    sha256: str | None = None
    licence: str | None = None
    # What an Ollama engine calls it, and where that engine listens.
    ollama: str | None = None
    port: int = 0
    load_seconds: int = 0

    @property
    def single_sha256(self) -> str | None:
        """The checksum that the settings give; a folder has none."""
        return None if self.repository and not self.file else self.sha256

    @property
    def names(self) -> set[str]:
        """Everything that a person may call it."""
        names = {self.target, Path(self.target).name, *self.engines, *self.models}
        return names | ({self.ollama} if self.ollama else set())


@dataclass(frozen=True)
class Config:
    """Where model files are kept and come from, and which are wanted."""

    folder: Path
    hub_url: str
    wanted: tuple[Wanted, ...]

    def choose(self, names: tuple[str, ...]) -> list[Wanted]:
        """Give those that are called so; all where no name is given."""
        known = sorted(set().union(*(each.names for each in self.wanted)))
        for name in names:
            if name not in known:
                near = get_close_matches(name, known, 1)
                hint = f"did you mean {near[0]}?" if near else f"there is {', '.join(known)}"
                raise CannotLookError(f"no engine or model file is called {name!r}: {hint}")
        return [each for each in self.wanted if not names or each.names & set(names)]


def load(path: Path) -> Config:
    """Read what the deploy wrote for the engines; raises `CannotLookError`."""
    try:
        given = json.loads(path.read_text())
        found: dict[str, Wanted] = {}
        for engine in given["engines"]:
            for each in _of(engine):
                old = found.get(each.target)
                found[each.target] = (
                    replace(
                        old, engines=old.engines + each.engines, models=old.models + each.models
                    )
                    if old
                    else each
                )
        hub_url = os.environ.get("HF_ENDPOINT") or given.get("hub_url") or DEFAULT_HUB
        return Config(Path(given["models_dir"]), hub_url.rstrip("/"), tuple(found.values()))
    except FileNotFoundError:
        raise CannotLookError(
            f"{path} is not there: this host has no engines yet; switch one on with models_enable "
            "and deploy"
        ) from None
    except (OSError, KeyError, TypeError, ValueError) as error:
        raise CannotLookError(f"{path} cannot be read ({error!r}): deploy again") from error


def _of(engine: dict[str, Any]) -> Iterator[Wanted]:
    name, file = engine["name"], engine.get("file")
    base = Wanted("", (name,), tuple(engine.get("models", ())))
    sources = engine.get("sources") or []
    for source in sources:
        if "ollama" in source:
            model = source["ollama"]
            yield replace(
                base,
                target=f"ollama:{model}",
                ollama=model,
                port=engine["port"],
                load_seconds=engine["load_seconds"],
            )
            continue
        # One source is the engine's file; parts of a split file lie beside each other.
        target = file or source.get("file") or source["repository"]
        if file and len(sources) > 1 and source.get("file"):
            target = str(Path(file).with_name(Path(source["file"]).name))
        yield replace(
            base,
            target=target,
            repository=source["repository"],
            revision=source.get("revision") or "main",
            file=source.get("file"),
            sha256=source.get("sha256"),
            licence=source.get("licence"),
        )
    if file and not sources:
        yield replace(base, target=file)


class Manifest:
    """What was downloaded or verified: `manifest.json` beside the files."""

    def __init__(self, folder: Path) -> None:
        """Read it; what is not there is empty. Raises `CannotLookError` when it is damaged."""
        self._folder = folder
        self.path = folder / "manifest.json"
        self.files: dict[str, dict[str, Any]] = {}
        self.folders: dict[str, dict[str, Any]] = {}
        try:
            found = json.loads(self.path.read_text())
            self.files, self.folders = found["files"], found["folders"]
        except FileNotFoundError:
            pass
        except PermissionError:
            raise CannotLookError(
                f"{folder} is for root and the group gatehouse: use sudo, or join that group "
                "(`sudo usermod -aG gatehouse $USER`, then log in again)"
            ) from None
        except (OSError, KeyError, TypeError, ValueError) as error:
            raise CannotLookError(
                f"{self.path} cannot be read ({error!r}): move it away, then `gatehouse models "
                "verify` makes it anew from the files"
            ) from error

    def save(self) -> None:
        """Write it, whole or not at all."""
        content = {"version": 1, "files": self.files, "folders": self.folders}
        new = self.path.with_name(f"{self.path.name}.new")
        new.write_text(json.dumps(content, indent=2, sort_keys=True) + "\n")
        new.chmod(0o644)
        new.replace(self.path)

    def below(self, target: str) -> list[str]:
        """Give the files that are known of a folder."""
        return sorted(name for name in self.files if name.startswith(f"{target}/"))

    def state(self, wanted: Wanted) -> str:
        """Say present, unverified, partial or missing."""
        if wanted.ollama:
            return "present" if wanted.target in self.files else "missing"
        path = self._folder / wanted.target
        if wanted.target in self.files and path.is_file():
            size = self.files[wanted.target]["size"]
            return "present" if path.stat().st_size == size else "damaged"
        if path.is_dir() and wanted.target in self.folders:
            whole = all((self._folder / name).is_file() for name in self.below(wanted.target))
            return "present" if whole else "partial"
        if path.is_file() or (path.is_dir() and wanted.repository is None):
            return "unverified"
        return "partial" if path.is_dir() or parts(path) else "missing"

    def size(self, wanted: Wanted) -> int:
        """Give how many bytes of it are there."""
        path = self._folder / wanted.target
        if wanted.ollama:
            return int(self.files.get(wanted.target, {}).get("size", 0))
        if path.is_dir():
            return sum(each.stat().st_size for each in path.rglob("*") if each.is_file())
        if path.is_file():
            return path.stat().st_size
        return sum(part.stat().st_size for part in parts(path))


def part(path: Path, tag: str) -> Path:
    """Give where the beginning of a file is kept until it is whole."""
    key = hashlib.sha256(tag.encode()).hexdigest()[:12]
    return path.with_name(f".{path.name}.{key}.part")


def parts(path: Path) -> list[Path]:
    """Give the beginnings that were kept of a file, of whichever version."""
    prefix = f".{path.name}."
    folder = path.parent
    if not folder.is_dir():
        return []
    return [p for p in folder.iterdir() if p.name.startswith(prefix) and p.suffix == ".part"]


def sha256(path: Path, advance: Callable[[int], None]) -> str:
    """Hash a file, telling how far it is."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK_BYTES):
            digest.update(chunk)
            advance(len(chunk))
    return digest.hexdigest()


@contextmanager
def writing(folder: Path) -> Iterator[None]:
    """Be the only one who changes model files; raises `CannotLookError` when that cannot be."""
    try:
        folder.mkdir(mode=0o755, parents=True, exist_ok=True)
        # Opened for reading: whoever may write the directory may lock it.
        handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    except OSError as error:
        raise CannotLookError(f"{folder}: {error.strerror}: call it with sudo") from error
    try:
        if not os.access(folder, os.W_OK):
            raise CannotLookError(f"{folder} belongs to root: call it with sudo")
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise CannotLookError(
                "another `gatehouse models` is at work on this host: wait until it is done"
            ) from None
        yield
    finally:
        os.close(handle)
