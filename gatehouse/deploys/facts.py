"""What is asked of a host. Each fact is one remote command; none of them changes anything."""

import json
import re
import shlex
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from pyinfra.api import FactBase

from gatehouse.checks.firewall import BRIDGES, SSH_PORTS
from gatehouse.deploys import card
from gatehouse.settings.models import KEY_NAME

PROJECT = "gatehouse"
# In `docker ps`: 0.0.0.0:80->80/tcp, [::]:8000-8002->8000-8002/tcp; udp takes nothing from us.
_PUBLISHED = re.compile(r":(\d+)(?:-(\d+))?->[\d-]+/tcp")


# Prints where Docker keeps images and volumes, or will: as it says, as it is told, or its default.
DOCKER_ROOT = r"""
root=$(docker info -f '{{.DockerRootDir}}' 2>/dev/null)
[ -n "$root" ] || root=$(
    sed -n 's/.*"data-root" *: *"\([^"]*\)".*/\1/p' /etc/docker/daemon.json 2>/dev/null)
echo "${root:-/var/lib/docker}"
"""


class Access(FactBase[str]):
    """Who the connection is: `root`, `sudo` (without a password), or `none`."""

    def command(self) -> str:
        """Ask for the user and whether sudo works."""
        return (
            'if [ "$(id -u)" = 0 ]; then echo root; '
            "elif sudo -n true 2>/dev/null; then echo sudo; else echo none; fi"
        )

    def process(self, output: Iterable[str]) -> str:
        """Take the one word."""
        return "".join(output).strip()


@dataclass(frozen=True)
class ModelFile:
    """A file or folder of the engines: size in bytes, and its first bytes."""

    size: int
    head: bytes


@dataclass(frozen=True)
class Host:
    """The host before the deploy; memory and disk in MiB."""

    system: str
    system_name: str
    systemd: bool
    cores: int
    memory_mib: int
    disk_mib: int
    disk_path: str
    # Of what a deploy writes elsewhere, where that is another file system: path → MiB free.
    rooms: dict[str, int]
    clock_kept: bool
    listeners: dict[int, str]
    own_ports: frozenset[int]
    engine: str
    compose: str
    daemon_json: str
    provider_keys: frozenset[str]
    secrets_group: str
    routes: dict[str, str]
    model_files: dict[str, ModelFile] = field(default_factory=dict)
    gpus: card.Gpus = card.NONE
    cosign: bool = False
    ssh_ports: frozenset[int] = frozenset()
    ssh_peers: frozenset[str] = frozenset()
    # Named as Docker names its own.
    bridges: frozenset[str] = frozenset()
    # Nobody's process listens there: the kernel does, as for WireGuard.
    kernel_udp: frozenset[int] = frozenset()
    firewalls: tuple[str, ...] = ()


