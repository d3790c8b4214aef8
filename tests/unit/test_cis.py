"""The audit: every item can hold and can fail, and its exceptions are audited themselves."""

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from gatehouse.checks.cis import Item, items, look, search
from gatehouse.commands.audit import page
from gatehouse.probes import cis as looking
from gatehouse.probes import search as searching
from gatehouse.probes.cis import loopback, options
from gatehouse.tool.audit import Audit, judged, wanted
from tests import probes
from tests.given import settings

S = settings()
ITEMS = items(S)
Document = dict[str, Any]
Change = Callable[[Document], object]


def container(**changes: object) -> Document:
    """Give a container as the probe `cis` shows it."""
    return {
        "name": "gatehouse-redis-1",
        "service": "redis",
        "running": True,
        "exit_code": 0,
        "image": "redis:7-alpine",
        "user": "999:1000",
        "health": True,
        "apparmor": "docker-default",
        "cap_add": [],
        "cap_drop": ["ALL"],
        "security_opt": ["no-new-privileges:true"],
        "privileged": False,
        "devices": [],
        "read_only": True,
        "memory": 2**29,
        "cpus": 10**9,
        "pids": 64,
        "restart": {"Name": "no", "MaximumRetryCount": 0},
        "namespaces": {
            "network": "gatehouse_inner",
            "process": "",
            "IPC": "private",
            "UTS": "",
            "user": "",
        },
        "mounts": [
            {
                "Source": "/etc/gatehouse/secrets/redis_password",
                "RW": False,
                "Propagation": "rprivate",
            }
        ],
        "ports": ["127.0.0.1:6379"],
        "networks": ["gatehouse_inner"],
        "may": [],
        "open_files": "524288",
        "listens": ["tcp 6379"],
    } | changes


def documents() -> dict[str, Document]:
    """Give what the probes print on a host on which every item holds."""
    return {
        look(S): {
            "info": {
                "version": "28.3.3",
                "swarm": "inactive",
                "security": ["name=seccomp,profile=builtin", "name=userns"],
                "insecure": [],
                "authorization": ["a-plugin"],
                "live_restore": True,
                "logging": "syslog",
                "storage": "overlay2",
                "experimental": False,
            },
            "daemon": {
                "no-new-privileges": True,
                "userland-proxy": False,
                "hosts": ["fd://", "unix:///run/docker.sock"],
            },
            "bridge": {"com.docker.network.bridge.enable_icc": "false"},
            "files": {
                "docker.service": "644 root root",
                "docker.socket": "644 root root",
                "/etc/docker": "755 root root",
                "/run/docker.sock": "660 root docker",
                "/etc/docker/daemon.json": "600 root root",
            },
            "docker_group": [],
            "audited": ["/etc/docker"],
            "content_trust": True,
            "containers": [container()],
            "sockets": [
                {"protocol": "tcp", "address": "127.0.0.1", "port": 4000, "who": ["docker-proxy"]}
            ],
            "dangling": 2,
            "kernel_has_apparmor": True,
        },
        search(S): {"docker": [], "processes": [], "logs": [], "disk": [], "searched": 6},
    }


def audit(change: Change = lambda _document: None, **exceptions: str) -> Audit:
    """Audit a host on which everything holds but what a change breaks."""
    found = documents()
    # No name is used by both: a change is given all of them together.
    everything = found[look(S)] | found[search(S)]
    change(everything)
    answers = {
        command: (0, probes.printed({key: everything[key] for key in document}))
        for command, document in found.items()
    }
    return judged(ITEMS, answers, exceptions)


def put(*path: str | int, value: object) -> Change:
    """Give a change of one value of a document."""

    def change(document: Any) -> None:  # noqa: ANN401 - any part of a document
        for key in path[:-1]:
            document = document[key]
        document[path[-1]] = value

    return change


def of_container(**values: object) -> Change:
    """Give a change of the container."""

    def change(document: Document) -> None:
        document["containers"][0].update(values)

    return change


