"""A machine to throw away: a real kernel under QEMU, with KVM where it works, else emulated.

QEMU runs in a container of ours, as Debian 13 packages it: the one of Debian 12 (7.2) crashes this
kernel under emulation. The disks are in that container's volume.
"""

import io
import shlex
import subprocess
from collections.abc import Mapping, Sequence
from typing import Self

import docker
from docker.errors import ContainerError, NotFound
from docker.models.containers import Container

from gatehouse.lab import access, machine, seed
from gatehouse.lab.access import Access
from gatehouse.lab.common import LABEL, OF_HELPERS, LabError, alone, run, wait_for
from gatehouse.lab.engine import engine
from gatehouse.lab.images import LabImages, ensure_vm
from gatehouse.lab.progress import Progress
from gatehouse.lab.workstation import Workstation, remove, seeded

# Emulated, this kernel needs half a minute to answer; what a boot starts and waits for, minutes.
BOOT_SECONDS = 1800
DISK_GIB = 30
DATA_GIB = 16
MEMORY_MIB = 6144
PROCESSORS = 2
# Docker's own layers stay as they are: this is one more.
_MORE_SECONDS = """set -e
docker create --name patient {image}
folder=$(docker run --rm --network none --entrypoint python3 {image} -c \\
    'import importlib.util as i; print(i.find_spec("prisma").submodule_search_locations[0])')
docker cp patient:"$folder/_constants.py" /tmp/constants.py
sed -i '/DEFAULT_CONNECT_TIMEOUT/s/seconds=10)/seconds=180)/' /tmp/constants.py
grep -q 'seconds=180' /tmp/constants.py
docker cp /tmp/constants.py patient:"$folder/_constants.py"
docker commit patient {image} && docker rm patient"""
_IDENTITY = "cat /proc/sys/kernel/random/boot_id"


class Vm:
    """One machine. `start` makes it, `remove` removes it."""

    def __init__(self, client: docker.DockerClient, container: Container, way_in: Access) -> None:
        """Hold a container that exists; use `start` or `find`."""
        self._client = client
        self._container = container
        self.access = way_in
        self.name = way_in.name

    @classmethod
    def start(
        cls,
        name: str,
        *,
        preload: LabImages,
        settings: Mapping[str, object] | None = None,
        progress: Progress | None = None,
    ) -> Self:
        """Make a Debian 13 of packages, with nothing on it, and boot it.

        A second disk is a Docker data root that holds `preload`: to carry images over takes a
        quarter of an hour under emulation. Nobody but `operator` logs in, with sudo. Raises
        `LabError` when it does not come up; it is left for a look.
        """
        machine.check_name(name)
        progress = progress or Progress()
        client = engine(progress)
        remove(client, name)
        image = ensure_vm(client, progress)
        volume = machine.object_name(name)
        client.volumes.create(volume, labels={LABEL: name})
        way_in = access.create(name, "operator", machine.free_port(), settings or {})
        with progress.step("making a Debian 13 machine of packages"):
            _disk(image, volume, way_in)
        with alone(progress):
            source = seeded(client, preload.host, preload, progress)
            if preload.source == "built":
                source = _patient(client, preload, source, name, progress)
            with progress.step("making a disk of the gateway's images"):
                _data(client, image, volume, source)
            if preload.source == "built":
                client.volumes.get(source).remove()
        container = _create(client, image, volume, way_in)
        container.start()
        booted = cls(client, container, way_in)
        booted.wait(progress)
        return booted

    @classmethod
    def find(cls, name: str, progress: Progress | None = None) -> Self | None:
        """Give the machine of that name, if there is one; it may be switched off."""
        client = engine(progress or Progress())
        try:
            container = client.containers.get(machine.object_name(name))
        except NotFound:
            return None
        if container.labels.get(machine.ROLE) != "vm":
            return None
        return cls(client, container, machine.way_in(container))

    def remove(self) -> None:
        """Remove it with all that belongs to it."""
        remove(self._client, self.name)

    @property
    def accelerator(self) -> str:
        """What it runs on: `kvm`, or `tcg,thread=multi` for emulation."""
        log = self._container.logs().decode(errors="replace")
        return log.partition("boot: accelerator ")[2].partition("\n")[0].strip()

    def exec(
        self,
        command: str | Sequence[str],
        *,
        check: bool = True,
        text: str = "",
        timeout_seconds: float = 1800,
    ) -> subprocess.CompletedProcess[str]:
        """Run a command as root, over SSH and sudo; `text` is its standard input.

        Raises `LabError` when it fails and `check` is true, and when it takes too long.
        """
        words = ["bash", "-c", command] if isinstance(command, str) else list(command)
        whole = ["ssh", "-F", str(self.access.ssh_config), self.name, "sudo", shlex.join(words)]
        return run(whole, check=check, text=text, timeout_seconds=timeout_seconds)

    def reboot(self, progress: Progress | None = None) -> None:
        """Reboot it in an orderly way and wait until it can be used."""
        before = self.exec(_IDENTITY).stdout
        self.exec("systemctl --no-block reboot", check=False)
        access.close_connections(self.access)
        wait_for("another boot", lambda: self._same_boot(before), BOOT_SECONDS, every_seconds=2)
        self.wait(progress or Progress())

    def cut_power(self) -> None:
        """Kill QEMU, as a power cut does: what the guest has not written to its disk is gone."""
        self._container.kill()
        self._container.wait()
        access.close_connections(self.access)

    def switch_on(self, progress: Progress | None = None) -> None:
        """Start it again and wait until it can be used."""
        self._container.start()
        self.wait(progress or Progress())

    def wait(self, progress: Progress) -> None:
        """Wait until it has booted, and its Docker engine answers where it has one."""
        with progress.step(f"waiting for the machine {self.name}"):
            wait_for("an answer over SSH", self._ssh_trouble, BOOT_SECONDS, every_seconds=2)
            wait_for("systemd", self._systemd_trouble, BOOT_SECONDS, every_seconds=2)
            if not self.exec("command -v dockerd", check=False).returncode:
                wait_for("its Docker engine", self._engine_trouble, BOOT_SECONDS, every_seconds=2)

    def _same_boot(self, before: str) -> str | None:
        seen = self._once(_IDENTITY)
        return None if seen.returncode == 0 and seen.stdout != before else "the old one, or none"

    def _once(self, command: str) -> subprocess.CompletedProcess[str]:
        """Run a command over a connection of its own: a shared one outlives what it led to."""
        options = ["-o", "ControlMaster=no", "-o", "ControlPath=none", "-o", "ConnectTimeout=20"]
        whole = ["timeout", "40", "ssh", "-F", str(self.access.ssh_config), *options, self.name]
        return run([*whole, command], check=False)

    def _ssh_trouble(self) -> str | None:
        self._container.reload()
        if self._container.status != "running":
            log = self._container.logs(tail=20).decode(errors="replace")
            raise LabError(f"QEMU of {self.name} is {self._container.status}; its end:\n{log}")
        found = self._once("true")
        return (found.stderr.strip() or "no answer") if found.returncode else None

    def _systemd_trouble(self) -> str | None:
        found = self.exec(["systemctl", "is-system-running"], check=False)
        state = found.stdout.strip()
        return None if state in {"running", "degraded"} else state or found.stderr.strip()

    def _engine_trouble(self) -> str | None:
        found = self.exec(["docker", "info", "--format", "{{.ServerVersion}}"], check=False)
        return found.stderr.strip() if found.returncode else None


