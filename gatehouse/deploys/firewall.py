"""The firewall: neighbours do not reach the stack's networks, whatever the engine's version."""

from pyinfra.api.deploy import deploy as pyinfra_deploy

from gatehouse.deploys.files import put
from gatehouse.deploys.gateway import Gateway
from gatehouse.deploys.packages import present
from gatehouse.deploys.unit import started

UNIT = "gatehouse-firewall.service"


@pyinfra_deploy("Firewall")
def deploy(gateway: Gateway) -> None:
    """Write the rules and their unit, and have them in force."""
    present(name="Install iptables", commands={"iptables": "iptables"})
    paths = ("/etc/gatehouse/firewall.sh", f"/etc/systemd/system/{UNIT}")
    files = {path: gateway.rendered.files[path] for path in paths}
    put(name="Write the rules", files=files)
    started(name="Put the rules in force", unit=UNIT, newer_than=list(paths))