def shared(name: str) -> Change:
    """Give a change: the container shares a namespace of the host."""
    return put("containers", 0, "namespaces", name, value="host")


def mount(source: str, *, write: bool = False, propagation: str = "rprivate") -> Change:
    """Give a change: the container has this mount."""
    return of_container(mounts=[{"Source": source, "RW": write, "Propagation": propagation}])


# Item → what breaks it, and it alone.
BROKEN: dict[str, Change] = {
    "1.1.2": lambda d: d["docker_group"].append("alice"),
    "1.1.3": lambda d: d["audited"].clear(),
    "1.2.2": put("info", "version", value="28.3.2"),
    "2.2": put("bridge", "com.docker.network.bridge.enable_icc", value="true"),
    "2.3": put("daemon", "log-level", value="debug"),
    "2.4": put("daemon", "iptables", value=False),
    "2.5": put("info", "insecure", value=["registry.example.org"]),
    "2.6": put("info", "storage", value="aufs"),
    "2.7": put("daemon", "hosts", value=["unix:///run/docker.sock", "tcp://0.0.0.0:2375"]),
    "2.9": put("info", "security", value=["name=seccomp,profile=builtin"]),
    "2.12": put("info", "authorization", value=[]),
    "2.13": put("info", "logging", value="local"),
    "2.14": lambda d: d["daemon"].pop("no-new-privileges"),
    "2.15": put("info", "live_restore", value=False),
    "2.16": lambda d: d["daemon"].pop("userland-proxy"),
    "2.17": put("info", "security", value=["name=userns", "name=seccomp,profile=unconfined"]),
    "2.18": put("info", "experimental", value=True),
    "3.1": put("files", "docker.service", value="664 root root"),
    "3.3": put("files", "docker.socket", value="644 alice root"),
    "3.5": put("files", "/etc/docker", value="777 root root"),
    "3.15": put("files", "/run/docker.sock", value="666 root docker"),
    "3.17": put("files", "/etc/docker/daemon.json", value="646 root root"),
    "3.19": put("files", "/etc/default/docker", value="644 root staff"),
    "3.23": put("files", "containerd.sock", value="660 root docker"),
    "4.1": of_container(user="0:0"),
    "4.5": put("content_trust", value=False),
    "4.6": of_container(health=False),
    "4.10": lambda d: d["docker"].append("secrets/master_key in docker inspect x"),
    "5.1": put("info", "swarm", value="active"),
    "5.2": of_container(apparmor="unconfined"),
    "5.4": of_container(cap_add=["NET_ADMIN"]),
    "5.5": of_container(privileged=True),
    "5.6": mount("/etc"),
    "5.8": of_container(ports=["127.0.0.1:80"]),
    "5.9": of_container(ports=["127.0.0.1:8888"]),
    "5.10": shared("network"),
    "5.11": of_container(memory=0),
    "5.12": of_container(cpus=0),
    "5.13": of_container(read_only=False),
    "5.14": of_container(ports=["0.0.0.0:6379"]),
    "5.15": of_container(restart={"Name": "always", "MaximumRetryCount": 0}),
    "5.16": shared("process"),
    "5.17": shared("IPC"),
    "5.18": of_container(devices=["/dev/kvm"]),
    "5.19": of_container(open_files="unlimited"),
    "5.20": mount("/etc/gatehouse/x", propagation="rshared"),
    "5.21": shared("UTS"),
    "5.22": of_container(security_opt=["no-new-privileges:true", "seccomp=unconfined"]),
    "5.26": of_container(may=["sh has capabilities 00000000a80425fb"]),
    "5.28": of_container(image="redis:latest"),
    "5.29": of_container(pids=0),
    "5.30": of_container(networks=["bridge"]),
    "5.31": shared("user"),
    "5.32": mount("/run/docker.sock"),
    "6.1": put("dangling", value=21),
    "6.2": of_container(running=False),
    "G.1": lambda d: d["sockets"].append(
        {"protocol": "tcp", "address": "::", "port": 5434, "who": ["docker-proxy"]}
    ),
    "G.2": of_container(listens=["tcp 6379", "tcp 31337"]),
    "G.3": lambda d: d["processes"].append("secrets/salt_key in the command line of x"),
    "G.4": lambda d: d["logs"].append("secrets/salt_key in the journal"),
    "G.5": lambda d: d["disk"].append("secrets/salt_key in /etc/motd"),
}