class HostFact(FactBase[Host]):
    """Everything that the deploy decides by, in one remote command."""

    def command(self, secrets_gid: int, model_files: Sequence[str] = ()) -> str:
        """Print `key=value` lines; `model_files` are paths that engines need."""
        files = " ".join(map(shlex.quote, model_files))
        bindings = (
            "{{range .HostConfig.PortBindings}}{{range .}}own_port={{.HostPort}}{{println}}"
            "{{end}}{{end}}"
        )
        services = "systemd-timesyncd chrony chronyd ntpsec ntp ntpd openntpd"
        return f"""
. /etc/os-release
echo "system=$ID $VERSION_ID"; echo "system_name=$PRETTY_NAME"
[ -d /run/systemd/system ] && echo systemd=yes
echo "cores=$(nproc)"
awk '/^MemTotal:/ {{ print "memory_kib=" $2 }}' /proc/meminfo
disk=$({DOCKER_ROOT}); while [ ! -d "$disk" ]; do disk=$(dirname "$disk"); done
echo "disk_path=$disk"; echo "disk_kib=$(df -Pk "$disk" | awk 'NR == 2 {{ print $4 }}')"
devices=" $(stat -c %d "$disk") "
for folder in /opt/gatehouse/releases /var/lib/gatehouse/snapshots /etc/gatehouse; do
    while [ ! -d "$folder" ]; do folder=$(dirname "$folder"); done
    device=$(stat -c %d "$folder")
    case $devices in *" $device "*) continue ;; esac
    devices="$devices$device "
    echo "room=$folder $(df -Pk "$folder" | awk 'NR == 2 {{ print $4 }}')"
done
echo "ntp=$(timedatectl show -p NTPSynchronized --value 2>/dev/null)"
systemctl is-active {services} 2>/dev/null | grep -qx active && echo ntp=yes
ss -Hltnp 2>/dev/null | sed 's/^/listener=/'
docker ps -q --filter label=com.docker.compose.project={PROJECT} 2>/dev/null |
    xargs -r docker inspect -f '{bindings}'
sed -n 's/^ListenStream=.*:/own_port=/p' /etc/systemd/system/gatehouse-*.socket 2>/dev/null
for file in {files}; do
    [ -e "$file" ] || continue
    head=$(head -c 24 "$file" 2>/dev/null | od -An -v -tx1 | tr -d ' \n')
    echo "model_file=$(stat -c %s "$file")|$head|$file"
done
docker ps --format '{{{{.Names}}}} {{{{.Ports}}}}' 2>/dev/null | sed 's/^/container=/'
ip -4 route show 2>/dev/null | sed 's/^/route=/'
echo "engine=$(docker version -f '{{{{.Server.Version}}}}' 2>/dev/null)"
echo "compose=$(docker compose version --short 2>/dev/null)"
[ -e /etc/docker/daemon.json ] && {{ sed 's/^/daemon_json=/' /etc/docker/daemon.json; echo; }}
ls /etc/gatehouse/secrets/providers 2>/dev/null | sed 's/^/provider_key=/'
command -v cosign >/dev/null && echo cosign=yes
echo "secrets_group=$(getent group {secrets_gid} | cut -d: -f1)"
{card.COMMAND}
{{ {SSH_PORTS}
}} | sed 's/^/ssh_port=/'
{{ {BRIDGES}
}} | sed 's/^/bridge=/'
ss -Hlunp 2>/dev/null | grep -v 'users:' | sed 's/^/kernel_udp=/'
ss -Htnp state established 2>/dev/null | grep -E '"(sshd|dropbear)' | sed 's/^/ssh_session=/'
command -v ufw >/dev/null && ufw status 2>/dev/null | grep -q '^Status: active' && echo firewall=ufw
systemctl is-active --quiet firewalld 2>/dev/null && echo firewall=firewalld
true"""

    def process(self, output: Iterable[str]) -> Host:
        """Read the lines."""
        lines: dict[str, list[str]] = {}
        for line in output:
            key, _, value = line.partition("=")
            lines.setdefault(key, []).append(value)

        def one(key: str) -> str:
            return next((value.strip() for value in lines.get(key, []) if value.strip()), "")

        return Host(
            system=one("system"),
            system_name=one("system_name"),
            systemd=one("systemd") == "yes",
            cores=int(one("cores") or 1),
            memory_mib=int(one("memory_kib") or 0) // 1024,
            disk_mib=int(one("disk_kib") or 0) // 1024,
            disk_path=one("disk_path"),
            rooms={
                path: int(kib) // 1024
                for path, kib in (line.split() for line in lines.get("room", []))
            },
            clock_kept="yes" in lines.get("ntp", []),
            listeners=_listeners(lines.get("listener", []), lines.get("container", [])),
            own_ports=frozenset(int(port) for port in lines.get("own_port", []) if port.isdigit()),
            engine=one("engine"),
            compose=one("compose").removeprefix("v"),
            daemon_json="\n".join(lines.get("daemon_json", [])),
            provider_keys=frozenset(
                name for name in lines.get("provider_key", []) if re.fullmatch(KEY_NAME, name)
            ),
            secrets_group=one("secrets_group"),
            routes=_routes(lines.get("route", [])),
            model_files=_model_files(lines.get("model_file", [])),
            gpus=card.read(lines),
            cosign=one("cosign") == "yes",
            ssh_ports=_told(lines) | {port for port, _ in _sessions(lines)},
            ssh_peers=frozenset(peer for _, peer in _sessions(lines)),
            bridges=frozenset(lines.get("bridge", [])),
            kernel_udp=_kernel_udp(lines),
            firewalls=tuple(lines.get("firewall", [])),
        )


def _told(lines: dict[str, list[str]]) -> frozenset[int]:
    """Give where sshd is told to listen, or does."""
    return frozenset(int(port) for port in lines.get("ssh_port", []) if port.isdigit())


def _sessions(lines: dict[str, list[str]]) -> list[tuple[int, str]]:
    """Give the port and the peer of each SSH session that comes from elsewhere.

    What sshd forwards for a session is none: it has no port of its own, or one that only sshd
    itself listens on without having been told to.
    """
    taken = _told(lines)
    for line in lines.get("listener", []):
        if not re.search(r'"(sshd|dropbear)', line):
            taken |= {_place(line.split()[3])[1]}
    found = []
    for line in lines.get("ssh_session", []):
        here, there = map(_place, line.split()[2:4])
        if here[1] in taken and not _loopback(there[0]):
            found.append((here[1], there[0]))
    return found


