"""`images.lock`: which image a reference of the settings means, by digest, on each platform."""

import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gatehouse.settings import Invalid, Problem, Settings

PLATFORMS = ("linux/amd64", "linux/arm64")
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_HEAD = """\
# Which image each reference of the settings means. `make lock` writes it: read the difference,
# then commit it. index: what a host pulls. A platform: the digests of its manifest and of its
# configuration (Docker's image ID).
"""


@dataclass(frozen=True)
class Platform:
    """What one platform gets: its manifest, and the configuration, which is Docker's image ID."""

    manifest: str
    config: str


@dataclass(frozen=True)
class Locked:
    """What a reference meant when it was locked."""

    index: str
    platforms: Mapping[str, Platform]

    @property
    def ids(self) -> list[str]:
        """Every ID that an engine may give the image: which one depends on how it keeps images."""
        each = [(platform.config, platform.manifest) for platform in self.platforms.values()]
        return sorted({self.index, *(digest for pair in each for digest in pair)})


Lock = dict[str, Locked]


def read(path: Path) -> Lock:
    """Read the file; none is a lock of nothing. Raises `Invalid` when it cannot be understood."""
    try:
        found = tomllib.loads(path.read_text())
        return {reference: _entry(entry) for reference, entry in found.items()}
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        problem = (
            f"{path} cannot be used ({error}): put it back from the repository, or `make lock`"
        )
        raise Invalid([Problem("images_lock", problem)]) from None


def written(lock: Lock) -> str:
    """Give the file's content: the same lock gives the same bytes."""
    parts = [_HEAD]
    for reference, locked in sorted(lock.items()):
        parts += [f'\n["{reference}"]\n', f'index = "{locked.index}"\n']
        for name, platform in sorted(locked.platforms.items()):
            parts.append(f'"{name}" = ["{platform.manifest}", "{platform.config}"]\n')
    return "".join(parts)


def lock_of(settings: Settings) -> Lock:
    """Give what is locked for these settings; raises as `read` does."""
    return read(Path(settings.images_lock))


def references(settings: Settings) -> list[str]:
    """Give every image that the settings name, what is switched off too, each once."""
    named = [str(getattr(settings, key)) for key in _keys()]
    engines = [engine.image for engine in settings.all_engines if engine.image]
    return list(dict.fromkeys([*named, *engines]))


def pinned(settings: Settings, lock: Lock) -> Settings:
    """Give the settings with `image@digest` for each image that is locked and is pulled.

    An archive has no digests of a registry: there the image's ID is compared (`ids`).
    """
    if settings.images_source != "registry" or not lock:
        return settings

    def pin(reference: str) -> str:
        locked = lock.get(reference)
        return f"{reference}@{locked.index}" if locked else reference

    changed: dict[str, Any] = {key: pin(getattr(settings, key)) for key in _keys()}
    for key in ("engines", "engines_extra"):
        changed[key] = [
            engine.model_copy(update={"image": pin(engine.image)}) if engine.image else engine
            for engine in getattr(settings, key)
        ]
    return settings.model_copy(update=changed)


def ids(lock: Mapping[str, Locked], reference: str) -> list[str]:
    """Give the IDs that the image may have; none where nothing is locked for it."""
    name, _, digest = reference.partition("@")
    locked = lock.get(name)
    return locked.ids if locked and digest in {"", locked.index} else []


def by_digest(lock: Mapping[str, Locked], reference: str) -> bool:
    """Tell whether it cannot become another image: by its own digest, or by the lock's."""
    return "@sha256:" in reference or reference in lock


def _keys() -> list[str]:
    return [key for key in Settings.model_fields if key.endswith("_image")]


def _entry(entry: dict[str, Any]) -> Locked:
    platforms = {}
    for name, pair in entry.items():
        if name != "index":
            manifest, config = pair
            platforms[name] = Platform(_digest(manifest), _digest(config))
    return Locked(_digest(entry["index"]), platforms)


def _digest(text: str) -> str:
    if not _DIGEST.fullmatch(text):
        raise ValueError(f"{text!r} is no digest")
    return text
