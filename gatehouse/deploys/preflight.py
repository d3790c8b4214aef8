"""Refuse early and clearly what cannot work. Pure: what was found against what is needed."""

import json
from ipaddress import IPv4Network

from pyinfra import logger
from pyinfra.api.exceptions import DeployError

from gatehouse.deploys import card
from gatehouse.deploys.facts import Host, parse_json
from gatehouse.render import Machine
from gatehouse.settings import Settings
from gatehouse.tool.gguf import gguf_problem

# A release, the command's virtual environment, units; a dump looks for its own room.
_ROOM_MIB = 256
# The kinds that read such a file.
_GGUF = {"llamacpp", "embed", "rerank"}

SYSTEMS = {
    "debian 12": "Debian 12",
    "debian 13": "Debian 13",
    "ubuntu 22.04": "Ubuntu 22.04",
    "ubuntu 24.04": "Ubuntu 24.04",
}


def refuse(settings: Settings, found: Host) -> None:
    """Raise `DeployError` with every reason why this host cannot become a gateway."""
    reasons = list(problems(settings, found))
    if reasons:
        lines = "\n".join(f"  - {reason}" for reason in reasons)
        raise DeployError(f"this host cannot be provisioned, nothing was touched:\n{lines}")
    for warning in [*card.warnings(settings, found.gpus), *idle(settings)]:
        logger.warning(f"    {warning}")
    workers = Machine(found.cores, found.memory_mib).workers(settings)
    if workers < settings.litellm_workers:
        logger.info(
            f"    litellm_workers = {settings.litellm_workers} is lowered to {workers}: "
            f"{found.cores} cores, {found.memory_mib} MiB"
        )


def problems(settings: Settings, found: Host) -> list[str]:
    """Give the reasons, each with what was found, what is needed and what to do."""
    reasons = []
    if found.system not in SYSTEMS:
        names = ", ".join(SYSTEMS.values())
        reasons.append(f"{found.system_name or 'this system'} is not supported: use {names}")
    if not found.systemd:
        reasons.append("systemd does not run here: Gatehouse needs it as PID 1")
    if found.memory_mib < settings.host_memory_min_mib:
        reasons.append(
            f"{found.memory_mib} MiB of memory, {settings.host_memory_min_mib} MiB needed "
            "(host_memory_min_mib)"
        )
    if found.disk_mib < settings.host_disk_min_gib * 1024:
        reasons.append(
            f"{found.disk_mib // 1024} GiB free on {found.disk_path}, "
            f"{settings.host_disk_min_gib} GiB needed (host_disk_min_gib): free some space"
        )
    reasons += [
        f"{mib} MiB free on {path}, {_ROOM_MIB} MiB needed for what a deploy writes there: free "
        "some space"
        for path, mib in found.rooms.items()
        if mib < _ROOM_MIB
    ]
    if settings.host_time_sync_required and not found.clock_kept:
        reasons.append(
            "nobody keeps the clock: `apt-get install systemd-timesyncd` (or chrony), or set "
            "host_time_sync_required = False where the hypervisor keeps it"
        )
    if found.secrets_group not in {"", "gatehouse-secrets"}:
        reasons.append(
            f"the group {found.secrets_group} has the number {settings.secrets_gid}: choose "
            "another secrets_gid"
        )
    if settings.images_cosign == "required" and not found.cosign:
        reasons.append(
            'images_cosign = "required", and cosign is not on this host: install it '
            '(apt-get install cosign, where the distribution has it), or set "optional"'
        )
    reasons += _ports(settings, found) + _networks(settings, found) + _daemon_json(found)
    reasons += _firewalls(settings, found)
    reasons += card.problems(settings, found.gpus)
    reasons += _gpu_requests(settings, found) + _model_files(settings, found)
    return reasons