def verdicts(found: Audit, verdict: str) -> list[str]:
    """Give the ids of the items with a verdict."""
    return [line.id for line in found.items if line.verdict == verdict]


def test_every_item_is_tried() -> None:
    """No item is without a case below that breaks it."""
    assert [item.id for item in ITEMS if item.id not in BROKEN] == []
    assert len({item.id for item in ITEMS}) == len(ITEMS) == len(BROKEN)


def test_host_on_which_all_holds_has_the_full_score() -> None:
    """Where nothing is wrong, all that applies has passed."""
    found = audit()
    assert verdicts(found, "fail") == []
    assert (found.passed, found.exit_code) == (found.applicable, 0)


@pytest.mark.parametrize("number", BROKEN)
def test_item_fails_for_its_own_reason(number: str) -> None:
    """What an item is about breaks it, and no other; the audit then ends with 1."""
    found = audit(BROKEN[number])
    assert verdicts(found, "fail") == [number]
    assert found.exit_code == 1


@pytest.mark.parametrize("item", ITEMS, ids=lambda item: item.id)
def test_item_does_not_hold_without_an_answer(item: Item) -> None:
    """A probe that did not run proves nothing."""
    found = item.check.judge(127, "sh: 1: python3: not found")
    assert (found.holds, found.answered) == (False, False)
    assert len(item.check.fix) > 10


@pytest.mark.parametrize(
    ("code", "said"), [(124, "no answer in 300 s"), (127, "sh: 1: python3: not found"), (-9, "")]
)
def test_host_that_gives_no_answer_is_unknown(code: int, said: str) -> None:
    """Nothing is excepted, absent or failed where nothing was looked at; the audit ends with 2."""
    asked = wanted(S)
    answers = {item.check.command: (code, said) for item in asked}
    found = judged(asked, answers, S.audit_exceptions)
    assert {line.verdict for line in found.items} == {"unknown"}
    assert (found.unknown, found.passed, found.failed) == (found.applicable, 0, 0)
    assert found.unknown == len(asked)
    assert found.exit_code == 2


def test_question_that_fails_leaves_its_items_unknown() -> None:
    """What Docker did not say is unknown, and AppArmor is not taken to be missing."""
    document = documents()
    said = probes.printed(document[look(S)], info="OSError: Docker answered 500")
    answers = {look(S): (0, said), search(S): (0, probes.printed(document[search(S)]))}
    found = judged(ITEMS, answers, {"2.13": "a single host"})
    unknown = verdicts(found, "unknown")
    assert {"1.2.2", "2.5", "2.13", "5.1"} < set(unknown)
    assert verdicts(found, "absent") == verdicts(found, "fail") == found.problems == []
    assert "5.2" not in unknown
    assert found.passed == found.applicable - len(unknown)
    assert found.exit_code == 2


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("-H fd:// -H tcp://0.0.0.0:2375", ["fd://", "tcp://0.0.0.0:2375"]),
        ("-H=fd:// -H=tcp://0.0.0.0:2375", ["fd://", "tcp://0.0.0.0:2375"]),
        ("--host fd:// --host tcp://0.0.0.0:2375", ["fd://", "tcp://0.0.0.0:2375"]),
        ("--host=fd:// --host=tcp://0.0.0.0:2375", ["fd://", "tcp://0.0.0.0:2375"]),
        ("-Hfd:// -DHtcp://[::]:2375", ["fd://", "tcp://[::]:2375"]),
        ("-D -H :2375 --debug", [":2375"]),
        ("--debug --containerd=/run/containerd/containerd.sock", []),
    ],
)
def test_hosts_are_read_as_dockerd_reads_them(words: str, expected: list[str]) -> None:
    """Every form of the option counts, however often it is there; a TCP address is no socket."""
    told = options(words.split())
    assert told["host"] == expected
    found = audit(put("daemon", "hosts", value=told["host"]))
    assert verdicts(found, "fail") == (["2.7"] if "2375" in words else [])


