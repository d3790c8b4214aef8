"""The container that plays a machine: its LAN, its port for SSH, what systemd needs as PID 1."""

import re
import socket
from pathlib import Path

import docker
from docker.errors import APIError
from docker.models.containers import Container
from docker.types import IPAMConfig, IPAMPool

from gatehouse.lab import access
from gatehouse.lab.access import Access
from gatehouse.lab.common import LABEL, PREFIX, LabError, run

# Addresses of the LANs, one /24 each: private as a LAN's are, and apart from Docker's own pools.
LAN = "10.213"
ROLE = f"{LABEL}.role"
USER = f"{LABEL}.user"

# systemd 256 and later start on the old hierarchy only when told twice.
_FORCE = "systemd.unified_cgroup_hierarchy=0 SYSTEMD_CGROUP_ENABLE_LEGACY_FORCE=1"
CGROUP_1 = [
    "--cgroupns=host",
    "--volume=/sys/fs/cgroup:/sys/fs/cgroup:rw",
    f"--env=SYSTEMD_PROC_CMDLINE={_FORCE}",
]
CGROUP_2 = ["--cgroupns=private"]
# In a namespace of its own the hierarchy is mounted read-only, which systemd leaves as it is.
COMMAND_2 = ["/bin/sh", "-c", "mount -o remount,rw /sys/fs/cgroup && exec /sbin/init"]


def create(client: docker.DockerClient, image: str, volume: str, way_in: Access) -> Container:
    """Create and start the container and its network; `volume` becomes its /var/lib/docker."""
    network = lan(client, way_in.name)
    version = str(client.info().get("CgroupVersion", "1"))
    labels = {LABEL: way_in.name, ROLE: "workstation", USER: way_in.user}
    # By the command line, because the SDK has no way to say `systempaths=unconfined`; and not
    # `--privileged`, which fails on a machine that itself lacks a capability.
    run(
        [
            *("docker", "create", "--pull", "never"),
            *("--name", object_name(way_in.name), "--hostname", way_in.name),
            *("--network", network, "--publish", f"127.0.0.1:{way_in.port}:22"),
            *(f"--label={name}={value}" for name, value in labels.items()),
            *("--cap-add", "ALL", "--cap-drop", "SYS_RESOURCE"),
            *("--security-opt", "seccomp=unconfined", "--security-opt", "apparmor=unconfined"),
            *("--security-opt", "systempaths=unconfined"),
            *("--device-cgroup-rule", "a *:* rwm"),
            *("--tmpfs", "/run", "--tmpfs", "/tmp:exec"),  # noqa: S108 - inside the container
            *("--env", "container=docker"),
            *("--volume", f"{volume}:/var/lib/docker"),
            *(CGROUP_1 if version == "1" else CGROUP_2),
            image,
            *([] if version == "1" else COMMAND_2),
        ]
    )
    container = client.containers.get(object_name(way_in.name))
    container.put_archive("/", access.container_files(way_in))
    container.start()
    return container


def way_in(container: Container) -> Access:
    """Give the way in to a container that plays a machine, as it was made."""
    port = int(container.attrs["HostConfig"]["PortBindings"]["22/tcp"][0]["HostPort"])
    return Access(container.labels[LABEL], container.labels[USER], port)


def check_name(name: str) -> None:
    """Raise `LabError` when a workstation cannot have that name."""
    if not re.fullmatch(r"[a-z][a-z0-9-]{0,30}", name):
        raise LabError(f"the name is {name!r}: expected a-z, then a-z, 0-9 and -, 31 at most")


def object_name(name: str) -> str:
    """Name the container, the network and the volume of a workstation."""
    return f"{PREFIX}-{name}"


def free_port() -> int:
    """Give a TCP port of 127.0.0.1 that nobody listens on.

    Chosen here and not by the engine, which would choose another at each restart.
    """
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def has_kvm() -> bool:
    """Say whether there is a device to try; it may not run a stock kernel."""
    return Path("/dev/kvm").exists()


def lan(client: docker.DockerClient, name: str) -> str:
    """Make the network that the machine of that name is on, and give its name."""
    network = object_name(name)
    for number in range(256):
        ipam = IPAMConfig(pool_configs=[IPAMPool(subnet=f"{LAN}.{number}.0/24")])
        try:
            client.networks.create(network, driver="bridge", ipam=ipam, labels={LABEL: name})
        except APIError as error:
            if "overlap" not in str(error).lower():
                raise LabError(f"cannot make the network {network}: {error.explanation}") from error
        else:
            return network
    raise LabError(f"every network of {LAN}.0.0/16 is in use: `python -m gatehouse.lab down --all`")
