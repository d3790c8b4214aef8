"""A second machine on the workstation's LAN: what it can reach, a stranger can."""

import json
from collections.abc import Iterable
from typing import Literal

from docker.models.containers import Container

from gatehouse.lab.common import run

Port = Literal["open", "closed", "filtered", "unreachable"]

_SCAN = """
import json, socket, sys
from concurrent.futures import ThreadPoolExecutor

address, seconds, ports = sys.argv[1], float(sys.argv[2]), [int(port) for port in sys.argv[3:]]

def state(port):
    try:
        socket.create_connection((address, port), timeout=seconds).close()
    except ConnectionRefusedError:
        return "closed"
    except TimeoutError:
        return "filtered"
    except OSError:
        return "unreachable"
    return "open"

with ThreadPoolExecutor(100) as pool:
    print(json.dumps(dict(zip(ports, pool.map(state, ports)))))
"""


class Neighbour:
    """A machine that shares the LAN and nothing else."""

    def __init__(self, container: Container, network: str) -> None:
        """Hold a container that runs on that Docker network."""
        self._container = container
        self._network = network

    @property
    def address(self) -> str:
        """Its IPv4 address on the LAN."""
        self._container.reload()
        return str(self._container.attrs["NetworkSettings"]["Networks"][self._network]["IPAddress"])

    def exec(self, *command: str) -> str:
        """Run a command as root and give its output; raises `LabError` when it fails."""
        return run(["docker", "exec", "-i", self._container.name or "", *command]).stdout

    def route(self, networks: Iterable[str], via: str) -> None:
        """Send what goes to these subnets (CIDR) to the machine at `via`."""
        for network in networks:
            self.exec("ip", "route", "replace", network, "via", via)

    def scan(
        self, address: str, ports: Iterable[int], timeout_seconds: float = 2
    ) -> dict[int, Port]:
        """Try to connect to each TCP port.

        Closed is refused, filtered is no answer within `timeout_seconds`, unreachable is no route.
        """
        wanted = [str(port) for port in ports]
        output = self.exec("python3", "-c", _SCAN, address, str(timeout_seconds), *wanted)
        return {int(port): state for port, state in json.loads(output).items()}
