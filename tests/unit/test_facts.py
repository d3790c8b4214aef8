"""Facts: what hosts print is read right, and the commands that ask are valid shell."""

import json
import os
import subprocess
from pathlib import Path

import pytest

from gatehouse.deploys import facts
from gatehouse.deploys.facts import Container, Stat, parse_json
from gatehouse.probes import common

HOST = """\
system=ubuntu 24.04
system_name=Ubuntu 24.04.1 LTS
systemd=yes
cores=16
memory_kib=32768000
disk_path=/var/lib/docker
disk_kib=104857600
room=/opt/gatehouse/releases 262143
ntp=no
ntp=yes
listener=LISTEN 0 4096 127.0.0.1:6379       0.0.0.0:*    users:(("redis",pid=812,fd=6))
listener=LISTEN 0 4096 127.0.0.53%lo:53          0.0.0.0:*    users:(("resolved",pid=5,fd=1))
listener=LISTEN 0 511 [::]:80             [::]:*    users:(("nginx",pid=1,fd=7))
listener=LISTEN 0 511 *:9090              *:*    users:(("prometheus",pid=3,fd=7))
listener=LISTEN 0 4096 0.0.0.0:8000       0.0.0.0:*    users:(("docker-proxy",pid=2,fd=7))
listener=LISTEN 0 128 [::ffff:127.0.0.1]:7000        *:*
own_port=4000
own_port=5434
own_port=
container=vllm 0.0.0.0:8000->8000/tcp, [::]:8000->8000/tcp
container=range 0.0.0.0:3000-3002->80-82/tcp
container=dns 0.0.0.0:5300->53/udp
container=inner 5432/tcp
engine=26.1.5+dfsg1
compose=v2.26.1-4
daemon_json={
daemon_json=  "log-driver": "local"
daemon_json=}
provider_key=OLLAMA_API_KEY
provider_key=MY_KEY.new
secrets_group=gatehouse-secrets
route=default via 192.0.2.1 dev eth0
route=192.0.2.0/24 dev eth0 proto kernel scope link src 192.0.2.10
route=10.9.0.7 via 192.0.2.2 dev wg0
"""


# OpenSSH 10 as a service on 22 and 2222, somebody logged in, a tunnel, and a page being looked at.
SSH = """\
listener=LISTEN 0 128 0.0.0.0:22 0.0.0.0:* users:(("sshd",pid=82,fd=6))
listener=LISTEN 0 128 [::]:22 [::]:* users:(("sshd",pid=82,fd=7))
listener=LISTEN 0 128 127.0.0.1:6010 0.0.0.0:* users:(("sshd-session",pid=90,fd=9))
listener=LISTEN 0 128 0.0.0.0:8899 0.0.0.0:* users:(("sshd-session",pid=90,fd=11))
listener=LISTEN 0 128 127.0.0.1:4000 0.0.0.0:* users:(("docker-proxy",pid=91,fd=9))
ssh_port=22
ssh_session=0 0 192.0.2.10:22 192.0.2.7:51234 users:(("sshd-session",pid=90,fd=7))
ssh_session=0 0 [::ffff:192.0.2.10]:22 [::ffff:192.0.2.8]:51235 users:(("sshd-session",pid=93,fd=7))
ssh_session=0 0 127.0.0.1:38822 127.0.0.1:4000 users:(("sshd-session",pid=90,fd=8))
ssh_session=0 0 127.0.0.1:6010 127.0.0.1:52000 users:(("sshd-session",pid=90,fd=10))
ssh_session=0 0 192.0.2.10:8899 203.0.113.5:52000 users:(("sshd-session",pid=90,fd=12))
ssh_session=0 0 127.0.0.1:22 127.0.0.1:52002 users:(("sshd-session",pid=95,fd=7))
"""


def test_ssh_ports_are_those_that_are_configured_and_come_in_by() -> None:
    """A tunnel's own end is no port of sshd, and what sshd only forwards is none either.

    Nor is somebody a peer who uses such a thing, or who is on the host already.
    """
    host = facts.HostFact().process(SSH.splitlines())
    assert host.ssh_ports == {22}
    assert host.ssh_peers == {"192.0.2.7", "192.0.2.8"}
    told = facts.HostFact().process([*SSH.splitlines(), "ssh_port=22", "ssh_port=2222"])
    assert told.ssh_ports == {22, 2222}


