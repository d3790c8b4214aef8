"""The audit: what the CIS Docker Benchmark asks of such a host, and what it does not know of.

Ids below 7 are those of the benchmark (v1.6); G are Gatehouse's own. An audit is asked for by hand:
it reads every log and file for the values of the host's secrets, which takes seconds to minutes.
"""

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Any

from gatehouse.checks.check import Check, Result
from gatehouse.checks.probe import nothing, of, probe
from gatehouse.settings import Settings

SECTIONS = {
    "1": "the host",
    "2": "the daemon",
    "3": "Docker's files",
    "4": "images",
    "5": "containers",
    "6": "operation",
    "G": "exposure",
}
# Below it the engine has holes that the firewall has to close (docs/hardening.md).
_FLOOR = (28, 3, 3)
_MOST_OPEN_FILES = 2**20
_LOWEST_PORT = 1024
_MOST_RETRIES = 5
_MOST_DANGLING = 20
# Seen below these, a container could change the host.
_SENSITIVE = ("/boot", "/dev", "/lib", "/proc", "/sys", "/usr", "/root", "/home", "/var/lib/docker")
_AGAIN = "deploy again: pyinfra inventory deploy.py"
_DAEMON = (
    "look at /etc/docker/daemon.json, and at dockerd's options in `systemctl cat docker.service`; "
    "then: systemctl restart docker"
)
_LISTENS = {
    "litellm": ["tcp 4000"],
    "postgres": ["tcp 5432"],
    "redis": ["tcp 6379"],
    "prometheus": ["tcp 9090"],
    "alertmanager": ["tcp 9093"],
}
# Where a daemon's socket is a path, or one of systemd's (which the probe looks up).
_PATHS = ("unix://", "fd://")
Containers = list[dict[str, Any]]
Wrong = Callable[[dict[str, Any]], object]


@dataclass(frozen=True)
class Item:
    """One statement of an audit; `absent` says why it does not apply, given the same answer."""

    id: str
    title: str
    check: Check
    absent: Callable[[int, str], str | None] = lambda _code, _output: None

    @property
    def section(self) -> str:
        """What it is about."""
        return SECTIONS.get(self.id[0], SECTIONS["G"])


def look(settings: Settings) -> str:
    """Give the command that looks at Docker and at who listens."""
    ports = [
        *(settings.litellm_port, settings.postgres_port, settings.redis_port),
        *(settings.health_port, settings.metrics_port),
        *(engine.port for engine in settings.active_engines),
    ]
    if settings.metrics_prometheus:
        ports += [settings.metrics_prometheus_port, settings.metrics_alertmanager_port]
    networks = (
        settings.network_subnet,
        settings.network_inner_subnet,
        settings.network_engines_subnet,
    )
    return probe("cis", json.dumps({"networks": [str(n) for n in networks], "ports": ports}))


def search(settings: Settings) -> str:
    """Give the command that looks for secrets."""
    return probe("search", settings.models_dir)


class _Items:
    """The items of one host, as they are written down."""

    def __init__(self, settings: Settings) -> None:
        self.command = look(settings)
        self.all: list[Item] = []

    def add(  # noqa: PLR0913, PLR0917 - what an item is made of
        self,
        number: str,
        title: str,
        expected: str,
        key: str,
        judge: Callable[[Any], Result],
        fix: str,
        *,
        absent: Callable[[int, str], str | None] = lambda _code, _output: None,
        command: str = "",
    ) -> None:
        check = Check(
            name=f"audit: {number} {title}",
            component="audit",
            expected=expected,
            command=command or self.command,
            judge=of(key, judge),
            fix=fix,
            thorough=True,
        )
        self.all.append(Item(number, title, check, absent))

    def each(self, number: str, title: str, expected: str, wrong: Wrong, fix: str = _AGAIN) -> None:
        """Add what holds for every container; `wrong` gives what is wrong with one, or nothing."""

        def judge(containers: Containers) -> Result:
            if not containers:
                return Result(holds=False, found="no container")
            seen = [(each["name"], wrong(each)) for each in containers]
            return nothing(
                [
                    f"{name}: {said}" if isinstance(said, str) else name
                    for name, said in seen
                    if said
                ]
            )

        self.add(number, title, expected, "containers", judge, fix)

    def file(self, number: str, path: str, expected: str, owner: str) -> None:
        """Add that a path has an owner, and a mode that allows nothing more."""

        def judge(files: dict[str, str]) -> Result:
            if path not in files:
                return Result(holds=True, found=f"there is no {path}")
            mode, user, group = files[path].split()
            wide = int(mode, 8) & ~int(expected, 8)
            return Result(not wide and f"{user}:{group}" == owner, files[path])

        where = path
        if path.startswith("docker."):
            where = f"what `systemctl show -p FragmentPath {path}` names"
        elif not path.startswith("/"):
            where = f"what `find /run -name {path}` names"
        self.add(
            number,
            f"{path} belongs to {owner} and is {expected} or less",
            f"{expected} {owner}",
            "files",
            judge,
            f"chown {owner} and chmod {expected} {where}",
        )