def _create(client: docker.DockerClient, image: str, volume: str, way_in: Access) -> Container:
    return client.containers.create(
        image,
        name=machine.object_name(way_in.name),
        labels={LABEL: way_in.name, machine.ROLE: "vm", machine.USER: way_in.user},
        # The guest sees who connects with an address of this network. Were it Docker's own default
        # one, it would lose him as soon as its Docker has that, too.
        network=machine.lan(client, way_in.name),
        ports={"22/tcp": ("127.0.0.1", way_in.port)},
        volumes={volume: {"bind": "/vm", "mode": "rw"}},
        environment={"MEMORY_MIB": str(MEMORY_MIB), "PROCESSORS": str(PROCESSORS)},
        devices=["/dev/kvm"] if machine.has_kvm() else [],
    )


def _disk(image: str, volume: str, way_in: Access) -> None:
    """Make the system disk; what lets its users in goes through standard input."""
    whole = [
        *("docker", "run", "--rm", "--interactive", "--pull", "never", "--network", "host"),
        *("--label", f"{LABEL}={way_in.name}", "--volume", f"{volume}:/vm", "--cap-add=SYS_ADMIN"),
        *(image, "disk", way_in.name, str(DISK_GIB)),
    ]
    done = subprocess.run(
        whole, input=access.container_files(way_in), capture_output=True, check=False
    )
    if done.returncode:
        log = (done.stdout + done.stderr).decode(errors="replace")[-3000:]
        raise LabError(f"the machine's disk could not be made ({done.returncode}):\n{log}")


def _patient(
    client: docker.DockerClient, images: LabImages, source: str, name: str, progress: Progress
) -> str:
    """Give a data root like `source`, in which LiteLLM gives the engine of its database more time.

    The lab's stand-in for Prisma's engine is WebAssembly, compiled at each start: emulated, that
    takes longer than the ten seconds that are enough for the native one.
    """
    volume = f"{machine.object_name(name)}-images"
    client.volumes.create(volume, labels={LABEL: name})
    way_in = access.create(f"{name}-images", "root", machine.free_port(), {})
    with progress.step("giving LiteLLM's image the patience of an emulated machine"):
        seed.copy(client, source, volume, images.host)
        with Workstation.boot(client, images.host, volume, way_in, Progress(io.StringIO())) as host:
            host.exec(_MORE_SECONDS.format(image=images.litellm))
            host.exec("systemctl stop docker.socket docker.service containerd.service")
            host.exec("rm -f /var/lib/docker/engine-id")
    return volume


def _data(client: docker.DockerClient, image: str, volume: str, source: str) -> None:
    try:
        client.containers.run(
            image,
            ["data", str(DATA_GIB)],
            volumes={
                volume: {"bind": "/vm", "mode": "rw"},
                source: {"bind": "/seed", "mode": "ro"},
            },
            # overlay2 notes replaced folders in trusted.* attributes, copied with this only.
            cap_add=["SYS_ADMIN"],
            network_mode="none",
            labels={LABEL: OF_HELPERS},
            remove=True,
        )
    except ContainerError as error:
        raise LabError(f"the disk of images could not be made: {error}") from error