def test_options_are_read_as_dockerd_reads_them() -> None:
    """A value is in the next word, glued, or behind `=`; of one that is repeated the last counts."""
    told = options(["--log-level", "info", "-l=debug", "-G", "docker", "-D=false", "--tlsverify"])
    assert told["log-level"] == "debug"
    assert told["group"] == "docker"
    assert told["debug"] == "false"
    assert told["tlsverify"] == "true"
    assert options(["-lwarn", "--userland-proxy=false", "-vD"]) == {
        "log-level": "warn",
        "userland-proxy": "false",
        "version": "true",
        "debug": "true",
        "host": [],
    }


def test_verified_clients_may_use_tcp() -> None:
    """With tlsverify a TCP address holds; a daemon that only encrypts does not."""

    def change(document: Document) -> None:
        document["daemon"] |= {"hosts": ["tcp://0.0.0.0:2376"], "tls": True}

    assert verdicts(audit(change), "fail") == ["2.7"]
    assert verdicts(audit(lambda d: (change(d), d["daemon"].update(tlsverify=True))), "fail") == []


@pytest.fixture
def daemon(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Document]:
    """Give a call of what the probe says of a daemon: its file, its words, systemd's sockets."""

    def told(file: Document, *words: str, sockets: str = "") -> Document:
        (tmp_path / "7").mkdir(exist_ok=True)
        (tmp_path / "7/cmdline").write_text("".join(f"{word}\0" for word in words))
        path = tmp_path / "daemon.json"
        path.write_text(json.dumps(file))
        monkeypatch.setattr(looking, "DAEMON_JSON", str(path))
        monkeypatch.setattr(looking, "PROC", tmp_path)
        shown = {"MainPID": "7\n", "TriggeredBy": "docker.socket\n", "Listen": sockets}
        monkeypatch.setattr(looking, "run", lambda *command: shown[command[3]])
        return looking.daemon()

    return told


def test_daemon_is_told_in_three_places(daemon: Callable[..., Document]) -> None:
    """Its addresses are of its file, its command line and systemd's sockets; paths are none."""
    sockets = "/run/docker.sock (Stream)\n[::]:2375 (Stream)\n"
    file = {"hosts": ["tcp://10.0.0.1:1"], "icc": False}
    found = daemon(file, "dockerd", "-H", "fd://", "--icc=false", sockets=sockets)
    assert found == {
        "icc": "false",
        "hosts": ["tcp://10.0.0.1:1", "fd://", "tcp://[::]:2375"],
    }


def test_other_file_of_the_daemon_counts(daemon: Callable[..., Document], tmp_path: Path) -> None:
    """Who moves daemon.json away is not audited by the one that nobody reads."""
    other = tmp_path / "other.json"
    other.write_text('{"hosts": ["tcp://0.0.0.0:2375"]}')
    assert daemon({}, "dockerd", "--config-file", str(other))["hosts"] == ["tcp://0.0.0.0:2375"]


def test_daemon_that_is_not_found_is_no_answer(daemon: Callable[..., Document]) -> None:
    """Without its process nobody knows what the daemon was told."""
    with pytest.raises(OSError, match="dockerd's process is not found"):
        daemon({})


def test_no_apparmor_is_no_failure() -> None:
    """An item that cannot hold on this kernel is left out of the score, and says so."""
    whole = audit().applicable

    def change(document: Document) -> None:
        document["kernel_has_apparmor"] = False
        document["containers"][0]["apparmor"] = ""

    found = audit(change)
    assert verdicts(found, "absent") == ["5.2"]
    assert (found.applicable, found.exit_code) == (whole - 1, 0)


