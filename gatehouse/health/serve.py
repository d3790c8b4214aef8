"""The unprivileged page: `python -m gatehouse.health.serve`, on the sockets that systemd holds."""

import argparse
import os
import socket
import sys

import uvicorn

from gatehouse.health.app import app
from gatehouse.health.ready import Gateway

_FIRST = 3
_AT_ONCE = 64


def sockets() -> list[socket.socket]:
    """Take over the sockets of the unit; none where systemd did not start us."""
    if os.environ.get("LISTEN_PID") != str(os.getpid()):
        return []
    count = int(os.environ.get("LISTEN_FDS", "0"))
    return [socket.socket(fileno=_FIRST + number) for number in range(count)]


def main() -> int:
    """Serve until told to stop; 2 where there is nothing to listen on."""
    parser = argparse.ArgumentParser(prog="gatehouse-health", description=__doc__)
    parser.add_argument("--gateway", required=True, help="address of LiteLLM, http://HOST:PORT")
    parser.add_argument("--host", action="append", default=[], help="a name to answer to")
    parser.add_argument("--metrics-port", type=int, required=True)
    options = parser.parse_args()
    given = sockets()
    if not given:
        print("gatehouse-health: start it by its unit, gatehouse-health.service", file=sys.stderr)  # noqa: T201 - the journal
        return 2
    config = uvicorn.Config(
        app(Gateway(options.gateway), options.host, options.metrics_port),
        access_log=False,
        lifespan="off",
        limit_concurrency=_AT_ONCE,
        log_level="warning",
        proxy_headers=False,
        server_header=False,
        timeout_graceful_shutdown=3,
        timeout_keep_alive=15,
    )
    uvicorn.Server(config).run(sockets=given)
    return 0


if __name__ == "__main__":
    sys.exit(main())
