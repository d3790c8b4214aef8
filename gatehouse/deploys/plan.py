"""What a deploy would change: `make plan` shows it and changes nothing.

No secret can appear: what is compared are rendered files, which hold none, and names.
"""

import difflib
import json
from collections.abc import Iterator

import click
from pyinfra import host
from pyinfra.api.deploy import deploy as pyinfra_deploy

from gatehouse import wheels
from gatehouse.deploys import docker, images, secrets, venv
from gatehouse.deploys.facts import Containers, Images, Paths, Run, Text, parse_json
from gatehouse.deploys.gateway import Gateway, this_gateway
from gatehouse.deploys.host import DIRECTORIES
from gatehouse.render import docker as daemon
from gatehouse.render.tree import SECRETS

_COLOURS = {"+": "green", "-": "red", "@": "cyan"}


@pyinfra_deploy("Plan")
def show() -> None:
    """Print the differences between the host and what a deploy would make of it."""
    gateway = this_gateway()
    lines = [
        *_packages(gateway),
        *_command(),
        *_secrets(gateway),
        *_images(gateway),
        *_services(gateway),
    ]
    changed = [*_files(gateway), *_daemon_json(gateway)]
    click.echo(f"\n{host.name}:")
    for line in changed:
        click.secho(line, fg=_COLOURS.get(line[:1]))
    for line in lines:
        click.echo(f"  {line}")
    if not changed and not lines:
        click.echo("  nothing to change")


def _files(gateway: Gateway) -> Iterator[str]:
    files = {
        path: file
        for path, file in gateway.rendered.files.items()
        if path != docker.DAEMON_JSON  # merged with the operator's own keys, see below
    }
    found = host.get_fact(Paths, paths=list(files))
    for path, file in files.items():
        stat = found.get(path)
        if stat is None or stat.sha256 != file.sha256:
            present = host.get_fact(Text, path=path) if stat else ""
            yield from _diff(path, present, file.content)
        elif (stat.mode, stat.owner, stat.group) != (file.mode, file.owner, file.group):
            yield (
                f"  {path}: {stat.mode} {stat.owner}:{stat.group} becomes "
                f"{file.mode} {file.owner}:{file.group}"
            )


def _daemon_json(gateway: Gateway) -> Iterator[str]:
    """Compare our keys only: the operator's may hold a secret (a proxy's password)."""
    present = parse_json(gateway.found.daemon_json)
    ours = daemon.wanted(gateway.settings, gateway.machine.card(gateway.settings))
    before = parse_json(host.get_fact(Text, path=docker.OURS))
    merged, _ = daemon.merge(present, before, ours)
    keys = ours.keys() | before.keys()
    yield from _diff(
        docker.DAEMON_JSON,
        daemon.text({key: value for key, value in present.items() if key in keys}),
        daemon.text({key: value for key, value in merged.items() if key in keys}),
    )


def _diff(path: str, present: str, wanted: str) -> list[str]:
    lines = difflib.unified_diff(
        present.splitlines(), wanted.splitlines(), f"{path} (host)", f"{path} (deploy)", lineterm=""
    )
    return list(lines)


def _packages(gateway: Gateway) -> Iterator[str]:
    source = docker.to_install(gateway.settings, gateway.found)
    if source:
        has = gateway.found.engine or "none"
        yield f"Docker would be installed from {source} (the host has {has})"
    look = "command -v restic"
    if gateway.settings.backup_enabled and host.get_fact(Run, command=look)["rc"]:
        yield "restic would be installed"
    found = host.get_fact(Paths, paths=list(DIRECTORIES))
    for path in DIRECTORIES:
        if path not in found:
            yield f"{path} would be made"


def _command() -> Iterator[str]:
    wanted = wheels.identity()
    if host.get_fact(Run, command=venv.complete(wanted))["rc"]:
        yield f"the gatehouse command {wanted} would be installed"


def _secrets(gateway: Gateway) -> Iterator[str]:
    found = host.get_fact(Paths, paths=[f"{secrets.DIRECTORY}/{name}" for name in SECRETS])
    for name in SECRETS:
        if f"{secrets.DIRECTORY}/{name}" not in found:
            yield f"secret {name} would be made on the host"
    for name in gateway.provider_keys.keys() - gateway.found.provider_keys:
        yield f"provider key {name} would be added"


def _images(gateway: Gateway) -> Iterator[str]:
    wanted = images.wanted(gateway.settings, gateway.machine)
    how = "pulled" if gateway.settings.images_source == "registry" else "loaded from the archive"
    present = host.get_fact(Images, references=wanted)
    for image in wanted:
        if image not in present:
            yield f"image {image} would be {how}"


def _services(gateway: Gateway) -> Iterator[str]:
    found = {c.service: c for c in host.get_fact(Containers)}
    for engine, inputs in gateway.rendered.engines.items():
        if engine not in found:
            yield f"engine {engine} would be created"
        elif found[engine].inputs != inputs or found[engine].stale:
            yield f"engine {engine} would be recreated: what it runs with has changed"
    for service, inputs in gateway.rendered.inputs.items():
        container = found.get(service)
        if container is None:
            yield f"service {service} would be created"
        elif container.inputs != inputs:
            yield f"service {service} would be recreated: what it runs with has changed"
        elif container.stale:
            yield f"service {service} would be recreated: a secret or its image is newer"
        elif container.status != "exited" and not container.ready:
            yield f"service {service} would be mended: it is {json.dumps(container.health)}"