def test_ssh_port_that_nobody_told_of_is_one_where_another_listens() -> None:
    """Somebody who came in by inetd's port, or by a socket of systemd's with any name, comes again."""
    lines = [
        'listener=LISTEN 0 128 *:2022 *:* users:(("systemd",pid=1,fd=48))',
        'ssh_session=0 0 192.0.2.10:2022 192.0.2.7:51234 users:(("sshd",pid=90,fd=7))',
    ]
    host = facts.HostFact().process(lines)
    assert (host.ssh_ports, host.ssh_peers) == ({2022}, {"192.0.2.7"})
    assert facts.HostFact().process([]).ssh_ports == frozenset()
    assert facts.HostFact().process(["firewall=ufw"]).firewalls == ("ufw",)


def shell(command: str) -> list[str]:
    """Run the fact's command here and give its lines as pyinfra does."""
    done = subprocess.run(["sh", "-c", command], capture_output=True, text=True, check=True)
    return done.stdout.removesuffix("\n").split("\n") if done.stdout else []


def test_host_is_read() -> None:
    """The lines of HostFact become the host."""
    host = facts.HostFact().process(HOST.splitlines())
    assert (host.system, host.system_name) == ("ubuntu 24.04", "Ubuntu 24.04.1 LTS")
    assert (host.systemd, host.clock_kept) == (True, True)
    assert (host.cores, host.memory_mib, host.disk_mib) == (16, 32000, 102400)
    assert host.rooms == {"/opt/gatehouse/releases": 255}
    assert (host.engine, host.compose) == ("26.1.5+dfsg1", "2.26.1-4")
    assert parse_json(host.daemon_json) == {"log-driver": "local"}
    assert host.provider_keys == {"OLLAMA_API_KEY"}
    assert host.own_ports == {4000, 5434}
    assert host.secrets_group == "gatehouse-secrets"


@pytest.mark.parametrize(
    ("port", "who"),
    [
        (6379, '(("redis",pid=812,fd=6))'),
        (53, '(("resolved",pid=5,fd=1))'),
        (80, '(("nginx",pid=1,fd=7))'),
        (9090, '(("prometheus",pid=3,fd=7))'),
        (7000, "an unknown process"),
        (8000, "the container vllm"),
        (3000, "the container range"),
        (3002, "the container range"),
        (5300, None),
        (5432, None),
    ],
)
def test_listener_is_named(port: int, who: str | None) -> None:
    """A port's owner is the process, or the container behind Docker's proxy; ranges too."""
    assert facts.HostFact().process(HOST.splitlines()).listeners.get(port) == who


def test_routes_are_read() -> None:
    """Networks and single addresses with their device; everything else goes the default way."""
    routes = facts.HostFact().process(HOST.splitlines()).routes
    assert routes == {"192.0.2.0/24": "eth0", "10.9.0.7": "wg0"}


def test_host_that_says_nothing_is_an_unknown_one() -> None:
    """A host without any of the tools that are asked gives a host that is refused, no crash."""
    host = facts.HostFact().process([])
    assert (host.system, host.systemd, host.memory_mib, host.clock_kept) == ("", False, 0, False)
    assert (host.listeners, host.engine, host.secrets_group) == ({}, "", "")


@pytest.mark.parametrize("who", ["root", "sudo", "none"])
def test_access_is_one_word(who: str) -> None:
    """The answer is the word."""
    assert facts.Access().process([f"{who}\n"]) == who


def test_paths_are_read(tmp_path: Path) -> None:
    """Kind, mode and hash of what exists; what does not exist is left out."""
    (tmp_path / "a file").write_text("hello")
    (tmp_path / "empty").touch(mode=0o600)
    (tmp_path / "a file").chmod(0o640)
    paths = [str(tmp_path / name) for name in ("a file", "empty", "missing")] + [str(tmp_path)]
    found = facts.Paths().process(shell(facts.Paths().command(paths)))
    assert list(found) == [paths[0], paths[1], paths[3]]
    assert (found[paths[0]].kind, found[paths[0]].mode) == ("regular file", "640")
    assert found[paths[0]].sha256.startswith("2cf24dba5fb0a30e26e83b2ac5b9e29e")
    assert found[paths[1]].kind == "regular file"
    assert found[str(tmp_path)] == Stat("directory", "700", *_owner(tmp_path))


def _owner(path: Path) -> tuple[str, str]:
    return path.owner(), path.group()


def test_containers_are_read() -> None:
    """One line is one container; only a running one that is healthy, or has no check, is ready."""
    found = facts.Containers().process(
        [
            "gatehouse-redis-1|redis|abc|running|healthy|0|redis:7|no",
            "gatehouse-litellm-migrate-1|litellm-migrate||exited|none|1|x:1|secret",
            "gatehouse-postgres-1|postgres|abc|running|starting|0|postgres:16|image",
        ]
    )
    assert found[0] == Container(
        "gatehouse-redis-1", "redis", "abc", "running", "healthy", 0, "redis:7", stale=False
    )
    assert [c.ready for c in found] == [True, False, False]
    assert [c.stale for c in found] == [False, True, True]
    assert found[1].exit_code == 1


