"""What an audit reads: the daemon, its files, how containers run, and who listens.

Arguments: a JSON object with `networks` (our subnets, CIDR) and `ports` (ours on the host).
"""

import contextlib
import grp
import ipaddress
import json
import pwd
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

from gatehouse.probes.common import containers, docker, rights, tell

PROC = Path("/proc")
DAEMON_JSON = "/etc/docker/daemon.json"
# CIS section 3, those that exist on a single host without registries and TLS of its own.
PLACES = ("/etc/docker", DAEMON_JSON, "/etc/default/docker", "/run/docker.sock")
CONTAINERD = ("/run/containerd/containerd.sock", "/run/docker/containerd/containerd.sock")
# In /proc/net: a TCP socket that listens, a UDP socket that takes what comes.
LISTENS = {"tcp": "0A", "udp": "07"}
OPEN_FILES = re.compile(r"^Max open files\s+\S+\s+(\S+)", re.MULTILINE)
HOLDER = re.compile(r'\("([^"]+)",pid=(\d+)')
# What systemd shows of a socket: `/run/docker.sock (Stream)`, `[::]:2375 (Stream)`.
LISTEN = re.compile(r"(\S+) \(Stream\)")
# dockerd's options of one letter, and those of them that take no value.
SHORT = {
    "H": "host",
    "l": "log-level",
    "s": "storage-driver",
    "G": "group",
    "b": "bridge",
    "p": "pidfile",
    "D": "debug",
    "v": "version",
}
SWITCHES = ("D", "v")


def text(path: Path | str) -> str:
    """Read a file, or nothing where it cannot be read: a process may have ended."""
    with contextlib.suppress(OSError):
        return Path(path).read_text(errors="replace")
    return ""


def run(*command: str) -> str:
    """Give what a command prints; raises `OSError` where there is none, or it fails."""
    done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)
    if done.returncode:
        said = done.stderr.strip() or f"exit code {done.returncode}"
        raise OSError(f"{' '.join(command)}: {said}")
    return done.stdout


def options(words: list[str]) -> dict[str, Any]:
    """Give what the daemon's command line tells it; `host` is a list, as it can be repeated.

    dockerd takes no word by itself: one without a dash is the value of the option before it. Of any
    other option that is repeated the last counts.
    """
    told: list[tuple[str, str | None]] = []
    for word in words:
        if word.startswith("--"):
            name, equals, value = word[2:].partition("=")
            told.append((name, value if equals else None))
        elif word.startswith("-") and word != "-":
            letters = word[1:]
            while letters[:1] in SWITCHES and letters[1:2] != "=":
                told.append((SHORT[letters[0]], None))
                letters = letters[1:]
            if letters:
                name = SHORT.get(letters[0], letters[0])
                told.append((name, letters[1:].removeprefix("=") or None))
        elif told:
            told[-1] = (told[-1][0], word)
    return {
        **{name: "true" if value is None else value for name, value in told},
        "host": [value or "" for name, value in told if name == "host"],
    }


def held() -> list[str]:
    """Give the addresses at which systemd listens for the daemon, but for paths."""
    shown = run("systemctl", "show", "-p", "TriggeredBy", "--value", "docker.service")
    units = [unit for unit in shown.split() if unit.endswith(".socket")]
    listens = run("systemctl", "show", "-p", "Listen", "--value", *units) if units else ""
    return [f"tcp://{place}" for place in LISTEN.findall(listens) if place[0] not in "/@"]


def daemon() -> dict[str, Any]:
    """Give what the daemon was told: its file, its command line, and systemd's sockets for it."""
    pid = run("systemctl", "show", "-p", "MainPID", "--value", "docker.service").strip()
    if pid in ("", "0"):
        pid = text("/run/docker.pid").strip()
    words = text(PROC / pid / "cmdline").removesuffix("\0").split("\0") if pid else [""]
    if not words[0]:
        raise OSError("dockerd's process is not found: systemctl status docker.service")
    said = options(words[1:])
    told: dict[str, Any] = json.loads(text(said.get("config-file", DAEMON_JSON)) or "{}")
    hosts = [*told.get("hosts", []), *said.pop("host"), *held()]
    return {**told, **said, "hosts": hosts}


