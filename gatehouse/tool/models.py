"""`gatehouse models`: the engines' model files on this host."""

import json
import os
from collections.abc import Callable
from contextlib import nullcontext
from functools import wraps
from typing import ParamSpec

import click

from gatehouse.tool import ollama, pull, store, verify
from gatehouse.tool.errors import CannotLookError, ProblemError
from gatehouse.tool.hub import TOKEN_FILE, Hub
from gatehouse.tool.progress import human
from gatehouse.tool.store import Config, Manifest, Wanted

Parameters = ParamSpec("Parameters")


def plainly(command: Callable[Parameters, None]) -> Callable[Parameters, None]:
    """Print what the system refused instead of a traceback."""

    @wraps(command)
    def guarded(*args: Parameters.args, **kwargs: Parameters.kwargs) -> None:
        try:
            command(*args, **kwargs)
        except OSError as error:
            raise CannotLookError(str(error)) from error

    return guarded


@click.group()
def models() -> None:
    """Download, list and verify the engines' model files.

    \b
    gatehouse models list
    sudo gatehouse models pull embed-arctic-l-v2
    sudo gatehouse models pull --all
    gatehouse models verify
    """  # noqa: D301 - click's mark for a block that stays as it is


@models.command("pull")
@click.argument("names", nargs=-1, metavar="[NAME]...")
@click.option("--all", "everything", is_flag=True, help="The files of every engine.")
@click.option("--again", is_flag=True, help="Also what is here already.")
@plainly
def pull_command(names: tuple[str, ...], *, everything: bool, again: bool) -> None:
    """Download model files; NAME is an engine, a model or a file.

    What was downloaded before the command was stopped is not downloaded again. A file is put in
    place when all of it is here and its checksum is right.
    """
    config = store.load(store.CONFIG)
    if bool(names) == everything:
        raise click.UsageError(
            f"give names, or --all: {_names(config) or 'no engine wants a file'}"
        )
    chosen = config.choose(names)
    with store.writing(config.folder):
        problems = _pull(config, chosen, again=again)
    _end(problems)


def _pull(config: Config, chosen: list[Wanted], *, again: bool) -> list[str]:
    hub, manifest = Hub(config.hub_url, _token()), Manifest(config.folder)
    problems: list[str] = []
    jobs: list[pull.Job] = []
    for wanted in chosen:
        try:
            if not again and verify.settled(config.folder, manifest, wanted):
                click.echo(f"{wanted.target}: is here")
            elif wanted.ollama:
                size = ollama.pull(wanted)
                manifest.files[wanted.target] = {"size": size, "at": verify.now()}
                manifest.save()
                click.echo(f"{wanted.target}: is here")
            else:
                jobs += pull.plan(hub, wanted)
        except ProblemError as problem:
            problems.append(str(problem))
    if jobs:
        pull.refuse_without_room(config.folder, jobs)
    return problems + _download(config, hub, manifest, jobs)


def _download(config: Config, hub: Hub, manifest: Manifest, jobs: list[pull.Job]) -> list[str]:
    problems = []
    failed: set[str] = set()
    for job in jobs:
        try:
            pull.announce(job, hub)
            pull.download(hub, config.folder, job, manifest)
            click.echo(f"{job.target}: is here, sha256 {manifest.files[job.target]['sha256']}")
        except ProblemError as problem:
            problems.append(str(problem))
            failed.add(job.wanted.target)
    for job in jobs:
        if job.wanted.file is None and job.wanted.target not in failed:
            manifest.folders[job.wanted.target] = {
                "repository": job.wanted.repository,
                "revision": job.wanted.revision,
                "commit": job.remote.commit,
                "at": verify.now(),
            }
            manifest.save()
    return problems


@models.command("list")
@click.option("--json", "as_json", is_flag=True, help="For programs.")
@plainly
def list_command(*, as_json: bool) -> None:
    """List the model files: what is here, how large, and which engines use it."""
    config = store.load(store.CONFIG)
    manifest = Manifest(config.folder)
    rows = [_row(manifest, wanted) for wanted in config.wanted]
    if as_json:
        click.echo(json.dumps(rows, indent=2))
        return
    if not rows:
        click.echo("no engine wants a model file")
        return
    titles = ("FILE", "STATE", "SIZE", "VERIFIED", "LICENCE", "ENGINES")
    lines = [titles]
    for row in rows:
        size = human(int(str(row["size"]))) if row["size"] else "-"
        day = str(row["verified"] or "-")[:10]
        engines = ", ".join(map(str, row["engines"])) if isinstance(row["engines"], list) else ""
        licence = str(row["licence"] or "-")
        lines.append((str(row["file"]), str(row["state"]), size, day, licence, engines))
    widths = [max(len(line[column]) for line in lines) for column in range(len(titles))]
    for line in lines:
        click.echo("  ".join(map(str.ljust, line, widths)).rstrip())


def _row(manifest: Manifest, wanted: Wanted) -> dict[str, object]:
    known = manifest.files.get(wanted.target) or {}
    if below := manifest.below(wanted.target):
        known = {
            "verified": min(str(manifest.files[name].get("verified")) for name in below),
            "licence": manifest.files[below[0]].get("licence"),
        }
    return {
        "file": wanted.target,
        "state": manifest.state(wanted),
        "size": manifest.size(wanted),
        "verified": known.get("verified"),
        "licence": wanted.licence or known.get("licence"),
        "repository": wanted.repository,
        "sha256": known.get("sha256"),
        "engines": list(wanted.engines),
    }


@models.command("verify")
@click.argument("names", nargs=-1, metavar="[NAME]...")
@plainly
def verify_command(names: tuple[str, ...]) -> None:
    """Hash model files again and compare: with what was downloaded and with the settings.

    A file that somebody put there is hashed and written down.
    """
    config = store.load(store.CONFIG)
    chosen = config.choose(names)
    # Whoever may not write may still look.
    writes = os.access(config.folder, os.W_OK)
    with store.writing(config.folder) if writes else nullcontext():
        manifest = Manifest(config.folder)
        problems = verify.every(config, manifest, chosen)
        if writes:
            manifest.save()
    _end(problems)


def _end(problems: list[str]) -> None:
    if problems:
        raise ProblemError("\n".join(problems))


def _names(config: Config) -> str:
    return ", ".join(sorted({engine for each in config.wanted for engine in each.engines}))


def _token() -> str | None:
    try:
        return os.environ.get("HF_TOKEN") or TOKEN_FILE.read_text().strip() or None
    except OSError:  # there is none, or it is not for this user
        return None
