"""Whether model files are what they should be."""

from datetime import UTC, datetime
from pathlib import Path

import click

from gatehouse.tool.errors import ProblemError
from gatehouse.tool.progress import bar
from gatehouse.tool.pull import entry, header_problem
from gatehouse.tool.store import Config, Manifest, Wanted, sha256


def now() -> str:
    """Give the time as it is written down."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def settled(folder: Path, manifest: Manifest, wanted: Wanted) -> bool:
    """Tell whether nothing is to be downloaded; what somebody put there is written down.

    Raises `ProblemError` when a file is there that is none of ours and not the right one.
    """
    state = manifest.state(wanted)
    if state == "present":
        known = manifest.folders.get(wanted.target) or manifest.files.get(wanted.target, {})
        # Another revision in the settings is another file.
        moved = known.get("revision") not in {None, wanted.revision}
        expected = wanted.single_sha256
        other = expected and known.get("sha256") != expected
        return bool(wanted.ollama) or not (moved or other)
    if state == "unverified" and (folder / wanted.target).is_file():
        problem = _one(folder, manifest, wanted.target, wanted.single_sha256)
        if problem:
            raise ProblemError(f"{problem}. It was not replaced: move it away, then pull")
        manifest.save()
        return True
    return state == "unverified"


def every(config: Config, manifest: Manifest, chosen: list[Wanted]) -> list[str]:
    """Give what is wrong; the manifest then says when the rest was found right."""
    problems: list[str] = []
    for wanted in chosen:
        if wanted.ollama:
            click.echo(f"{wanted.target}: Ollama verifies its own files")
            continue
        problems += _wanted(config, manifest, wanted)
    return problems


def _wanted(config: Config, manifest: Manifest, wanted: Wanted) -> list[str]:
    state = manifest.state(wanted)
    command = f"`sudo gatehouse models pull {wanted.engines[0]}`"
    path = config.folder / wanted.target
    if state in {"missing", "partial"}:
        mend = f"{command} downloads it" if wanted.repository else f"put it to {path}"
        return [f"{wanted.target} is {state}: {mend}"]
    if path.is_dir():
        names = manifest.below(wanted.target)
        if not names:
            click.echo(f"{wanted.target}: nothing is known of this folder's files")
    else:
        names = [wanted.target]
    found = []
    for name in names:
        problem = _one(config.folder, manifest, name, wanted.single_sha256)
        if problem:
            again = f"`sudo gatehouse models pull --again {wanted.engines[0]}` replaces it"
            found.append(f"{problem}: {again if wanted.repository else 'put the right file there'}")
        else:
            click.echo(f"{name}: right")
    return found


def _one(folder: Path, manifest: Manifest, name: str, setting: str | None) -> str | None:
    """Give what is wrong with a file; write it down when nothing is."""
    path = folder / name
    if not path.is_file():
        return f"{name} is missing"
    if name.endswith(".gguf") and (problem := header_problem(path)):
        return f"{name} is damaged: {problem}"
    known = manifest.files.get(name, {})
    with bar(f"checking {name}", path.stat().st_size) as advance:
        digest = sha256(path, advance)
    for who, expected in (("was downloaded as", known.get("sha256")), ("should be", setting)):
        if expected and digest != expected:
            return f"{name} is damaged or another file: its sha256 is {digest}, it {who} {expected}"
    at = {"at": known["at"]} if "at" in known else {}
    manifest.files[name] = known | entry(path, digest) | at
    return None