def _kernel_udp(lines: dict[str, list[str]]) -> frozenset[int]:
    """Give the UDP ports that neighbours reach and that no process holds."""
    places = (_place(line.split()[3]) for line in lines.get("kernel_udp", []))
    return frozenset(port for address, port in places if not _loopback(address))


def _loopback(address: str) -> bool:
    return address.startswith("127.") or address == "::1"


def _place(text: str) -> tuple[str, int]:
    """Split `[::ffff:192.0.2.1]:22` and the like."""
    address, _, port = text.rpartition(":")
    plain = address.strip("[]").partition("%")[0].removeprefix("::ffff:")
    return plain, int(port) if port.isdigit() else 0


def _model_files(lines: list[str]) -> dict[str, ModelFile]:
    found = {}
    for line in lines:
        size, head, path = line.split("|", 2)
        found[path] = ModelFile(int(size), bytes.fromhex(head))
    return found


def _listeners(sockets: list[str], containers: list[str]) -> dict[int, str]:
    """Give who listens on each port: the process, or the container behind Docker's proxy."""
    found: dict[int, str] = {}
    for line in sockets:
        words = line.split()
        listening = words[3].rsplit(":", 1)[-1]
        who = words[5] if len(words) > 5 else "an unknown process"  # noqa: PLR2004 - ss' columns
        found.setdefault(int(listening), who.removeprefix("users:"))
    for line in containers:
        name, _, ports = line.partition(" ")
        for first, last in _PUBLISHED.findall(ports):
            for port in range(int(first), int(last or first) + 1):
                found[port] = f"the container {name}"
    return found


def _routes(lines: list[str]) -> dict[str, str]:
    """Give the host's IPv4 networks (CIDR) with the device of each, without the default route."""
    found: dict[str, str] = {}
    for line in lines:
        words = line.split()
        if "dev" in words and words[0][0].isdigit():
            found[words[0]] = words[words.index("dev") + 1]
    return found


@dataclass(frozen=True)
class Stat:
    """A path on the host: kind is `directory`, `regular file` …; mode in octal digits."""

    kind: str
    mode: str
    owner: str
    group: str
    sha256: str = ""


class Paths(FactBase[dict[str, Stat]]):
    """Kind, mode, owner, and for files the hash, of each path that exists."""

    default = dict

    def command(self, paths: list[str]) -> str:
        """Print one line for each path."""
        words = " ".join(map(shlex.quote, paths))
        return (
            f"for path in {words}; do "
            'stat -c "%n|%F|%a|%U|%G" "$path" 2>/dev/null || continue; '
            '[ -f "$path" ] && sha256sum "$path"; done; true'
        )

    def process(self, output: Iterable[str]) -> dict[str, Stat]:
        """Read the lines."""
        found: dict[str, Stat] = {}
        for line in output:
            if "|" in line:
                path, kind, *rest = line.split("|")
                kind = "regular file" if kind == "regular empty file" else kind
                found[path] = Stat(kind, *rest)
            else:
                digest, path = line.split(maxsplit=1)
                found[path] = Stat(**{**vars(found[path]), "sha256": digest})
        return found


@dataclass(frozen=True)
class Container:
    """One container of the stack."""

    name: str
    service: str
    inputs: str
    status: str
    health: str
    exit_code: int
    image: str
    stale: bool

    @property
    def ready(self) -> bool:
        """Whether it does its work now."""
        return self.status == "running" and self.health in {"healthy", "none"}


