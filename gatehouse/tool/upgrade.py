"""`gatehouse upgrade --preview`: what another LiteLLM would do to this host."""

import importlib.util
import json
import shlex
import subprocess
from pathlib import Path
from typing import Any

import click
from rich.markup import escape

from gatehouse.checks.probe import probe
from gatehouse.probes.upgrade import shipped
from gatehouse.settings import Settings
from gatehouse.tool import dump, here, stack
from gatehouse.tool.errors import CannotLookError, ProblemError
from gatehouse.tool.show import busy, console, emit, json_option, span, table
from gatehouse.upgrade import Image, Preview, preview, targets, with_version

_SECONDS = 180
_DIGEST = 19
_DONE = """SELECT coalesce(json_agg(migration_name), '[]') FROM _prisma_migrations
    WHERE finished_at IS NOT NULL AND rolled_back_at IS NULL"""


@click.command("upgrade")
@click.option("--preview", "asked", is_flag=True, help="Show what would happen; changes nothing.")
@click.option("--apply", is_flag=True, help="Do it: only from the operator's checkout.")
@click.option("--to", "version", metavar="VERSION", help="LiteLLM's version, or a whole image.")
@click.option("--fetch", is_flag=True, help="Bring the images first: only from the checkout.")
@click.option("--inventory", metavar="FILE", help="pyinfra's inventory: only from the checkout.")
@click.option("--limit", multiple=True, metavar="HOST", help="Only this host of the inventory.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@json_option
def upgrade(  # noqa: PLR0913 - one for each option
    *,
    asked: bool,
    apply: bool,
    version: str | None,
    fetch: bool,
    inventory: str | None,
    limit: tuple[str, ...],
    yes: bool,
    as_json: bool,
) -> None:
    """Show what another LiteLLM would do here: images, migrations, what breaks, for how long.

    \b
    gatehouse upgrade --preview                  in the operator's checkout: every host
    gatehouse upgrade --apply                    there, too: deploy it, with the way back
    sudo gatehouse upgrade --preview --to 1.108.12   on the host

    The migrations are those of an image that is on the host; --fetch brings it first.

    Exit codes: 0 nothing speaks against it, 1 something does, 2 it could not look.
    """  # noqa: D301 - click's mark for a block that stays as it is
    if asked == apply:
        raise CannotLookError("say --preview or --apply")
    if _checkout():
        operator = importlib.import_module("gatehouse.commands.upgrade")
        operator.run(
            apply=apply,
            version=version,
            fetch=fetch,
            yes=yes,
            as_json=as_json,
            inventory=inventory or "inventory",
            limit=limit,
        )
        return
    if inventory or limit:
        raise CannotLookError(
            "--inventory and --limit are for the operator's checkout; on a host, gatehouse upgrade "
            "--preview looks at that host alone"
        )
    if apply or fetch:
        raise CannotLookError(
            "an upgrade is a deploy: gatehouse upgrade --apply in the operator's checkout, where "
            "the settings are"
        )
    here.be_root("upgrade --preview")
    found = looked_at(wanted(here.settings(), version))
    emit(found) if as_json else show(found)
    raise SystemExit(int(bool(found.problems)))


def _checkout() -> bool:
    """Tell whether an operator asks, maybe at the host itself, whose own command has no pyinfra."""
    files = all(Path(name).is_file() for name in ("deploy.py", "inventory"))
    return files and importlib.util.find_spec("pyinfra") is not None


def wanted(settings: Settings, version: str | None) -> Settings:
    """Give the settings with another LiteLLM; raises `CannotLookError` where it is none."""
    if version is None:
        return settings
    try:
        image = with_version(settings.litellm_image, version)
    except ValueError as error:
        raise CannotLookError(f"--to: {error}") from None
    return settings.model_copy(update={"litellm_image": image})


def question(settings: Settings) -> str:
    """Give the command that asks the host, with its own Python."""
    return probe("upgrade", json.dumps(targets(settings)))


def read(output: str) -> dict[str, Any]:
    """Read the probe's answer; raises `CannotLookError`."""
    try:
        found: dict[str, Any] = json.loads(output.strip().splitlines()[-1])
    except (ValueError, IndexError):
        raise CannotLookError(f"the host gave no answer: {output.strip()[-300:]}") from None
    if "running" not in found:
        raise CannotLookError(f"Docker cannot be asked: {found['errors'].get('running')}")
    return found


def looked_at(settings: Settings) -> Preview:
    """Look at this host; raises `CannotLookError`."""
    with busy("looking"):
        try:
            done = subprocess.run(
                shlex.split(question(settings)),
                capture_output=True,
                text=True,
                timeout=_SECONDS,
                check=False,
            )
        except subprocess.TimeoutExpired:
            raise CannotLookError(f"Docker took longer than {_SECONDS} s") from None
    return preview(settings, read(done.stdout or done.stderr))


def refuse_newer(database: str) -> None:
    """Raise `ProblemError` where the LiteLLM that runs is older than a database on the server.

    An image that shows no migrations keeps nobody from their data.
    """
    runs = stack.container("litellm")
    name, number = stack.docker("inspect", "-f", "{{.Config.Image}} {{.Image}}", runs).split()
    try:
        known = shipped(number)
    except (OSError, subprocess.TimeoutExpired):
        return
    unknown = sorted(set(json.loads(dump.ask(_DONE, database))) - set(known))
    if unknown:
        more = " …" if len(unknown) > 1 else ""
        raise ProblemError(
            f"a newer LiteLLM made this database: {name} does not know {len(unknown)} migrations "
            f"that it has ({unknown[0]}{more}), and may lose what it does not know. Nothing was "
            "changed: set litellm_image to the one of then, or a newer one, deploy, and restore "
            "again"
        )


def show(found: Preview, host: str | None = None) -> None:
    """Print it for people."""
    out = console()
    if host:
        out.print(f"[bold]{escape(host)}[/]")
    out.print(f"LiteLLM {found.now or 'nowhere'} → {found.then or 'of an unknown version'}\n")
    rows = table("service", "now", "then", "")
    for image in found.images:
        rows.add_row(image.service, *_sides(image), "changes" if image.changes else "stays")
    out.print(rows)
    out.print(f"\nmigrations: {escape(_migrations(found))}")
    for name in found.migrations.pending or []:
        out.print(f"  {escape(name)}")
    if found.breaking:
        changes = table("since", "what breaks", "here")
        for each in found.breaking:
            changes.add_row(each.version, escape(each.what), escape(each.here))
        out.print()
        out.print(changes)
    elif found.newer:
        out.print("nothing is known to break between the two")
    out.print(f"\n{_downtime(found)}")
    for problem in found.problems:
        out.print(f"[bold red]no[/] {escape(problem)}")
    if not found.changes and not found.problems:
        out.print("nothing to upgrade")


def _sides(image: Image) -> tuple[str, str]:
    sides = (image.now, image.now_digest), (image.then, image.then_digest)
    return tuple(  # type: ignore[return-value] # two of them
        escape(f"{(name or 'none').partition('@')[0]} {(digest or 'no digest')[:_DIGEST]}")
        for name, digest in sides
    )


def _migrations(found: Preview) -> str:
    if found.migrations.pending is None:
        return f"cannot be known ({found.migrations.why}); --fetch brings the images first"
    return f"{len(found.migrations.pending)} would run" if found.migrations.pending else "none"


def _downtime(found: Preview) -> str:
    downtime = found.downtime
    if downtime.at_most_seconds == 0:
        return "downtime: none"
    bound = f"the deploy gives up, and goes back, after {span(downtime.at_most_seconds)}"
    if downtime.seconds is None:
        return f"downtime: no start was measured here yet; {bound}"
    return (
        f"downtime: about {span(downtime.seconds)} (the longest of {downtime.measured} measured "
        f"starts); {bound}"
    )