def items(settings: Settings) -> list[Item]:
    """Give the items in their order."""
    found = _Items(settings)
    _host(found)
    _daemon(found)
    _files(found)
    _images(found, settings)
    _containers(found, settings)
    _operation(found)
    _exposure(found, settings)
    return found.all


def _host(add: _Items) -> None:
    add.add(
        "1.1.2",
        "nobody but root is in the group docker",
        "no member: the group is as good as root",
        "docker_group",
        nothing,
        "gpasswd -d NAME docker; people use sudo, or the group gatehouse for engines",
    )
    add.add(
        "1.1.3",
        "auditd watches Docker's daemon and files (1.1.3 to 1.1.18)",
        "rules for dockerd, /etc/docker, /var/lib/docker and the sockets",
        "audited",
        lambda paths: Result(bool(paths), ", ".join(paths) or "no rule of auditd names Docker"),
        "apt-get install auditd, and rules as in section 1.1 of the benchmark",
    )
    floor = ".".join(map(str, _FLOOR))
    add.add(
        "1.2.2",
        "Docker is up to date",
        f"{floor} or newer",
        "info",
        lambda info: Result(_version(info["version"]) >= _FLOOR, info["version"]),
        'docker_source = "docker", and deploy again; until then gatehouse-firewall.service closes '
        "what older engines leave open",
    )


def _version(text: str) -> tuple[int, ...]:
    return tuple(int(number) for number in re.findall(r"\d+", text)[:3])


