"""`upgrade`: what a newer LiteLLM would do to each host, and the deploy that does it."""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from gatehouse.commands.hosts import hosts
from gatehouse.commands.plan import PYINFRA
from gatehouse.commands.verify import MADE_BY_DEPLOY, UNREACHED, CannotLook, Way, ssh_config
from gatehouse.images import lock_of, pinned
from gatehouse.settings import Settings, validate
from gatehouse.settings.version import refusal
from gatehouse.tool.here import confirm
from gatehouse.tool.upgrade import question, read, show, wanted
from gatehouse.upgrade import Preview, preview

_SECONDS = 300
# Root's, or that of somebody who may become root.
_AS_ROOT = f"""
if [ "$(id -u)" = 0 ]; then as=; else as="sudo -n"; fi
$as test -e {MADE_BY_DEPLOY} || {{ echo missing; exit 0; }}
exec $as """


@click.command("upgrade")
@click.option("--preview", "asked", is_flag=True, help="Show what would happen; changes nothing.")
@click.option("--apply", is_flag=True, help="Do it: fetch, preview, ask, deploy.")
@click.option("--to", "version", metavar="VERSION", help="LiteLLM's version, or a whole image.")
@click.option("--fetch", is_flag=True, help="Bring the images to the hosts before the preview.")
@click.option("--inventory", default="inventory", show_default=True, help="pyinfra's inventory.")
@click.option("--limit", multiple=True, metavar="HOST", help="Only this host; can be repeated.")
@click.option("--yes", is_flag=True, help="Do not ask before the deploy.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON, for programs.")
def command(  # noqa: PLR0913 - one for each option
    *,
    asked: bool,
    apply: bool,
    version: str | None,
    fetch: bool,
    inventory: str,
    limit: tuple[str, ...],
    yes: bool,
    as_json: bool,
) -> None:
    """Show what a newer LiteLLM would do to each host; --apply deploys it, with the way back.

    The version is what the settings say (litellm_image); --to tries another one.

    Ends with 0 when nothing speaks against it, 1 when something does or the deploy failed, and 2
    when a host could not be looked at.
    """
    if asked == apply:
        raise click.UsageError("say --preview or --apply")
    run(
        apply=apply,
        version=version,
        fetch=fetch,
        yes=yes,
        as_json=as_json,
        inventory=inventory,
        limit=limit,
    )


def run(  # noqa: PLR0913 - the command's options
    *,
    apply: bool,
    version: str | None,
    fetch: bool,
    yes: bool,
    as_json: bool,
    inventory: str = "inventory",
    limit: tuple[str, ...] = (),
) -> None:
    """Do what the command says; ends the process with its exit code."""
    known = hosts(inventory, connection=True)
    for name in limit:
        if name not in known:
            raise CannotLook(f"--limit {name}: the hosts are {', '.join(known)}")
    chosen = {name: data for name, data in known.items() if not limit or name in limit}
    settings = {name: _settings(data, version) for name, data in chosen.items()}
    images = {each.litellm_image for each in settings.values()}
    if version and len(images) > 1:
        raise CannotLook(f"--to means another image on each host, {images}: --limit to one")
    # What pyinfra is told on top of the inventory.
    data = ["--data", f"litellm_image={next(iter(images))}"] if version else []
    limits = [word for name in limit for word in ("--limit", name)]
    if fetch or apply:
        _pyinfra(inventory, "gatehouse.deploys.images.fetch", *limits, *data)
    found = {name: _looked_at(Way(name, each), settings[name]) for name, each in chosen.items()}
    if as_json:
        documents = {name: each.model_dump(mode="json") for name, each in found.items()}
        click.echo(json.dumps(documents, indent=2))
    else:
        for name, each in found.items():
            show(each, name)
    bad = [name for name, each in found.items() if each.problems]
    if bad or not apply:
        sys.exit(int(bool(bad)))
    if not any(each.changes for each in found.values()):
        return
    confirm(f"Deploy this to {', '.join(found)}?", yes=yes)
    _pyinfra(inventory, "deploy.py", *limits, *data)
    if version:
        click.echo(
            f'now write litellm_image = "{next(iter(images))}" into group_data/: the next deploy '
            "does what the settings say"
        )


def _settings(data: Mapping[str, Any], version: str | None) -> Settings:
    """Give a host's settings with the version that was asked for, checked like any others."""
    named = validate(data)
    if version:
        image = wanted(named, version).litellm_image
        if reason := refusal(image):
            raise click.ClickException(f"--to {version}: {image} is refused: {reason}")
        named = validate({**data, "litellm_image": image})
    return pinned(named, lock_of(named))


def _looked_at(way: Way, settings: Settings) -> Preview:
    """Ask one host; raises `CannotLook`."""
    with tempfile.TemporaryDirectory(prefix="gatehouse-") as folder:
        config = Path(folder) / "ssh_config"
        config.write_text("" if way.local else ssh_config(way, folder))
        try:
            done = subprocess.run(
                way.command(config, _AS_ROOT + question(settings)),
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                check=False,
                timeout=_SECONDS,
            )
        except subprocess.TimeoutExpired:
            raise CannotLook(f"{way.name} gave no answer in {_SECONDS} s") from None
        finally:
            if not way.local:
                end = ["ssh", "-F", str(config), "-O", "exit", way.name]
                subprocess.run(end, capture_output=True, check=False)
    if done.returncode == UNREACHED and not way.local:
        raise CannotLook(f"{way.name} cannot be reached: {done.stderr.strip()}")
    if done.stdout.strip() == "missing":
        raise CannotLook(f"{way.name} is no gateway yet: pyinfra inventory deploy.py")
    return preview(settings, read(done.stdout or done.stderr))


def _pyinfra(inventory: str, what: str, *arguments: str) -> None:
    """Run pyinfra as the operator does; its failure ends this command with its exit code."""
    done = subprocess.run(
        [PYINFRA, inventory, what, "-y", *arguments],
        check=False,
        env=os.environ | {"PYINFRA_PROGRESS": "off"},
    )
    if done.returncode:
        sys.exit(1)
