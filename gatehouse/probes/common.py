"""What the probes share: Docker's API, the release's manifest, and how answers are printed."""

import contextlib
import grp
import http.client
import json
import pwd
import socket
import stat
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

DOCKER = "/var/run/docker.sock"
DAEMON_JSON = "/etc/docker/daemon.json"
CURRENT = "/opt/gatehouse/current"
SECONDS = 10.0
OK = 200
MOST_CHARACTERS = 300


class Local(http.client.HTTPConnection):
    """A connection to Docker's socket."""

    def connect(self) -> None:
        """Connect."""
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(SECONDS)
        try:
            self.sock.connect(DOCKER)
        except OSError as error:
            raise OSError(
                f"Docker does not listen at {DOCKER}: {error.strerror or error}"
            ) from None


def docker(path: str) -> bytes:
    """Ask Docker's API; raises `OSError`."""
    with contextlib.closing(Local("docker")) as connection:
        connection.request("GET", path)
        answer = connection.getresponse()
        body = answer.read()
    if answer.status != OK:
        said = body.decode(errors="replace").strip()
        raise OSError(f"Docker answered {answer.status} to {path}: {said}")
    return body


def docker_root() -> str:
    """Give where Docker keeps images and volumes: as it says, as it is told, or its default."""
    with contextlib.suppress(OSError):
        return str(json.loads(docker("/info"))["DockerRootDir"])
    with contextlib.suppress(OSError, ValueError, KeyError):
        return str(json.loads(Path(DAEMON_JSON).read_text())["data-root"])
    return "/var/lib/docker"


def containers() -> list[dict[str, Any]]:
    """Give what Docker says of each container of the stack; raises `OSError`."""
    wanted = "%7B%22label%22%3A%5B%22com.docker.compose.project%3Dgatehouse%22%5D%7D"
    found = json.loads(docker(f"/containers/json?all=true&filters={wanted}"))
    return [json.loads(docker(f"/containers/{each['Id']}/json")) for each in found]


def manifest() -> dict[str, Any]:
    """Give what the current release placed on the host; raises `OSError` or `ValueError`."""
    found: dict[str, Any] = json.loads(Path(CURRENT, "manifest.json").read_text())
    return found


def rights(path: str) -> str:
    """Give mode, owner and group of a path, as `750 root gatehouse`; raises `OSError`."""
    found = Path(path).lstat()
    owner, group = str(found.st_uid), str(found.st_gid)
    with contextlib.suppress(KeyError):
        owner = pwd.getpwuid(found.st_uid).pw_name
    with contextlib.suppress(KeyError):
        group = grp.getgrgid(found.st_gid).gr_name
    return f"{stat.S_IMODE(found.st_mode):o} {owner} {group}"


def tell(questions: dict[str, Callable[[], object]], at_once: int = 1) -> None:
    """Print the answers as one document; what could not be asked is below `errors`."""
    document: dict[str, object] = {}
    errors: dict[str, str] = {}

    def ask(name: str) -> None:
        try:
            document[name] = questions[name]()
        except Exception as error:  # noqa: BLE001 - whatever it is, the other answers count
            errors[name] = f"{type(error).__name__}: {error}"[:MOST_CHARACTERS]

    with ThreadPoolExecutor(at_once) as pool:
        list(pool.map(ask, questions))
    sys.stdout.write(json.dumps({**document, "errors": errors}) + "\n")


def first_child(pid: int) -> int:
    """Give the process that a container's init runs."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return int(children[0]) if children else pid


def process_of(service: str, found: list[dict[str, Any]]) -> Iterator[int]:
    """Give the main process of each running container of a service."""
    for each in found:
        labels = each["Config"]["Labels"]
        if labels.get("com.docker.compose.service") == service and each["State"]["Pid"]:
            yield int(each["State"]["Pid"])