def _daemon(add: _Items) -> None:
    def told(key: str, *right: str) -> Callable[[dict[str, Any]], Result]:
        """Judge a key of the daemon's; an empty word stands for one that is not set."""

        def judge(daemon: dict[str, Any]) -> Result:
            seen = str(daemon.get(key, "")).lower()
            return Result(seen in right, f"{key} = {seen}" if seen else "not set")

        return judge

    add.add(
        "2.2",
        "containers on the default bridge do not see each other",
        "icc false",
        "bridge",
        lambda options: Result(
            options.get("com.docker.network.bridge.enable_icc") == "false",
            f"enable_icc {options.get('com.docker.network.bridge.enable_icc')}",
        ),
        _DAEMON,
    )
    add.add(
        "2.3", "the log level is info", "info", "daemon", told("log-level", "", "info"), _DAEMON
    )
    add.add(
        "2.4",
        "Docker may make its firewall rules",
        "iptables true",
        "daemon",
        told("iptables", "", "true"),
        _DAEMON,
    )
    add.add(
        "2.5",
        "no registry is used without TLS",
        "none but loopback",
        "info",
        lambda info: nothing(info["insecure"]),
        _DAEMON,
    )
    add.add(
        "2.6",
        "the storage driver is maintained",
        "not aufs",
        "info",
        lambda info: Result(info["storage"] != "aufs", info["storage"]),
        "choose overlay2 (this moves images and volumes)",
    )
    add.add(
        "2.7",
        "the daemon is asked through its socket only, or with TLS",
        "no TCP listener without tlsverify",
        "daemon",
        _no_tcp,
        "remove tcp:// from hosts in daemon.json, -H from docker.service (systemctl cat "
        "docker.service), ListenStream from docker.socket; then restart them",
    )
    add.add(
        "2.9",
        "user namespaces are on",
        "userns-remap",
        "info",
        lambda info: Result(
            any(each.startswith("name=userns") for each in info["security"]),
            ", ".join(info["security"]) or "no security option",
        ),
        "userns-remap moves Docker's data; see the reason of the exception",
    )
    add.add(
        "2.12",
        "clients of the daemon are authorized by a plugin",
        "an authorization plugin",
        "info",
        lambda info: Result(
            bool(info["authorization"]), ", ".join(info["authorization"]) or "none"
        ),
        "authorization-plugins in daemon.json",
    )
    add.add(
        "2.13",
        "logs go to another machine",
        "a remote log driver",
        "info",
        lambda info: Result(
            info["logging"] not in ("local", "json-file", "none", "journald"), info["logging"]
        ),
        "log-driver in daemon.json; docker_log_… bound what is kept here",
    )
    add.add(
        "2.14",
        "containers gain no privileges, unless told otherwise",
        "no-new-privileges true",
        "daemon",
        told("no-new-privileges", "true"),
        _DAEMON,
    )
    add.add(
        "2.15",
        "containers outlive the daemon's restart",
        "live restore",
        "info",
        lambda info: Result(info["live_restore"], str(info["live_restore"]).lower()),
        "docker_live_restore = True, and deploy again",
    )
    add.add(
        "2.16",
        "no userland proxy",
        "userland-proxy false",
        "daemon",
        told("userland-proxy", "false"),
        _DAEMON,
    )
    add.add(
        "2.17",
        "the daemon's seccomp profile is in force",
        "seccomp with Docker's own profile or another one",
        "info",
        lambda info: Result(
            any(
                each.startswith("name=seccomp") and "profile=unconfined" not in each
                for each in info["security"]
            ),
            ", ".join(info["security"]) or "no security option",
        ),
        "remove seccomp-profile from daemon.json; use a kernel with CONFIG_SECCOMP",
    )
    add.add(
        "2.18",
        "no experimental features",
        "experimental false",
        "info",
        lambda info: Result(not info["experimental"], str(info["experimental"]).lower()),
        _DAEMON,
    )


def _no_tcp(daemon: dict[str, Any]) -> Result:
    # What names no protocol is TCP: `-H :2375`.
    open_ones = [each for each in daemon["hosts"] if not each.startswith(_PATHS) and each]
    verified = str(daemon.get("tlsverify", "")).lower() == "true"
    return Result(not open_ones or verified, ", ".join(open_ones) or "the socket only")


def _files(add: _Items) -> None:
    add.file("3.1", "docker.service", "644", "root:root")
    add.file("3.3", "docker.socket", "644", "root:root")
    add.file("3.5", "/etc/docker", "755", "root:root")
    add.file("3.15", "/run/docker.sock", "660", "root:docker")
    add.file("3.17", "/etc/docker/daemon.json", "644", "root:root")
    add.file("3.19", "/etc/default/docker", "644", "root:root")
    add.file("3.23", "containerd.sock", "660", "root:root")


def _images(add: _Items, settings: Settings) -> None:
    add.each(
        "4.1",
        "containers run as a user of their own",
        "not root",
        lambda c: c["user"].split(":")[0] in ("", "0", "root") and (c["user"] or "root"),
    )
    add.add(
        "4.5",
        "content trust is on",
        "DOCKER_CONTENT_TRUST=1",
        "content_trust",
        lambda on: Result(bool(on), "on" if on else "off"),
        "DOCKER_CONTENT_TRUST=1 in /etc/environment, where all images are signed so",
    )
    add.each(
        "4.6",
        "containers have a health check (and 5.27)",
        "all but jobs that end",
        lambda c: not c["health"] and not _job(c),
    )
    add.add(
        "4.10",
        "no secret in an image or a container's configuration",
        "none, by value",
        "docker",
        nothing,
        "replace the secret (gatehouse secrets rotate), then rebuild or remove what holds it",
        command=search(settings),
    )


def _job(container: dict[str, Any]) -> bool:
    """Tell whether a container has done its work and may be at rest."""
    return not container["running"] and container["service"] == "litellm-migrate"


