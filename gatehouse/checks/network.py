"""Addresses: the stack listens where it was told to, nowhere else, and nobody in its place."""

import re
from collections.abc import Callable

from gatehouse.checks.check import Check, Result
from gatehouse.checks.docker import ANSWERS, STACK
from gatehouse.checks.probe import Judge, nothing, of
from gatehouse.settings import Settings

# The kernel's table of listening sockets, with their processes.
SOCKETS = "ss -Hltnp"
OURS = "network: no port of ours is held by somebody else"
_HOLDER = re.compile(r'\("([^"]+)",pid=(\d+)')
_ADDRESS, _PROCESS = 3, 5
_SYSTEMD: tuple[str, ...] = ("systemd",)
# Where userland-proxy is false (CIS 2.16), the daemon holds the ports of containers itself.
_DOCKER: tuple[str, ...] = ("docker-proxy", "dockerd")
# systemd listens for these; their check, where it is not the one of a container.
_SERVED_BY = dict.fromkeys(("health", "metrics"), "health: the page is served")


def listening(output: str, port: int) -> list[tuple[str, list[tuple[str, str]]]]:
    """Give the sockets on a port: the address, and the name and number of who holds it."""
    found = []
    for line in output.splitlines():
        words = line.split(maxsplit=_PROCESS)
        if len(words) > _ADDRESS and words[_ADDRESS].rpartition(":")[2] == str(port):
            holders = _HOLDER.findall(words[_PROCESS]) if len(words) > _PROCESS else []
            found.append((words[_ADDRESS], holders))
    return found


def only(expected: list[str]) -> Judge:
    """Judge that a port is open at these addresses and at no other."""

    def judge(code: int, output: str) -> Result:
        seen = sorted({place for place, _ in listening(output, int(_port(expected)))})
        return Result(code == 0 and seen == expected, ", ".join(seen) or "nobody")

    return judge


def held_by(ports: dict[int, tuple[str, ...]]) -> Judge:
    """Judge that who listens on each port, if anybody does, is a process of one of its names."""

    def judge(code: int, output: str) -> Result:
        if code or not output.strip():
            return Result(holds=False, found=output.strip() or f"nothing (exit code {code})")
        strangers = [
            f"{place} is held by " + (" and ".join(f"{n} (process {pid})" for n, pid in holders))
            for port, names in ports.items()
            for place, holders in listening(output, port)
            if holders and not {holder for holder, _ in holders} & {*names}
        ]
        return nothing(strangers)

    return judge


def _port(places: list[str]) -> str:
    return places[0].rpartition(":")[2]


def checks(settings: Settings) -> list[Check]:
    """Give a check for each port, from the kernel's socket table, and for each network."""
    address = settings.network_bind_address
    places = {
        "litellm": [f"{address}:{settings.litellm_port}"],
        "postgres": [f"{address}:{settings.postgres_port}"],
        "redis": [f"{address}:{settings.redis_port}"],
        "health": [f"{settings.health_address}:{settings.health_port}"],
        "metrics": sorted(settings.metrics_addresses),
    }
    subnets = {"edge": settings.network_subnet, "inner": settings.network_inner_subnet}
    if any(not engine.command for engine in settings.active_engines):
        subnets["engines"] = settings.network_engines_subnet
    # Docker listens for containers, systemd for engines and the page.
    holders = {
        int(_port(here)): _SYSTEMD if component in _SERVED_BY else _DOCKER
        for component, here in places.items()
    } | {engine.port: _SYSTEMD for engine in settings.active_engines}
    return [
        *(
            Check(
                name=f"network: {name} has its subnet",
                component="network",
                expected=str(subnet),
                command=STACK,
                judge=of("networks", _subnet(name, str(subnet))),
                fix="deploy again: pyinfra inventory deploy.py",
                needs=(ANSWERS,),
            )
            for name, subnet in subnets.items()
        ),
        Check(
            name=OURS,
            component="network",
            expected="Docker's and systemd's own processes, or nobody",
            command=SOCKETS,
            judge=held_by(holders),
            fix="systemctl status PROCESS says which unit that process is of: stop it, or kill it",
        ),
        *(
            Check(
                name=f"network: {component} listens on {' and '.join(here)} only",
                component="network",
                expected=", ".join(here),
                command=SOCKETS,
                judge=only(here),
                fix=f"ss -ltnp 'sport = :{_port(here)}' shows who else listens: stop it",
                needs=(OURS, _SERVED_BY.get(component, f"{component}: healthy")),
            )
            for component, here in places.items()
        ),
    ]


def _subnet(name: str, expected: str) -> Callable[[dict[str, str]], Result]:
    def judge(networks: dict[str, str]) -> Result:
        found = networks.get(name, "no such network")
        return Result(found == expected, found)

    return judge