def idle(settings: Settings) -> list[str]:
    """Name what is set and does nothing, where somebody could think himself protected by it."""
    if settings.firewall_enabled:
        return []
    named = {
        "firewall_ports": settings.firewall_ports,
        "firewall_udp_ports": settings.firewall_udp_ports,
        "firewall_interfaces": settings.firewall_interfaces,
    }
    return [
        f"{name} does nothing: firewall_enabled = False, so all of the host can be reached"
        for name, value in named.items()
        if value
    ]


def _firewalls(settings: Settings, found: Host) -> list[str]:
    """Two firewalls that refuse by default let in only what both allow."""
    stop = {"ufw": "ufw disable", "firewalld": "systemctl disable --now firewalld"}
    return [
        f"{name} is active: it would refuse what Gatehouse lets in; keep it and set "
        f"firewall_enabled = False, or switch it off: {stop[name]}"
        for name in found.firewalls
        if settings.firewall_enabled
    ]


def _gpu_requests(settings: Settings, found: Host) -> list[str]:
    if settings.gpu_mode == "nvidia" or card.card(settings, found.gpus) == "nvidia":
        return []
    why = "; ".join(card.warnings(settings, found.gpus)) or "this host has none that can be used"
    return [
        f"engine {engine.name} needs a GPU ({engine.kind}, device = {engine.device!r}), and {why}: "
        "switch the engine off, or give it a card"
        for engine in settings.active_engines
        if engine.needs_gpu
    ]


def model_files(settings: Settings) -> list[str]:
    """Give the paths of the model files that engines need on the host."""
    return [
        f"{settings.models_dir}/{engine.file}" for engine in settings.active_engines if engine.file
    ]


def _model_files(settings: Settings, found: Host) -> list[str]:
    reasons = []
    for engine in settings.active_engines:
        if not engine.file:
            continue
        path = f"{settings.models_dir}/{engine.file}"
        file = found.model_files.get(path)
        if file is None and settings.models_pull and engine.repository:
            continue
        if file is None:
            reasons.append(
                f"{path} of engine {engine.name} is missing: copy it there, or let the deploy "
                "pull it (models_pull = True)"
            )
        elif engine.kind in _GGUF and (trouble := gguf_problem(file.head, file.size)):
            reasons.append(
                f"{path} of engine {engine.name} cannot be used: {trouble}; remove it, and pull "
                "or copy it again"
            )
    return reasons


def _ports(settings: Settings, found: Host) -> list[str]:
    ports = {
        "litellm_port": settings.litellm_port,
        "postgres_port": settings.postgres_port,
        "redis_port": settings.redis_port,
        "health_port": settings.health_port,
        "metrics_port": settings.metrics_port,
    }
    if settings.metrics_prometheus:
        ports["metrics_prometheus_port"] = settings.metrics_prometheus_port
        ports["metrics_alertmanager_port"] = settings.metrics_alertmanager_port
    ports |= {f"engine {engine.name}": engine.port for engine in settings.active_engines}
    return [
        f"port {port} is taken by {found.listeners[port]}: stop it, or give {key} another port"
        for key, port in ports.items()
        if port in found.listeners and port not in found.own_ports
    ]


def _networks(settings: Settings, found: Host) -> list[str]:
    wanted = {
        "network_subnet": settings.network_subnet,
        "network_inner_subnet": settings.network_inner_subnet,
        "network_engines_subnet": settings.network_engines_subnet,
    }
    return [
        f"{key} = {network} overlaps {route}, which this host reaches through {device}: choose "
        "another"
        for key, network in wanted.items()
        for route, device in found.routes.items()
        if device not in {"gw-edge", "gw-inner", "gw-engines"}
        and network.overlaps(IPv4Network(route))
    ]


def _daemon_json(found: Host) -> list[str]:
    try:
        parse_json(found.daemon_json)
    except (json.JSONDecodeError, ValueError) as error:
        return [f"/etc/docker/daemon.json cannot be read ({error}): mend it or move it away"]
    return []
