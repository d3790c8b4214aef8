"""The stack's networks."""

from pyinfra import host
from pyinfra.api import StringCommand, operation

from gatehouse.deploys import Commands
from gatehouse.deploys.facts import PROJECT, Run


@operation()
def apart(subnets: dict[str, str]) -> Commands:
    """Remove the stack's containers and networks when a network has another subnet than wanted.

    Volumes stay. `subnets` is network → subnet in CIDR notation.
    """
    names = " ".join(f"{PROJECT}_{name}" for name in subnets)
    seen = host.get_fact(
        Run,
        command=f"docker network inspect {names} -f "
        "'{{.Name}} {{range .IPAM.Config}}{{.Subnet}}{{end}}' 2>/dev/null || true",
    )["out"]
    present = dict(line.split(maxsplit=1) for line in seen.splitlines() if " " in line)
    if all(present.get(f"{PROJECT}_{name}", subnet) == subnet for name, subnet in subnets.items()):
        host.noop("the networks are as they should be")
        return
    yield StringCommand(f"docker compose -p {PROJECT} down")