def files() -> dict[str, str]:
    """Give mode, owner and group of what Docker rests on, by what it is."""
    found = {}
    for unit in ("docker.service", "docker.socket"):
        shown = run("systemctl", "show", "-p", "FragmentPath", "--value", unit).strip()
        if shown:
            found[unit] = rights(shown)
    for path in (*PLACES, *CONTAINERD):
        with contextlib.suppress(OSError):
            found["containerd.sock" if path in CONTAINERD else path] = rights(path)
    return found


def docker_group() -> list[str]:
    """Give who may do with Docker as root may, beside root."""
    try:
        group = grp.getgrnam("docker")
    except KeyError:
        return []
    primary = [each.pw_name for each in pwd.getpwall() if each.pw_gid == group.gr_gid]
    return sorted({*group.gr_mem, *primary} - {"root"})


def audited() -> list[str]:
    """Give the paths of Docker that auditd watches; none where there is no auditd."""
    try:
        rules = run("auditctl", "-l")
    except OSError:
        return []
    return re.findall(r"^-w (\S*(?:docker|containerd)\S*)", rules, re.MULTILINE)


def processes(container: str) -> list[int]:
    """Give the processes of a container, by its control group."""
    return [
        int(path.name)
        for path in PROC.glob("[0-9]*")
        if container in text(path / "cgroup") and path.name.isdigit()
    ]


def rightful(pids: list[int]) -> list[str]:
    """Give what processes may do that none should: capabilities, new privileges, any call."""
    found = []
    for pid in pids:
        lines = text(PROC / str(pid) / "status").splitlines()
        status = dict(line.split(":\t", 1) for line in lines if ":\t" in line)
        if not status:
            continue
        if int(status.get("CapEff", "0"), 16):
            found.append(f"{status['Name']} has capabilities {status['CapEff']}")
        if status.get("NoNewPrivs") == "0":
            found.append(f"{status['Name']} may gain privileges")
    return found


def open_files(pid: int) -> str:
    """Give the number of files that a process may open, or `unlimited`."""
    found = re.search(
        r"^Max open files\s+\S+\s+(\S+)", text(PROC / str(pid) / "limits"), re.MULTILINE
    )
    return found.group(1) if found else ""


def inside(pid: int) -> list[str]:
    """Give where a container listens, but for its own loopback."""
    found = set()
    for protocol in ("tcp", "tcp6", "udp", "udp6"):
        for line in text(PROC / str(pid) / "net" / protocol).splitlines()[1:]:
            words = line.split()
            address, _, port = words[1].partition(":")
            far = words[2].endswith(":0000")
            if words[3] == LISTENS[protocol[:3]] and far and not loopback(address):
                found.add(f"{protocol[:3]} {int(port, 16)}")
    return sorted(found)


def loopback(written: str) -> bool:
    """Tell whether an address as /proc/net writes it (words, little-endian) is loopback."""
    words = [bytes.fromhex(written[i : i + 8])[::-1] for i in range(0, len(written), 8)]
    address = ipaddress.ip_address(b"".join(words))
    mapped = getattr(address, "ipv4_mapped", None)
    return (mapped or address).is_loopback


def described(each: dict[str, Any]) -> dict[str, Any]:
    """Give what CIS asks of a container."""
    host, config, state = each["HostConfig"], each["Config"], each["State"]
    pid = int(state["Pid"])
    health = config.get("Healthcheck") or {}
    return {
        "name": each["Name"].lstrip("/"),
        "service": config["Labels"].get("com.docker.compose.service", ""),
        "running": bool(state["Running"]),
        "exit_code": state["ExitCode"],
        "image": config["Image"],
        "user": config["User"],
        "health": (health.get("Test") or ["NONE"])[0] != "NONE",
        "apparmor": each.get("AppArmorProfile") or "",
        "cap_add": host["CapAdd"] or [],
        "cap_drop": host["CapDrop"] or [],
        "security_opt": host["SecurityOpt"] or [],
        "privileged": host["Privileged"],
        "devices": [d["PathOnHost"] for d in host["Devices"] or []],
        "read_only": host["ReadonlyRootfs"],
        "memory": host["Memory"],
        "cpus": host["NanoCpus"] or host["CpuQuota"] or host["CpuShares"],
        "pids": host["PidsLimit"] or 0,
        "restart": host["RestartPolicy"],
        "namespaces": {
            name: host[key] or ""
            for name, key in {
                "network": "NetworkMode",
                "process": "PidMode",
                "IPC": "IpcMode",
                "UTS": "UTSMode",
                "user": "UsernsMode",
            }.items()
        },
        "mounts": [
            {key: mount.get(key, "") for key in ("Source", "RW", "Propagation")}
            for mount in each["Mounts"]
            if mount["Type"] == "bind"
        ],
        "ports": [
            f"{bound['HostIp']}:{bound['HostPort']}"
            for several in (host["PortBindings"] or {}).values()
            for bound in several or []
        ],
        "networks": sorted(each["NetworkSettings"]["Networks"]),
        "may": rightful(processes(each["Id"])) if pid else [],
        "open_files": open_files(pid) if pid else "",
        "listens": inside(pid) if pid else [],
    }