def test_exception_lets_its_item_pass() -> None:
    """An item that does not hold on purpose counts, is named with its reason, and fails nothing."""
    found = audit(BROKEN["2.13"], **{"2.13": "a single host"})
    (line,) = [line for line in found.items if line.id == "2.13"]
    assert (line.verdict, line.reason) == ("excepted", "a single host")
    assert (found.passed, found.exit_code) == (found.applicable - 1, 0)


@pytest.mark.parametrize(
    ("number", "words"), [("2.13", "that holds"), ("9.9", "there is no such item")]
)
def test_exception_that_is_none_fails(number: str, words: str) -> None:
    """An exception of what holds, or of nothing, fails the audit and is named."""
    found = audit(**{number: "a single host"})
    (problem,) = found.problems
    assert words in problem
    assert number in problem
    assert found.exit_code == 1


def test_shipped_exceptions_name_items_and_give_reasons() -> None:
    """What ships excepted are items that there are, and each fails where nothing is done for it."""
    ids = [item.id for item in wanted(S)]
    for number, reason in S.audit_exceptions.items():
        assert number in ids
        assert audit(BROKEN[number], **{number: reason}).exit_code == 0


def test_ids_are_unique() -> None:
    """An id means one item, those that come from the status too."""
    ids = [item.id for item in wanted(S)]
    assert len(set(ids)) == len(ids) > len(ITEMS)


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ("0100007F", True),
        ("0B00007F", True),
        ("00000000", False),
        ("0128A8C0", False),
        ("00000000000000000000000001000000", True),
        ("0000000000000000FFFF00000100007F", True),
        ("00000000000000000000000000000000", False),
    ],
)
def test_loopback_is_read_as_the_kernel_writes_it(written: str, *, expected: bool) -> None:
    """/proc/net writes addresses in words of the machine's byte order."""
    assert loopback(written) is expected


@pytest.fixture
def secrets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Give a host's secrets elsewhere, and a tree that is searched."""
    folder = tmp_path / "secrets"
    (folder / "providers").mkdir(parents=True)
    (folder / "master_key").write_text("sk-0123456789abcdef\n")
    (folder / "providers" / "SHORT").write_text("ollama\n")
    monkeypatch.setattr(searching, "HOLDERS", (str(folder),))
    monkeypatch.setattr(searching, "TREES", (str(tmp_path / "tree"),))
    (tmp_path / "tree").mkdir()
    return tmp_path


