"""A workstation to throw away: systemd as PID 1, sshd and a Docker engine of its own."""

import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import TracebackType
from typing import Self

import docker
from docker.models.containers import Container

from gatehouse.lab import access, machine, seed
from gatehouse.lab.access import Access
from gatehouse.lab.common import LABEL, OF_SEEDS, LabError, alone, run, wait_for
from gatehouse.lab.engine import engine
from gatehouse.lab.images import LabImages
from gatehouse.lab.neighbour import Neighbour
from gatehouse.lab.progress import Progress

BOOT_SECONDS = 120
STOP_SECONDS = 120
KILL_SECONDS = 20


class Workstation:
    """One workstation. `start` makes it; leaving the `with` block removes it."""

    def __init__(self, client: docker.DockerClient, container: Container, way_in: Access) -> None:
        """Hold a container that exists; use `start` or `find`."""
        self._client = client
        self._container = container
        self.access = way_in
        self.name = way_in.name

    @classmethod
    def start(  # noqa: PLR0913 - every argument after the image has a default
        cls,
        name: str,
        *,
        image: str,
        preload: LabImages | None = None,
        user: str = "root",
        settings: Mapping[str, object] | None = None,
        progress: Progress | None = None,
    ) -> Self:
        """Start a workstation, in place of one of the same name, and wait until it can be used.

        `preload`: images that its engine holds from the start; None leaves its engine empty.
        `user`: who logs in over SSH by default, root or operator. `settings`: data to add to the
        host in the inventory. Raises `LabError` when it does not come up; it is left for a look.
        """
        machine.check_name(name)
        progress = progress or Progress()
        client = engine(progress)
        remove(client, name)
        volume = machine.object_name(name)
        client.volumes.create(volume, labels={LABEL: name})
        if preload:
            with alone(progress):
                source = seeded(client, image, preload, progress)
                with progress.step("copying the gateway's images for the workstation"):
                    seed.copy(client, source, volume, image)
        way_in = access.create(name, user, machine.free_port(), settings or {})
        return cls.boot(client, image, volume, way_in, progress)

    @classmethod
    def find(cls, name: str, progress: Progress | None = None) -> Self:
        """Give the workstation of that name; raises `LabError` when there is none."""
        client = engine(progress or Progress())
        known = client.containers.list(all=True, filters={"label": f"{machine.ROLE}=workstation"})
        for container in known:
            if container.labels[LABEL] == name:
                return cls(client, container, machine.way_in(container))
        names = ", ".join(each.labels[LABEL] for each in known) or "none"
        raise LabError(
            f"no workstation {name!r} (there is: {names}): "
            f"start it with `python -m gatehouse.lab up {name}`"
        )

    def __enter__(self) -> Self:
        """Give the workstation itself."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Remove it."""
        self.stop()

    @property
    def container(self) -> str:
        """The name of its container."""
        return machine.object_name(self.name)

    @property
    def address(self) -> str:
        """Its IPv4 address on its LAN."""
        self._container.reload()
        networks = self._container.attrs["NetworkSettings"]["Networks"]
        return str(networks[machine.object_name(self.name)]["IPAddress"])

    def exec(
        self,
        command: str | Sequence[str],
        *,
        check: bool = True,
        text: str = "",
        timeout_seconds: float = 600,
    ) -> subprocess.CompletedProcess[str]:
        """Run a command inside as root; a string is a shell's, `text` is its standard input.

        Raises `LabError` when it fails and `check` is true, and when it takes too long.
        """
        words = ["bash", "-c", command] if isinstance(command, str) else list(command)
        whole = ["docker", "exec", "-i", self.container, *words]
        return run(whole, check=check, text=text, timeout_seconds=timeout_seconds)

    def ssh(
        self,
        command: str,
        *,
        user: str | None = None,
        check: bool = True,
        timeout_seconds: float = 600,
    ) -> subprocess.CompletedProcess[str]:
        """Run a command over SSH, as the default user or as `user`; raises as `exec` does."""
        host = f"{self.name}-{user}" if user else self.name
        whole = ["ssh", "-F", str(self.access.ssh_config), host, command]
        return run(whole, check=check, timeout_seconds=timeout_seconds)

    def restart(self, *, power_cut: bool = False, progress: Progress | None = None) -> None:
        """Reboot it and wait until it can be used; a power cut gives nothing time to stop."""
        access.close_connections(self.access)
        if power_cut:
            self._container.kill()
            self._container.start()
        else:
            self._container.restart(timeout=STOP_SECONDS)
        self._wait(progress or Progress())

    @contextmanager
    def neighbour(self) -> Iterator[Neighbour]:
        """Put a second machine on the LAN, whose way to the networks inside is this workstation."""
        container = self._client.containers.run(
            self._container.attrs["Config"]["Image"],
            ["sleep", "infinity"],
            name=f"{self.container}-neighbour",
            network=machine.object_name(self.name),
            cap_add=["NET_ADMIN", "NET_RAW"],
            init=True,
            labels={LABEL: self.name},
            detach=True,
        )
        try:
            neighbour = Neighbour(container, machine.object_name(self.name))
            neighbour.route(self.inner_networks(), via=self.address)
            yield neighbour
        finally:
            container.remove(force=True)

    def inner_networks(self) -> list[str]:
        """Give the IPv4 subnets (CIDR) of the bridges inside."""
        routes = self.exec("ip -4 route show scope link").stdout.splitlines()
        return [line.split()[0] for line in routes if " dev eth0 " not in line]

    def stop(self) -> None:
        """Remove it with all that belongs to it."""
        remove(self._client, self.name)

    @classmethod
    def boot(
        cls,
        client: docker.DockerClient,
        image: str,
        volume: str,
        way_in: Access,
        progress: Progress,
    ) -> Self:
        """Start a workstation on a volume that is there, and wait until it can be used."""
        station = cls(client, machine.create(client, image, volume, way_in), way_in)
        station._wait(progress)
        return station

    def _wait(self, progress: Progress) -> None:
        with progress.step(f"waiting for the workstation {self.name}"):
            wait_for("systemd", self._systemd_trouble, BOOT_SECONDS)
            wait_for("an answer over SSH", self._ssh_trouble, BOOT_SECONDS)
            if not self.exec("command -v dockerd", check=False).returncode:
                wait_for("the Docker engine inside", self._engine_trouble, BOOT_SECONDS)

    def _systemd_trouble(self) -> str | None:
        self._container.reload()
        if self._container.status != "running":
            log = self._container.logs(tail=20).decode(errors="replace")
            status = self._container.status
            raise LabError(f"the workstation {self.name} is {status}; the end of its log:\n{log}")
        found = self.exec(["systemctl", "is-system-running"], check=False)
        if found.stdout.strip() in {"running", "degraded"}:
            return None
        return (found.stdout or found.stderr).strip()

    def _ssh_trouble(self) -> str | None:
        # A connection of its own: a shared one would say nothing about the next.
        options = ["-o", "ControlMaster=no", "-o", "ControlPath=none", "-o", "ConnectTimeout=5"]
        whole = ["ssh", "-F", str(self.access.ssh_config), *options, self.name, "true"]
        found = run(whole, check=False, timeout_seconds=15)
        return (found.stderr.strip() or "no answer") if found.returncode else None

    def _engine_trouble(self) -> str | None:
        found = self.exec(["docker", "info", "--format", "{{.ServerVersion}}"], check=False)
        return found.stderr.strip() if found.returncode else None


