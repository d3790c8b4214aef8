"""The way in: keys, ssh's own configuration, and an inventory for pyinfra."""

import io
import pprint
import shutil
import tarfile
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from gatehouse.lab.common import BUILD, PREFIX, run

OPERATOR_UID = 1000
OPERATOR_GID = 37  # Debian's own group `operator`


@dataclass(frozen=True)
class Access:
    """The files under `build/lab/NAME/` by which one workstation is reached."""

    name: str
    user: str
    port: int

    @property
    def folder(self) -> Path:
        """Where the files are."""
        return BUILD / self.name

    @property
    def key(self) -> Path:
        """The private key that root and operator let in."""
        return self.folder / "key"

    @property
    def host_key(self) -> Path:
        """The private key by which the workstation is known."""
        return self.folder / "host_key"

    @property
    def known_hosts(self) -> Path:
        """The workstation's public key, under the address it is reached at."""
        return self.folder / "known_hosts"

    @property
    def ssh_config(self) -> Path:
        """For `ssh -F`: the hosts NAME, NAME-root and NAME-operator."""
        return self.folder / "ssh_config"

    @property
    def control(self) -> Path:
        """Leads to the folder of ssh's sockets, whose paths are too long for a checkout (107)."""
        return self.folder / "control"

    @property
    def inventory(self) -> Path:
        """For `pyinfra`: one host, NAME."""
        return self.folder / "inventory"


def create(name: str, user: str, port: int, settings: Mapping[str, object]) -> Access:
    """Write the files anew; `settings` join the host's data in the inventory."""
    access = Access(name, user, port)
    remove(access)
    access.folder.mkdir(parents=True, mode=0o700)
    access.control.symlink_to(tempfile.mkdtemp(prefix=f"{PREFIX}-"))
    for key in (access.key, access.host_key):
        comment = f"{PREFIX}-{name}"
        run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", comment, "-f", str(key)])
    public = _public(access.host_key)
    access.known_hosts.write_text(f"[127.0.0.1]:{port} {public}")
    access.ssh_config.write_text(_ssh_config(access))
    access.inventory.write_text(_inventory(access, settings))
    return access


def container_files(access: Access) -> bytes:
    """Give, as a tar to unpack at the container's root, what lets the keys in."""
    archive = io.BytesIO()
    authorized = _public(access.key).encode()
    with tarfile.open(fileobj=archive, mode="w") as tar:

        def put(path: str, content: bytes | None, mode: int, uid: int = 0, gid: int = 0) -> None:
            entry = tarfile.TarInfo(path)
            entry.type = tarfile.DIRTYPE if content is None else tarfile.REGTYPE
            entry.size, entry.mode, entry.uid, entry.gid = len(content or b""), mode, uid, gid
            tar.addfile(entry, io.BytesIO(content or b""))

        put("root/.ssh", None, 0o700)
        put("root/.ssh/authorized_keys", authorized, 0o600)
        put("home/operator/.ssh", None, 0o700, OPERATOR_UID, OPERATOR_GID)
        put("home/operator/.ssh/authorized_keys", authorized, 0o600, OPERATOR_UID, OPERATOR_GID)
        put("etc/ssh/ssh_host_ed25519_key", access.host_key.read_bytes(), 0o600)
        put("etc/ssh/ssh_host_ed25519_key.pub", _public(access.host_key).encode(), 0o644)
    return archive.getvalue()


def remove(access: Access) -> None:
    """Remove the files, and the connections that ssh keeps open for reuse."""
    if access.control.is_symlink():
        close_connections(access)
        shutil.rmtree(access.control.readlink(), ignore_errors=True)
    shutil.rmtree(access.folder, ignore_errors=True)


def close_connections(access: Access) -> None:
    """End the connections that ssh keeps open for reuse."""
    for host in _hosts(access):
        run(["ssh", "-F", str(access.ssh_config), "-O", "exit", host], check=False)


def _hosts(access: Access) -> dict[str, str]:
    """Give the names that ssh knows, each with its user."""
    return {
        access.name: access.user,
        f"{access.name}-root": "root",
        f"{access.name}-operator": "operator",
    }


def _public(key: Path) -> str:
    return key.with_name(f"{key.name}.pub").read_text()


def _ssh_config(access: Access) -> str:
    users = "".join(f"Host {name}\n    User {user}\n" for name, user in _hosts(access).items())
    return f"""{users}
Host {" ".join(_hosts(access))}
    HostName 127.0.0.1
    Port {access.port}
    IdentityFile {access.key}
    IdentitiesOnly yes
    UserKnownHostsFile {access.known_hosts}
    GlobalKnownHostsFile /dev/null
    StrictHostKeyChecking yes
    ControlMaster auto
    ControlPath {access.control.readlink()}/%r
    ControlPersist 60
    LogLevel ERROR
"""


def _inventory(access: Access, settings: Mapping[str, object]) -> str:
    data = {
        "ssh_hostname": "127.0.0.1",
        "ssh_port": access.port,
        "ssh_user": access.user,
        "ssh_key": str(access.key),
        "ssh_known_hosts_file": str(access.known_hosts),
        "ssh_strict_host_key_checking": "yes",
        "ssh_allow_agent": False,
        "ssh_look_for_keys": False,
        **settings,
    }
    hosts = pprint.pformat([(access.name, data)], sort_dicts=False, width=100)
    return f'"""The throwaway workstation {access.name}."""\n\nworkstations = {hosts}\n'
