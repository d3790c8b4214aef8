"""Addresses: the stack listens where it was told to, and nowhere else."""

from gatehouse.checks.check import Check, equals
from gatehouse.settings import Settings


def _port(place: str) -> str:
    return place.rpartition(":")[2]


def checks(settings: Settings) -> list[Check]:
    """Give a check for each port, from the kernel's socket table, and for each network."""
    address = settings.network_bind_address
    places = {
        "litellm": f"{address}:{settings.litellm_port}",
        "postgres": f"{address}:{settings.postgres_port}",
        "redis": f"{address}:{settings.redis_port}",
        "health": f"{settings.health_address}:{settings.health_port}",
        "metrics": f"{settings.health_address}:{settings.metrics_port}",
    }
    subnets = {"edge": settings.network_subnet, "inner": settings.network_inner_subnet}
    if any(not engine.command for engine in settings.active_engines):
        subnets["engines"] = settings.network_engines_subnet
    return [
        *(
            Check(
                name=f"network: {name} has its subnet",
                component="network",
                expected=str(subnet),
                command=f"docker network inspect gatehouse_{name} "
                "-f '{{range .IPAM.Config}}{{.Subnet}}{{end}}'",
                judge=equals(str(subnet)),
                fix="deploy again: pyinfra inventory deploy.py",
            )
            for name, subnet in subnets.items()
        ),
        *(
            Check(
                name=f"network: {component} listens on {place} only",
                component="network",
                expected=place,
                command=f"ss -Hltn 'sport = :{_port(place)}' | awk '{{ print $4 }}' | sort -u",
                judge=equals(place),
                fix=f"ss -ltnp 'sport = :{_port(place)}' shows who else listens: stop it",
            )
            for component, place in places.items()
        ),
    ]
