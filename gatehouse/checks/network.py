"""Addresses: the stack listens where it was told to, and nowhere else."""

from gatehouse.checks.check import Check, equals
from gatehouse.settings import Settings


def checks(settings: Settings) -> list[Check]:
    """Give a check for each port, from the kernel's socket table, and for each network."""
    address = settings.network_bind_address
    ports = {
        "litellm": settings.litellm_port,
        "postgres": settings.postgres_port,
        "redis": settings.redis_port,
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
                name=f"network: {component} listens on {address}:{port} only",
                component="network",
                expected=f"{address}:{port}",
                command=f"ss -Hltn 'sport = :{port}' | awk '{{ print $4 }}' | sort -u",
                judge=equals(f"{address}:{port}"),
                fix=f"ss -ltnp 'sport = :{port}' shows who else listens: stop it",
            )
            for component, port in ports.items()
        ),
    ]