def test_images_are_read() -> None:
    """Reference and id, separated by a space."""
    assert facts.Images().process(["redis:7 sha256:1"]) == {"redis:7": "sha256:1"}


def test_text_is_read_whole(tmp_path: Path) -> None:
    """The lines are joined as they were; what is missing is empty."""
    path = tmp_path / "it's"
    path.write_text("one\n\ntwo\n")
    assert facts.Text().process(shell(facts.Text().command(str(path)))) == "one\n\ntwo\n"
    assert shell(facts.Text().command(str(tmp_path / "missing"))) == []


@pytest.mark.parametrize(
    ("command", "rc", "out"),
    [
        ("true", 0, ""),
        ("echo one; echo two >&2; exit 3", 3, "one\ntwo"),
        ("printf 'no newline'", 0, "no newline"),
        ("echo '%s 1'", 0, "%s 1"),
        ("nosuchcommand 2>/dev/null", 127, ""),
    ],
)
def test_run_splits_off_the_exit_code(command: str, rc: int, out: str) -> None:
    """Output and exit code arrive as they were."""
    assert facts.Run().process(shell(facts.Run().command(command))) == {"rc": rc, "out": out}


def test_run_all_keeps_results_apart() -> None:
    """Several commands in one: each has its own exit code and output, and none ends the others."""
    commands = ["echo a; echo b >&2", "exit 4", "printf c", "true", "echo; echo d; false"]
    assert facts.RunAll().process(shell(facts.RunAll().command(commands))) == [
        {"rc": 0, "out": "a\nb"},
        {"rc": 4, "out": ""},
        {"rc": 0, "out": "c"},
        {"rc": 0, "out": ""},
        {"rc": 1, "out": "\nd"},
    ]


@pytest.mark.parametrize(
    "command",
    [
        facts.Access().command(),
        facts.HostFact().command(secrets_gid=14670),
        facts.Paths().command(["/a b", "/c"]),
        facts.Containers().command(),
        facts.Logs().command("redis"),
        facts.Images().command(["redis:7"]),
        facts.Text().command("/a"),
        facts.Run().command("true"),
        facts.RunAll().command(["true", "false"]),
    ],
    ids=lambda command: command.strip()[:20],
)
def test_command_is_valid_shell(command: str) -> None:
    """Any POSIX shell can read the command."""
    done = subprocess.run(["sh", "-n"], input=command, text=True, capture_output=True, check=False)
    assert not done.stderr


@pytest.mark.parametrize("text", ["{", "[]", '"x"', "{'a': 1}", "null"])
def test_json_that_is_no_object_is_an_error(text: str) -> None:
    """A file that holds no JSON object cannot be merged into."""
    with pytest.raises(ValueError, match=r"."):
        parse_json(text)


def test_json_that_is_missing_is_an_empty_object() -> None:
    """No daemon.json is the same as an empty one."""
    assert parse_json("") == parse_json(" \n") == parse_json("{}") == {}


# What Docker says, what it is told → where it keeps its data.
ROOTS = {
    "it says": ("/srv/docker", '{"data-root": "/srv/later"}', "/srv/docker"),
    "it is told": ("", '{"log-driver": "local", "data-root": "/srv/later"}', "/srv/later"),
    "nobody says": ("", "{}", "/var/lib/docker"),
    "nobody can say": ("", "{", "/var/lib/docker"),
    "nothing is there": ("", None, "/var/lib/docker"),
}


@pytest.mark.parametrize("case", ROOTS)
def test_data_root_is_the_same_for_shell_and_python(
    case: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Where Docker does not say where it keeps its data, its file does, else its default holds."""
    says, told, root = ROOTS[case]
    file, command = tmp_path / "daemon.json", tmp_path / "docker"
    if told is not None:
        file.write_text(told)
    command.write_text(f"#!/bin/sh\necho '{says}'\n[ -n '{says}' ]\n")
    command.chmod(0o700)

    def answer(path: str) -> bytes:
        if not says:
            raise OSError(path)
        return json.dumps({"DockerRootDir": says}).encode()

    monkeypatch.setattr(common, "docker", answer)
    monkeypatch.setattr(common, "DAEMON_JSON", str(file))
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    script = facts.DOCKER_ROOT.replace("/etc/docker/daemon.json", str(file))
    done = subprocess.run(["sh", "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == common.docker_root() == root
