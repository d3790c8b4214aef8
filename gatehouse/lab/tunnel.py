"""A way to a loopback port of a workstation, as an operator at another machine has it."""

import socket
import subprocess
from collections.abc import Iterator
from contextlib import closing, contextmanager

from gatehouse.lab.common import wait_for
from gatehouse.lab.machine import free_port
from gatehouse.lab.workstation import Workstation

SECONDS = 60


@contextmanager
def tunnel(workstation: Workstation, port: int) -> Iterator[int]:
    """Forward a free local port to 127.0.0.1:`port` of the workstation over SSH, and give it."""
    local = free_port()
    way_in = workstation.access
    command = ["ssh", "-F", str(way_in.ssh_config), "-o", "ControlPath=none", "-N"]
    process = subprocess.Popen([*command, "-L", f"{local}:127.0.0.1:{port}", way_in.name])
    try:
        wait_for(f"the tunnel to port {port}", lambda: _trouble(local), SECONDS)
        yield local
    finally:
        process.terminate()
        process.wait()


def _trouble(port: int) -> str | None:
    with closing(socket.socket()) as client:
        client.settimeout(5)
        code = client.connect_ex(("127.0.0.1", port))
    return f"error {code}" if code else None