def _containers(add: _Items, settings: Settings) -> None:
    engines = {engine.name: engine for engine in settings.active_engines}
    add.add(
        "5.1",
        "swarm mode is off",
        "inactive",
        "info",
        lambda info: Result(info["swarm"] == "inactive", info["swarm"]),
        "docker swarm leave, where nothing needs it",
    )

    def confined(code: int, output: str) -> str | None:
        has = of("kernel_has_apparmor", lambda has: Result(has, ""))(code, output)
        return "this kernel has no AppArmor" if has.answered and not has.holds else None

    def unconfined(containers: Containers) -> Result:
        loose = ("", "unconfined")
        return nothing([c["name"] for c in containers if c["running"] and c["apparmor"] in loose])

    add.add(
        "5.2",
        "AppArmor confines containers",
        "docker-default, or a profile of your own",
        "containers",
        unconfined,
        "systemctl status apparmor; then deploy again",
        absent=confined,
    )
    add.each(
        "5.4",
        "containers have no capabilities",
        "all dropped, none added",
        lambda c: ", ".join(c["cap_add"]) or (c["cap_drop"] != ["ALL"] and "not all dropped"),
    )
    add.each("5.5", "no container is privileged", "none", lambda c: c["privileged"])
    add.each(
        "5.6",
        "no container sees the host's own directories",
        "its configuration, secrets and models only, read-only",
        _sensitive,
    )
    add.each(
        "5.8",
        "no privileged port is published",
        f"{_LOWEST_PORT} or above",
        lambda c: ", ".join(p for p in c["ports"] if int(p.rpartition(":")[2]) < _LOWEST_PORT),
    )
    published = {settings.litellm_port, settings.postgres_port, settings.redis_port}
    published |= {settings.metrics_prometheus_port, settings.metrics_alertmanager_port}
    add.each(
        "5.9",
        "only the ports that are needed are published",
        "those of the settings; none of an engine",
        lambda c: ", ".join(
            port
            for port in c["ports"]
            # Those below are 5.8's.
            if (number := int(port.rpartition(":")[2])) >= _LOWEST_PORT
            and (number not in published or c["service"] in engines)
        ),
    )
    for number, name in (
        ("5.10", "network"),
        ("5.16", "process"),
        ("5.17", "IPC"),
        ("5.21", "UTS"),
    ):
        add.each(
            number,
            f"no container shares the host's {name} namespace",
            "its own",
            _shares(name),
        )
    add.each("5.11", "memory is limited", "a limit", lambda c: c["memory"] <= 0)
    add.each("5.12", "CPU is limited", "a limit or a share", lambda c: c["cpus"] <= 0)
    add.each("5.13", "the root file system is read-only", "read-only", lambda c: not c["read_only"])
    bind = str(settings.network_bind_address)
    addresses = {bind, settings.health_address}
    add.each(
        "5.14",
        "ports are published on one interface",
        " or ".join(sorted(addresses)),
        lambda c: ", ".join(p for p in c["ports"] if p.rpartition(":")[0] not in addresses),
    )
    add.each(
        "5.15",
        "a container that fails is not started for ever",
        f"no restart, or on-failure:{_MOST_RETRIES}",
        lambda c: (
            (
                c["restart"]["Name"] not in ("", "no", "on-failure")
                or c["restart"]["MaximumRetryCount"] > _MOST_RETRIES
            )
            and c["restart"]["Name"]
        ),
    )
    add.each(
        "5.18",
        "no container has a device of the host",
        "none; engines get cards by CDI",
        lambda c: ", ".join(c["devices"]),
    )
    add.each(
        "5.19",
        "the number of open files is limited",
        f"{_MOST_OPEN_FILES} or fewer",
        lambda c: (
            c["open_files"]
            and (c["open_files"] == "unlimited" or int(c["open_files"]) > _MOST_OPEN_FILES)
            and c["open_files"]
        ),
    )
    add.each(
        "5.20",
        "mounts do not spread to the host",
        "no shared propagation",
        lambda c: ", ".join(
            m["Source"] for m in c["mounts"] if m["Propagation"].endswith("shared")
        ),
    )
    add.each(
        "5.22",
        "seccomp is not switched off",
        "Docker's profile",
        lambda c: any("seccomp" in each and "unconfined" in each for each in c["security_opt"]),
    )
    add.each(
        "5.26",
        "containers gain no privileges, and have none",
        "no-new-privileges, no capability in any process",
        lambda c: "no-new-privileges:true" not in c["security_opt"] or ", ".join(c["may"]),
    )
    add.each(
        "5.28",
        "images are of a version",
        "a tag that is not latest, or a digest",
        lambda c: not re.search(r"@sha256:|:(?!latest$)[\w.-]+$", c["image"]) and c["image"],
    )
    add.each("5.29", "the number of processes is limited", "a limit", lambda c: c["pids"] <= 0)
    add.each(
        "5.30",
        "the default bridge is not used",
        "networks of our own",
        lambda c: "bridge" in c["networks"],
    )
    add.each(
        "5.31",
        "no container shares the host's user namespace",
        "not asked for",
        lambda c: c["namespaces"]["user"] == "host",
    )
    add.each(
        "5.32",
        "no container has Docker's socket",
        "none",
        lambda c: any("docker.sock" in m["Source"] for m in c["mounts"]),
    )


