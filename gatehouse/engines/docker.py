"""The few words with Docker that an engine's life needs."""

import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gatehouse.engines import http1
from gatehouse.engines.errors import EngineError

_OK, _MISSING = 200, 404


@dataclass(frozen=True)
class Container:
    """What Docker knows about an engine's container."""

    pid: int
    running: bool
    networks: tuple[str, ...]
    config: str | None


class Docker:
    """Docker's API on its socket."""

    def __init__(self, path: Path, seconds: float = 15) -> None:
        """Talk to the engine that listens there."""
        self._path = str(path)
        self._seconds = seconds

    def container(self, name: str) -> Container | None:
        """Give a container; None when there is none of that name."""
        code, found = self._get(f"/containers/{name}/json")
        if code == _MISSING:
            return None
        networks = (found.get("NetworkSettings") or {}).get("Networks") or {}
        return Container(
            pid=found["State"]["Pid"],
            running=found["State"]["Running"],
            # A container that never ran knows its networks by name only.
            networks=tuple(each.get("NetworkID") or key for key, each in networks.items()),
            config=(found["Config"].get("Labels") or {}).get("com.docker.compose.config-hash"),
        )

    def has_network(self, network: str) -> bool:
        """Say whether a network is there, by its id or its name."""
        return self._get(f"/networks/{network}")[0] != _MISSING

    def kill(self, name: str, seconds: float = 10) -> None:
        """End a container now and wait until it is gone: its memory is free then, not before."""
        self._ask("POST", f"/containers/{name}/kill")
        end = time.monotonic() + seconds
        while (found := self.container(name)) and found.running:
            if time.monotonic() > end:
                raise EngineError(f"the container {name} does not die: `docker inspect {name}`")
            time.sleep(0.05)

    def _get(self, target: str) -> tuple[int, dict[str, Any]]:
        code, body = self._ask("GET", target)
        if code not in (_OK, _MISSING):
            raise EngineError(f"Docker answered {code} to {target}: {body.decode()[:200]}")
        return code, json.loads(body)

    def _ask(self, method: str, target: str) -> tuple[int, bytes]:
        try:
            return http1.over_unix(self._path, method, target, self._seconds)
        except PermissionError:
            raise
        except OSError as error:
            raise EngineError(
                f"Docker does not answer on {self._path} ({error}): `sudo systemctl status docker`"
            ) from error
