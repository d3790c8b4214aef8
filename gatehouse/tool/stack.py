"""The containers of the stack, as far as commands stop and start them."""

import json
import subprocess
import time
from typing import Any

from gatehouse.tool.errors import CannotLookError, ProblemError

_POLL_SECONDS = 0.5
_DOCKER_SECONDS = 120
# What these end has time to end by itself (settings `…_stop_grace_seconds`), one after the other.
_ENDING = ("stop", "restart", "rm", "compose")
_ENDING_SECONDS = 3600


def container(service: str) -> str:
    """Give the name of a service's container, as Compose gives it."""
    return f"gatehouse-{service}-1"


def docker(*arguments: str, text: str = "") -> str:
    """Run Docker's command with `text` as its standard input; give what it prints.

    Raises `CannotLookError` where there is no Docker, `ProblemError` where it refuses.
    """
    seconds = _ENDING_SECONDS if arguments[0] in _ENDING else _DOCKER_SECONDS
    try:
        done = subprocess.run(
            ["docker", *arguments],
            input=text,
            capture_output=True,
            text=True,
            check=False,
            timeout=seconds,
        )
    except FileNotFoundError:
        raise CannotLookError("docker is missing on this host: deploy again") from None
    except subprocess.TimeoutExpired:
        raise ProblemError(
            f"`docker {arguments[0]}` took longer than {seconds} s: systemctl status docker"
        ) from None
    if done.returncode:
        last = (done.stderr.strip() or done.stdout.strip() or "no word").splitlines()[-1]
        raise ProblemError(f"`docker {arguments[0]}` failed: {last}")
    return done.stdout


def stop(service: str) -> None:
    """Stop a service, however long it takes to end; there may be none.

    Raises as `docker` does: where it may still run, nobody goes on as if it did not.
    """
    try:
        docker("stop", container(service))
    except ProblemError as error:
        if "no such container" not in error.message.lower():
            raise


def state(service: str) -> dict[str, Any]:
    """Give Docker's state of a service's container; raises as `docker` does."""
    found: dict[str, Any] = json.loads(
        docker("inspect", "-f", "{{json .State}}", container(service))
    )
    return found


def health(service: str) -> str:
    """Give `healthy`, `starting`, `unhealthy`, or the status of one that does not run."""
    found = state(service)
    running = found.get("Status") == "running"
    return str((found.get("Health") or {}).get("Status", "healthy") if running else found["Status"])


def wait_healthy(service: str, seconds: float) -> None:
    """Wait until a service is healthy.

    Raises `ProblemError` with its last lines when it fails, or is not healthy in time.
    """
    end = time.monotonic() + seconds
    while (seen := health(service)) != "healthy":
        if seen in ("unhealthy", "dead") or time.monotonic() > end:
            raise ProblemError(f"{service} is {seen}; its last lines:\n{tail(service)}")
        time.sleep(_POLL_SECONDS)


def tail(service: str, lines: int = 10) -> str:
    """Give the last lines that a service wrote, indented."""
    done = subprocess.run(
        ["docker", "logs", "--tail", str(lines), container(service)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        check=False,
    )
    return "\n".join(f"  | {line}" for line in done.stdout.splitlines()[-lines:])