def _shares(name: str) -> Wrong:
    return lambda container: container["namespaces"][name].startswith(("host", "container:"))


def _sensitive(container: dict[str, Any]) -> str:
    found = []
    for mount in container["mounts"]:
        source = mount["Source"]
        whole = source in ("/", "/etc", "/var", "/run", "/var/run", "/opt")
        if whole or source.startswith(_SENSITIVE):
            found.append(source)
        elif mount["RW"] and not source.startswith("/var/lib/gatehouse/"):
            found.append(f"{source} for writing")
    return ", ".join(found)


def _operation(add: _Items) -> None:
    add.add(
        "6.1",
        "no pile of images",
        f"{_MOST_DANGLING} without a name, or fewer",
        "dangling",
        lambda count: Result(count <= _MOST_DANGLING, f"{count} without a name"),
        "docker image prune",
    )
    add.add(
        "6.2",
        "no pile of containers",
        "all of the stack run, but jobs and sleeping engines",
        "containers",
        lambda containers: nothing(
            [c["name"] for c in containers if not c["running"] and c["service"] in _LISTENS]
        ),
        _AGAIN,
    )


def _exposure(add: _Items, settings: Settings) -> None:
    bridge = str(settings.network_subnet[1])
    allowed = {str(settings.network_bind_address), settings.health_address, bridge}
    address = " or ".join(sorted(allowed))

    def placed(sockets: list[dict[str, Any]]) -> Result:
        if not sockets:
            return Result(holds=False, found="nothing of ours listens")
        strangers = [
            f"{s['protocol']} {s['address']}:{s['port']} ({', '.join(s['who'])})"
            for s in sockets
            if s["address"] not in allowed and not ip_address(_plain(s["address"])).is_loopback
        ]
        seen = nothing(strangers)
        return seen if strangers else Result(holds=True, found=f"{len(sockets)} sockets")

    add.add(
        "G.1",
        "every socket of ours that listens is where it belongs",
        f"TCP and UDP, IPv4 and IPv6: {address} or loopback",
        "sockets",
        placed,
        "ss -ltunp shows who listens there; network_bind_address says where the stack should",
    )
    ports = {engine.name: [f"tcp {engine.inner_port}"] for engine in settings.active_engines}
    add.each(
        "G.2",
        "a container listens on its own port only",
        "one port each, beside its loopback",
        lambda c: (
            c["running"]
            and c["listens"] != (_LISTENS | ports).get(c["service"], [])
            and (", ".join(c["listens"]) or "nothing")
        ),
    )
    secrets = {
        "G.3": ("processes", "no secret in a command line, or in the environment of a stranger"),
        "G.4": ("logs", "no secret in the journal or in a container's log"),
        "G.5": ("disk", "no secret in a file, other than its own"),
    }
    for number, (key, title) in secrets.items():
        add.add(
            number,
            title,
            "none, by value; a container's processes may have what is mounted into it",
            key,
            nothing,
            "remove it there (all of the journal: journalctl --rotate --vacuum-time=1s), then "
            "replace it: gatehouse secrets rotate, or set"
            if key == "logs"
            else "remove it there, then replace it: gatehouse secrets rotate, or set",
            command=search(settings),
        )


def _plain(address: str) -> str:
    return {"*": "::"}.get(address, address)
