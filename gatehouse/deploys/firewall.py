"""The firewall: neighbours do not reach the stack's networks; where it is wanted, nothing else."""

from collections.abc import Mapping
from fnmatch import fnmatchcase
from ipaddress import ip_address, ip_network
from typing import Any

from pyinfra import host as this_host
from pyinfra import logger
from pyinfra.api import FunctionCommand, StringCommand, operation
from pyinfra.api.arguments import CONNECTOR_ARGUMENT_KEYS, pop_global_arguments
from pyinfra.api.deploy import deploy as pyinfra_deploy
from pyinfra.api.host import Host
from pyinfra.api.state import State
from pyinfra.connectors.local import LocalConnector

from gatehouse.deploys import Commands
from gatehouse.deploys.facts import Run
from gatehouse.deploys.files import put
from gatehouse.deploys.gateway import Gateway
from gatehouse.deploys.packages import present
from gatehouse.deploys.unit import started
from gatehouse.render import firewall as render
from gatehouse.settings import Settings

UNIT = "gatehouse-firewall.service"
FILTER = "gatehouse-filter.service"
_SCRIPT = f"/bin/sh {render.FILTER}"
# Prints each peer with the interface that it is answered by.
_DEVICES = """for peer in {peers}; do
    echo "$peer $(ip -o route get "$peer" 2>/dev/null | sed -n 's/.* dev \\([^ ]*\\).*/\\1/p')"
done"""


@pyinfra_deploy("Firewall")
def deploy(gateway: Gateway) -> None:
    """Write the rules and their units, and have them in force."""
    settings, files = gateway.settings, gateway.rendered.files
    present(name="Install iptables", commands={"iptables": "iptables"})
    paths = (render.SCRIPT, render.UNIT)
    put(name="Write the rules", files={path: files[path] for path in paths})
    started(name="Put the rules in force", unit=UNIT, newer_than=list(paths))
    if not settings.firewall_enabled:
        open_again(name="Remove what is off")
        return
    present(name="Install nftables", commands={"nft": "nftables"})
    own = (render.RULES, render.FILTER, render.FILTER_UNIT)
    put(name="Write what may come in", files={path: files[path] for path in own})
    closed(
        name="Let in only what is allowed",
        settings=settings,
        digest=files[render.RULES].sha256,
        peers=sorted(gateway.found.ssh_peers),
        kernel_udp=sorted(gateway.found.kernel_udp),
    )


@operation()
def closed(settings: Settings, digest: str, peers: list[str], kernel_udp: list[int]) -> Commands:
    """Ensure that the rules of this digest are in force, and that somebody can come in.

    New rules undo themselves unless this deploy confirms them over a new connection.
    """
    state = this_host.get_fact(
        Run,
        command=f"""
echo "{digest}  {render.KEPT}" | sha256sum --quiet -c >/dev/null 2>&1 || echo other
systemctl is-enabled --quiet {FILTER} 2>/dev/null || echo disabled
systemctl is-active --quiet {FILTER} || echo stopped
[ -e {render.KEPT} ] && {{ {_SCRIPT} same || echo changed; }}; true""",
    )["out"].split()
    if not state:
        this_host.noop("the rules are in force")
        return
    unheard = [str(port) for port in kernel_udp if port not in settings.firewall_udp_ports]
    if unheard:
        logger.warning(
            f"{this_host.print_prefix}UDP {', '.join(unheard)} is not in firewall_udp_ports, and "
            "the kernel listens there: where that is a VPN, nobody can call it any more"
        )
    yield StringCommand(f"{_SCRIPT} try {settings.firewall_undo_seconds}")
    yield FunctionCommand(_confirm, [settings, peers], {})


def _confirm(state: State, host: Host, settings: Settings, peers: list[str]) -> bool:
    """Come in by a new connection and say that the rules may stay; else undo them at once."""
    everything: dict[str, Any] = dict(pop_global_arguments(state, host, {})[0])
    arguments = {key: everything[key] for key in CONNECTOR_ARGUMENT_KEYS if key in everything}
    why = ""
    if host.connector_cls is LocalConnector:
        # Nobody comes in to deploy: those who are in have to be able to come in again.
        _, output = host.run_shell_command(StringCommand(_DEVICES.format(peers=" ".join(peers))))
        devices = dict(line.line.split() for line in output if len(line.line.split()) == 2)  # noqa: PLR2004 - peer and device
        why = _locked_out(settings, peers, devices)
    if not why:
        connector = host.connector_cls(state, host)
        try:
            connector.connect()
            done, output = connector.run_shell_command(
                StringCommand(f"{_SCRIPT} confirm"), **arguments
            )
            why = "" if done else "; ".join(line.line for line in output) or "it was refused"
        except Exception as error:  # noqa: BLE001 - whatever it is, nobody came in
            why = f"no new connection came in ({error})"
        finally:
            disconnect = getattr(connector, "disconnect", None)
            if disconnect:
                disconnect()
    if not why:
        return True
    # What is established stays so: this connection still works, most likely.
    host.run_shell_command(StringCommand(f"{_SCRIPT} undo"), **arguments)
    logger.error(
        f"{host.print_prefix}the firewall would lock you out: {why}. The rules before it are in "
        f"force again, at the latest in {settings.firewall_undo_seconds} s; look at "
        "firewall_ssh_networks (and at your way to the host), or set firewall_enabled = False"
    )
    return False


def _locked_out(settings: Settings, peers: list[str], devices: Mapping[str, str]) -> str:
    """Say who is logged in here over SSH from where SSH would not be let in.

    `devices`: the interface that each peer is answered by; whoever is on this host comes by `lo`.
    """
    networks = [ip_network(each) for each in settings.firewall_ssh_networks]
    trusted = ["lo", *settings.firewall_interfaces]
    outside = [
        peer
        for peer in peers
        if not any(ip_address(peer) in network for network in networks)
        and not any(fnmatchcase(devices.get(peer, ""), each) for each in trusted)
    ]
    return f"somebody is logged in from {', '.join(outside)}" if outside else ""


@operation()
def open_again() -> Commands:
    """Ensure that nothing is left of rules about what may come in."""
    files = (render.RULES, render.FILTER, render.FILTER_UNIT, render.KEPT)
    state = this_host.get_fact(
        Run,
        command=f"for file in {' '.join(files)}; do [ ! -e $file ] || echo $file; done; "
        "[ -x /usr/sbin/nft ] && nft list table inet gatehouse >/dev/null 2>&1 && "
        "echo loaded; true",
    )["out"].split()
    if not state:
        this_host.noop("nothing is left of such rules")
        return
    yield StringCommand(
        f"systemctl stop gatehouse-filter-undo.timer 2>/dev/null; "
        f"systemctl disable --now {FILTER} 2>/dev/null; "
        "{ ! nft list table inet gatehouse >/dev/null 2>&1 || nft delete table inet gatehouse; } "
        f"&& rm -f {' '.join(files)} && systemctl daemon-reload"
    )
