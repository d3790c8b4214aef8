"""Docker: the engine and Compose where they are missing or too old, and a hardened daemon."""

import re
from io import StringIO

from pyinfra import host, logger
from pyinfra.api import FileUploadCommand, StringCommand, operation
from pyinfra.api.deploy import deploy as pyinfra_deploy
from pyinfra.api.exceptions import DeployError

from gatehouse.deploys import Commands
from gatehouse.deploys.facts import Host, Run, Text, parse_json
from gatehouse.deploys.gateway import Gateway
from gatehouse.deploys.packages import install
from gatehouse.deploys.sources import Source, known
from gatehouse.deploys.unit import started
from gatehouse.render import docker as render
from gatehouse.settings import Settings

DAEMON_JSON = "/etc/docker/daemon.json"
# What Gatehouse put there last: only so can a later change of the operator be told from ours.
OURS = "/etc/gatehouse/docker-daemon.json"

# Below these the Compose files cannot be read at all (start_interval, include).
NEEDED_ENGINE, NEEDED_COMPOSE = (25, 0, 0), (2, 24, 0)
# Below these the engine itself has holes that the firewall has to close (docs/hardening.md).
FLOOR_ENGINE, FLOOR_COMPOSE = (28, 3, 3), (2, 30, 0)

_DISTRIBUTION = {
    "debian 13": ["docker.io", "docker-cli", "docker-compose"],
    "ubuntu 22.04": ["docker.io", "docker-compose-v2"],
    "ubuntu 24.04": ["docker.io", "docker-compose-v2"],
}
_DOCKER = ["docker-ce", "docker-ce-cli", "containerd.io", "docker-compose-plugin"]
# They own the same files as Docker's packages.
_REPLACED = [
    "docker.io",
    "docker-cli",
    "docker-compose",
    "docker-compose-v2",
    "docker-doc",
    "podman-docker",
    "containerd",
    "runc",
]
_CODENAMES = {
    "debian 12": "bookworm",
    "debian 13": "trixie",
    "ubuntu 22.04": "jammy",
    "ubuntu 24.04": "noble",
}


@pyinfra_deploy("Docker")
def deploy(gateway: Gateway) -> None:
    """Install what is missing or too old, harden the daemon, and have it running."""
    settings, found = gateway.settings, gateway.found
    if to_install(settings, found):
        _install(settings, found)
    elif _below(found, FLOOR_ENGINE, FLOOR_COMPOSE):
        logger.warning(
            f"    Docker {found.engine} with Compose {found.compose} is below "
            f"{'.'.join(map(str, FLOOR_ENGINE))}: gatehouse-firewall.service closes what it leaves "
            'open; docker_source = "docker" installs a newer one'
        )
    card = gateway.machine.card(settings)
    configured(name="Harden the daemon", settings=settings, card=card)
    started(name="Have the daemon running", unit="docker.service", newer_than=[DAEMON_JSON])


def to_install(settings: Settings, found: Host) -> str | None:
    """Say from where Docker is to be installed, or None where what the host has will do."""
    if _below(found, NEEDED_ENGINE, NEEDED_COMPOSE):
        return settings.docker_source
    if settings.docker_source == "docker" and _below(found, FLOOR_ENGINE, FLOOR_COMPOSE):
        return settings.docker_source
    return None


def _install(settings: Settings, found: Host) -> None:
    if settings.docker_source == "distribution":
        if found.system not in _DISTRIBUTION:
            raise DeployError(
                f"{found.system_name}'s own Docker ({found.engine or 'none here'}) is too old: "
                f"{'.'.join(map(str, NEEDED_ENGINE))} is needed; set docker_source = "
                '"docker" to install Docker\'s own packages'
            )
        installed(
            name="Install the distribution's Docker",
            packages=_DISTRIBUTION[found.system],
            instead_of=[],
        )
        return
    known(name="Add Docker's package repository", source=source(settings, found.system))
    installed(name="Install Docker's own packages", packages=_DOCKER, instead_of=_REPLACED)


def version(text: str) -> tuple[int, int, int]:
    """Read the first three numbers of a version; an empty text is lower than any."""
    numbers = [int(number) for number in re.findall(r"\d+", text)[:3]]
    return (*numbers, 0, 0, 0)[:3]  # type: ignore[return-value]


def _below(found: Host, engine: tuple[int, ...], compose: tuple[int, ...]) -> bool:
    return version(found.engine) < engine or version(found.compose) < compose


def source(settings: Settings, system: str) -> Source:
    """Give Docker's repository for a system, as `debian 13`."""
    url = f"{settings.docker_repository_url}/{system.split(maxsplit=1)[0]}"
    return Source(
        name="docker",
        uri=url,
        suite=_CODENAMES[system],
        component="stable",
        key_url=f"{url}/gpg",
        fingerprint=settings.docker_repository_fingerprint,
        mend="is the repository reachable (docker_repository_url), or should docker_source be "
        '"distribution"?',
    )


@operation()
def installed(packages: list[str], instead_of: list[str]) -> Commands:
    """Install the packages in place of others; images, volumes and containers stay."""
    yield install(packages, instead_of)


@operation()
def configured(settings: Settings, card: str) -> Commands:
    """Ensure our keys in daemon.json; keys of the operator stay as they are, and are named."""
    ours = render.wanted(settings, card)
    text, before = host.get_fact(Text, path=DAEMON_JSON), host.get_fact(Text, path=OURS)
    merged, kept = render.merge(parse_json(text), parse_json(before), ours)
    for key in kept:
        logger.info(
            f"{host.print_prefix}daemon.json: your {key} = {merged[key]!r} stays "
            f"(Gatehouse would set {ours[key]!r})"
        )
    if parse_json(text) == merged and parse_json(before) == ours:
        host.noop("daemon.json is as it should be")
        return
    if parse_json(text) != merged:
        yield FileUploadCommand(StringIO(render.text(merged)), f"{DAEMON_JSON}.new")
        yield StringCommand(
            f"chown root:root {DAEMON_JSON}.new && chmod 644 {DAEMON_JSON}.new && "
            f"{{ ! command -v dockerd >/dev/null || dockerd --validate --config-file "
            f"{DAEMON_JSON}.new; }} && mv {DAEMON_JSON}.new {DAEMON_JSON}"
        )
        # A reload is enough for live-restore, so the restart that follows for the other keys
        # leaves running containers alone.
        if settings.docker_live_restore and host.get_fact(
            Run, command="systemctl is-active --quiet docker"
        ) == {"rc": 0, "out": ""}:
            yield StringCommand("systemctl reload docker")
    yield FileUploadCommand(StringIO(render.text(ours)), OURS)
    yield StringCommand(f"chown root:root {OURS} && chmod 644 {OURS}")