def test_search_knows_names_not_lengths(secrets: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Secrets are known by their files; a word that anything could hold is no secret."""
    monkeypatch.setattr(searching, "ROOT", str(secrets))
    assert searching.needles() == {"secrets/master_key": b"sk-0123456789abcdef"}


def test_search_says_where_and_not_what(secrets: Path) -> None:
    """A file that holds a secret is named with its readers; the value is not."""
    tree = secrets / "tree"
    (tree / "notes").write_text("the key is sk-0123456789abcdef, do not tell")
    (tree / "notes").chmod(0o644)
    (tree / "models").mkdir()
    (tree / "models" / "file").write_text("sk-0123456789abcdef")
    (tree / "link").symlink_to(tree / "notes")
    needles = {"secrets/master_key": b"sk-0123456789abcdef"}
    (place,) = searching.in_files(needles, {str(tree / "models")})
    assert place == f"secrets/master_key in {tree}/notes (readable for everybody)"


def test_search_finds_a_secret_across_two_reads(monkeypatch: pytest.MonkeyPatch) -> None:
    """A log is read in pieces; what lies across two of them is found."""
    monkeypatch.setattr(searching, "CHUNK", 10)
    needles = {"a": b"0123456789ab", "b": b"zzzzzzzz"}
    command = ["printf", "%s", "xxxxxxx0123456789abxxxxxxxxx"]
    assert searching.stream(needles, command, 2**20) == {"a"}


def test_command_that_fails_is_no_search() -> None:
    """What a command printed before it failed is not all there is; one that was stopped has not."""
    needles = {"a": b"0123456789ab"}
    with pytest.raises(OSError, match="sh ended with 3: no journal"):
        searching.stream(needles, ["sh", "-c", "echo x; echo no journal >&2; exit 3"], 2**20)
    endless = ["sh", "-c", "echo 0123456789ab; exec cat /dev/zero"]
    assert searching.stream(needles, endless, 2**22) == {"a"}


@pytest.fixture
def logs(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], list[str]]:
    """Give a look at the logs of a host whose journal holds a secret, by Docker's refusal."""

    def look(refusal: str) -> list[str]:
        def docker(path: str) -> bytes:
            if "logs" in path:
                raise OSError(refusal)
            return b'[{"Id": "1", "Names": ["/quiet"]}]'

        monkeypatch.setattr(searching, "docker", docker)
        monkeypatch.setattr(searching, "stream", lambda *_: {"secrets/a"})
        return sorted(searching.complete(searching.in_logs({})))

    return look


def test_only_a_driver_that_keeps_nothing_is_passed_over(
    logs: Callable[[str], list[str]],
) -> None:
    """Any other refusal is told, and with it what was found before."""
    none = "Docker answered 501: configured logging driver does not support reading"
    assert logs(none) == ["secrets/a in the journal"]
    assert logs("Docker answered 500: no space left") == [
        "not all was looked at (Docker answered 500: no space left)",
        "secrets/a in the journal",
    ]


def test_search_that_found_nothing_and_broke_off_is_no_answer() -> None:
    """Nothing wrong is only said of what was looked at to its end."""

    def places() -> Iterator[str]:
        raise OSError("gone")
        yield ""

    with pytest.raises(OSError, match="gone"):
        searching.complete(places())


def test_core_dump_of_who_held_secrets_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those of root and of containers' users are; those of a person's programs are not."""
    monkeypatch.setattr(searching, "DUMPS", str(tmp_path))
    for name in ("python3.65534.b.1.2.zst", "restic.0.b.3.4.zst", "firefox.1000.b.5.6.zst"):
        (tmp_path / f"core.{name}").touch()
    found = list(searching.dumps([{"Config": {"User": "65534:65534"}}]))
    assert [place.rpartition(" in ")[0] for place in found] == [
        "perhaps every secret of python3",
        "perhaps every secret of restic",
    ]
    assert f"{tmp_path}/core.restic.0.b.3.4.zst" in found[1]


def test_only_memory_is_searched_below_run() -> None:
    """What is mounted there for others is not of this host's making, or is not on it."""
    assert searching.elsewhere(
        "23 1 0:21 / /run rw - tmpfs tmpfs rw\n"
        "41 23 0:40 / /run/user/1000 rw shared:9 - tmpfs tmpfs rw\n"
        "42 41 0:41 / /run/user/1000/gvfs rw shared:9 master:1 - fuse.gvfsd-fuse gvfsd rw\n"
        "43 23 0:42 / /run/containerd/x/rootfs rw - overlay overlay rw\n"
        "44 1 0:43 / /home rw - nfs4 other:/home rw\n"
    ) == {"/run/user/1000/gvfs", "/run/containerd/x/rootfs"}


def test_page_names_what_is_searched() -> None:
    """The folders of the page are those of the search."""
    told = page().partition("in files below ")[2].partition(". It prints")[0]
    assert sorted(re.findall("`([^`]+)`", told)) == sorted(searching.TREES)


def test_container_rightly_has_what_is_mounted_into_it() -> None:
    """Who is given a secret, by a file or by its folder, has it; nobody else."""
    needles = {
        "secrets/redis_password": b"x",
        "secrets/providers/KEY": b"y",
        "secrets/salt_key": b"z",
    }
    found = [
        {"Id": "redis", "Mounts": [{"Source": "/etc/gatehouse/secrets/redis_password"}]},
        {"Id": "litellm", "Mounts": [{"Source": "/etc/gatehouse/secrets/providers"}]},
    ]
    assert searching.given(found, needles) == {
        "redis": {"secrets/redis_password"},
        "litellm": {"secrets/providers/KEY"},
    }