class Containers(FactBase[list[Container]]):
    """The stack's containers, stopped ones too.

    `stale` means that its image reference now means another image, or that it runs and a secret
    which is mounted into it is newer than its start. A job that is done has no use for a new one.
    """

    default = list

    def command(self) -> str:
        """Inspect them; times are compared on the host, so that no clock of ours matters."""
        fields = {
            "name": "{{.Name}}",
            "service": '{{index .Config.Labels "com.docker.compose.service"}}',
            "inputs": '{{index .Config.Labels "gatehouse.inputs"}}',
            "status": "{{.State.Status}}",
            "health": "{{if .State.Health}}{{.State.Health.Status}}{{else}}none{{end}}",
            "exit_code": "{{.State.ExitCode}}",
            "image": "{{.Config.Image}}",
            "image_id": "{{.Image}}",
            "started": "{{.State.StartedAt}}",
            "mounts": "{{range .Mounts}}{{.Source}} {{end}}",
        }
        template = "|".join(fields.values())
        return f"""
docker ps -aq --filter label=com.docker.compose.project={PROJECT} 2>/dev/null |
xargs -r docker inspect -f '{template}' | while IFS='|' read -r name service inputs status health \
code image id started mounts; do
    stale=no
    [ "$(docker image inspect -f '{{{{.Id}}}}' "$image" 2>/dev/null)" = "$id" ] || stale=image
    for file in $mounts; do
        case $status$file in running/etc/gatehouse/secrets/*) ;; *) continue ;; esac
        [ -n "$(find "$file" -newermt "$started" 2>/dev/null | head -n 1)" ] && stale=secret
    done
    echo "${{name#/}}|$service|$inputs|$status|$health|$code|$image|$stale"
done; true"""

    def process(self, output: Iterable[str]) -> list[Container]:
        """Read the lines."""
        found = []
        for line in output:
            name, service, inputs, status, health, code, image, stale = line.split("|")
            found.append(
                Container(
                    name, service, inputs, status, health, int(code), image, stale=stale != "no"
                )
            )
        return found


class Logs(FactBase[list[str]]):
    """The last lines that a service wrote."""

    default = list

    def command(self, service: str, lines: int = 25) -> str:
        """Read them from Docker, of the newest container of the service."""
        return (
            f"docker ps -aq --filter label=com.docker.compose.project={PROJECT} "
            f"--filter label=com.docker.compose.service={shlex.quote(service)} | head -n 1 | "
            f"xargs -r docker logs --tail {lines} 2>&1 || true"
        )

    def process(self, output: Iterable[str]) -> list[str]:
        """Keep the lines."""
        return list(output)


class Images(FactBase[dict[str, str]]):
    """Image reference → id, of those that the host has."""

    default = dict

    def command(self, references: list[str]) -> str:
        """Ask Docker for each."""
        words = " ".join(map(shlex.quote, references))
        return (
            f"for image in {words}; do "
            "id=$(docker image inspect -f '{{.Id}}' \"$image\" 2>/dev/null) && "
            'echo "$image $id"; done; true'
        )

    def process(self, output: Iterable[str]) -> dict[str, str]:
        """Read the lines."""
        return dict(line.split(maxsplit=1) for line in output)


class Text(FactBase[str]):
    """The content of a file, or an empty text. Never asked of a file that holds a secret."""

    default = str

    def command(self, path: str) -> str:
        """Read the file."""
        return f"cat {shlex.quote(path)} 2>/dev/null || true"

    def process(self, output: Iterable[str]) -> str:
        """Join the lines again."""
        return "".join(f"{line}\n" for line in output)


class Run(FactBase[dict[str, Any]]):
    """The result of a command that only looks: `{"rc": 0, "out": "…"}`."""

    @staticmethod
    def default() -> dict[str, Any]:
        """Stand for a host that gives no answer at all."""
        return {"rc": 255, "out": "the host gave no answer"}

    def command(self, command: str) -> str:
        """Run it; its exit code is the last line."""
        return f"out=$( exec 2>&1\n{command}\n); rc=$?; printf '%s\\n' \"$out\"; echo $rc"

    def process(self, output: Iterable[str]) -> dict[str, Any]:
        """Split off the exit code."""
        *lines, code = list(output)
        return {"rc": int(code), "out": "\n".join(lines)}


class RunAll(FactBase[list[dict[str, Any]]]):
    """The results of several commands that only look, in one remote command, in their order."""

    default = list
    _MARK = "\x1e"

    def command(self, commands: list[str]) -> str:
        """Run each in a subshell; a record separator and the exit code close its output."""
        return "\n".join(f"(\n{each}\n) 2>&1; printf '\\n\\036%s\\n' $?" for each in commands)

    def process(self, output: Iterable[str]) -> list[dict[str, Any]]:
        """Split the output at the marks."""
        results: list[dict[str, Any]] = []
        lines: list[str] = []
        for line in output:
            if line.startswith(self._MARK):
                results.append({"rc": int(line[1:]), "out": "\n".join(lines).rstrip("\n")})
                lines = []
            else:
                lines.append(line)
        return results


def parse_json(text: str) -> dict[str, Any]:
    """Read a JSON object; an empty text is an empty object. Raises `ValueError` otherwise."""
    value = json.loads(text) if text.strip() else {}
    if not isinstance(value, dict):
        raise ValueError("it holds no object")  # noqa: TRY004 - what json raises too
    return value