def seeded(client: docker.DockerClient, image: str, images: LabImages, progress: Progress) -> str:
    """Give the volume that is a Docker data root with these images; it is made once.

    The caller holds `common.alone`.
    """
    name = seed.volume_name(client, images)
    # One that is there was left by a killed run: nobody else is here at this time.
    remove(client, seed.WORKSTATION)
    if seed.usable(client, name, image):
        return name
    client.volumes.create(name, labels={LABEL: OF_SEEDS})
    way_in = access.create(seed.WORKSTATION, "root", machine.free_port(), {})
    with Workstation.boot(client, image, name, way_in, progress) as station:
        seed.load(station.container, images, progress)
        station.exec("systemctl stop docker.socket docker.service containerd.service")
    seed.finish(client, name, image)
    return name


def remove(client: docker.DockerClient, name: str) -> bool:
    """Remove all that a workstation of that name has, or what a killed run has left of it.

    Tells whether there was anything.
    """
    mine: dict[str, str | list[str] | bool] = {"label": f"{LABEL}={name}"}
    containers = client.containers.list(all=True, filters=mine)
    for container in containers:
        _stop_inner(container)
        container.remove(force=True, v=True)
    networks = client.networks.list(filters=mine)
    for network in networks:
        network.remove()
    volumes = client.volumes.list(filters=mine)
    for volume in volumes:
        volume.remove(force=True)
    access.remove(Access(name, "root", 0))
    return bool(containers or networks or volumes)


def _stop_inner(container: Container) -> None:
    """Kill the containers inside first.

    On cgroup v1 their groups lie beside the workstation's own and are left over otherwise.
    """
    if container.labels.get(machine.ROLE) == "workstation" and container.status == "running":
        script = "command -v docker && docker ps -q | xargs -r docker kill"
        whole = ["docker", "exec", container.name or "", "timeout", str(KILL_SECONDS), "sh", "-c"]
        run([*whole, script], check=False)
