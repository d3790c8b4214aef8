"""The Docker engine that carries the lab: the one that answers, else one that is started here."""

import os
import shutil
import subprocess
from pathlib import Path

import docker
from docker.errors import DockerException

from gatehouse.lab.common import BUILD, LabError, run, wait_for
from gatehouse.lab.progress import Progress

START_SECONDS = 60
# Copying a volume of images is one call; the SDK's own minute is too short for it.
CALL_SECONDS = 900


def engine(progress: Progress) -> docker.DockerClient:
    """Give a client of an engine that answers.

    Where none answers, root on Debian or Ubuntu gets one installed and started; anybody else gets a
    `LabError` that says what to install.
    """
    trouble = _trouble()
    if trouble is None:
        return _client()
    if os.geteuid() != 0 or not shutil.which("apt-get") or os.environ.get("DOCKER_HOST"):
        raise LabError(
            f"no Docker engine answers ({trouble}): install docker.io, start it with "
            "`sudo systemctl start docker`, and add yourself to the group docker"
        )
    install({"dockerd": "docker.io", "iptables": "iptables", "docker": "docker-cli"}, progress)
    with progress.step("starting a Docker engine"):
        _start()
    return _client()


def install(packages: dict[str, str], progress: Progress) -> None:
    """Install Debian packages, given by the program each is needed for, if the program is missing.

    Raises `LabError` when a program is missing and cannot be installed.
    """
    missing = {package for program, package in packages.items() if not shutil.which(program)}
    if not missing:
        return
    names = " ".join(sorted(missing))
    if os.geteuid() != 0 or not shutil.which("apt-get"):
        raise LabError(
            f"missing on this machine: {names}; install with `sudo apt-get install {names}`"
        )
    with progress.step(f"installing {names}"):
        run_logged(["apt-get", "update"], "apt")
        command = ["apt-get", "install", "-y", "--no-install-recommends"]
        run_logged(
            [*command, *sorted(map(_packaged, missing))],
            "apt",
            {"DEBIAN_FRONTEND": "noninteractive"},
        )


def run_logged(command: list[str], log: str, environment: dict[str, str] | None = None) -> None:
    """Run a command with its output in `build/lab/LOG.log`.

    Raises `LabError` with the end of that output when the command fails.
    """
    BUILD.mkdir(parents=True, exist_ok=True)
    path = BUILD / f"{log}.log"
    with path.open("w") as output:
        status = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env={**os.environ, **(environment or {})},
            check=False,
        ).returncode
    if status:
        tail = "\n".join(path.read_text(errors="replace").splitlines()[-25:])
        raise LabError(f"`{' '.join(command[:3])} …` failed ({status}); the end of {path}:\n{tail}")


def _packaged(package: str) -> str:
    """Give the name that this release has: before Debian 13 the client is part of docker.io."""
    if package != "docker-cli":
        return package
    found = run(["apt-cache", "show", package], check=False)
    return "docker.io" if found.returncode else package


def _client() -> docker.DockerClient:
    return docker.from_env(timeout=CALL_SECONDS)


def _trouble() -> str | None:
    try:
        client = docker.from_env(timeout=10)
        client.ping()
    except DockerException as error:
        return str(error)
    return None


def _start() -> None:
    if Path("/run/systemd/system").is_dir():
        run_logged(["systemctl", "start", "docker"], "dockerd")
    else:
        BUILD.mkdir(parents=True, exist_ok=True)
        with (BUILD / "dockerd.log").open("w") as output:
            # A session of its own: it outlives this run and is not stopped by Ctrl-C.
            subprocess.Popen(
                ["dockerd"],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
    wait_for(f"the Docker engine (its log: {BUILD / 'dockerd.log'})", _trouble, START_SECONDS)