def ours(who: list[tuple[str, str]], port: int, ports: list[int], networks: list[Any]) -> bool:
    """Tell whether a socket is the stack's: by its port, its unit, or the container behind it."""
    for _, pid in who:
        words = text(PROC / pid / "cmdline").split("\0")
        if "-container-ip" in words:
            address = ipaddress.ip_address(words[words.index("-container-ip") + 1])
            return any(address in network for network in networks)
        if "/gatehouse-" in text(PROC / pid / "cgroup"):
            return True
    return port in ports


def sockets(ports: list[int], networks: list[Any]) -> list[dict[str, Any]]:
    """Give every socket of ours that takes what comes, from the kernel's table."""
    found = []
    for line in run("ss", "-Hltunp").splitlines():
        words = line.split(maxsplit=6)
        address, _, port = words[4].rpartition(":")
        who = HOLDER.findall(words[6]) if len(words) > 6 else []  # noqa: PLR2004 - ss' columns
        if port.isdigit() and ours(who, int(port), ports, networks):
            plain = address.partition("%")[0].strip("[]")
            names = sorted({name for name, _ in who})
            found.append({"protocol": words[0], "address": plain, "port": int(port), "who": names})
    return found


def dangling() -> int:
    """Count the images that have no name any more."""
    wanted = "%7B%22dangling%22%3A%5B%22true%22%5D%7D"
    return len(json.loads(docker(f"/images/json?filters={wanted}")))


def info() -> dict[str, Any]:
    """Give what Docker says of itself, as far as CIS asks."""
    found = json.loads(docker("/info"))
    return {
        "version": found["ServerVersion"],
        "swarm": found["Swarm"]["LocalNodeState"],
        "security": found["SecurityOptions"] or [],
        "insecure": [
            name
            for name, each in (found["RegistryConfig"]["IndexConfigs"] or {}).items()
            if not each["Secure"]
        ]
        + [
            each
            for each in found["RegistryConfig"]["InsecureRegistryCIDRs"] or []
            if not ipaddress.ip_network(each).is_loopback
        ],
        "authorization": found["Plugins"]["Authorization"] or [],
        "live_restore": found["LiveRestoreEnabled"],
        "logging": found["LoggingDriver"],
        "storage": found["Driver"],
        "experimental": found["ExperimentalBuild"],
    }


def kernel_has_apparmor() -> bool:
    """Tell whether containers can be confined by AppArmor."""
    return text("/sys/module/apparmor/parameters/enabled").strip() == "Y"


def main() -> None:
    """Look, and answer."""
    asked = json.loads(sys.argv[1])
    networks = [ipaddress.ip_network(each) for each in asked["networks"]]
    tell(
        {
            "info": info,
            "daemon": daemon,
            "bridge": lambda: json.loads(docker("/networks/bridge"))["Options"],
            "files": files,
            "docker_group": docker_group,
            "audited": audited,
            "content_trust": lambda: "DOCKER_CONTENT_TRUST=1" in text("/etc/environment"),
            "containers": lambda: [described(each) for each in containers()],
            "sockets": lambda: sockets(asked["ports"], networks),
            "dangling": dangling,
            "kernel_has_apparmor": kernel_has_apparmor,
        },
        at_once=4,
    )


if __name__ == "__main__":
    main()
