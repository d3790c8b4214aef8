"""Probes: programs that a host's own Python runs, and answers that are judged without a host."""

import copy
import json
import shlex
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from gatehouse.checks import every, findings
from gatehouse.checks.backup import known
from gatehouse.checks.docker import STACK
from gatehouse.checks.host import disk
from gatehouse.checks.litellm import SELFTEST, address
from gatehouse.checks.network import SOCKETS
from gatehouse.checks.postgres import database
from gatehouse.checks.probe import probe, program
from gatehouse.probes import common, gateway
from gatehouse.probes import disk as disk_probe
from gatehouse.render.template import ROOT
from tests import probes
from tests.given import rendered, settings

S = settings()
PROBES = sorted(
    path.stem
    for path in (ROOT / "gatehouse/probes").glob("*.py")
    if path.stem not in {"__init__", "common"}
)
DOCUMENTS = probes.documents(S, rendered())
GATEWAY = probe("gateway", address(S), SELFTEST)
CACHE = probe("cache", "127.0.0.1", str(S.redis_port))
LOGIN = probe("login", address(S), S.litellm_admin_user)
BACKUP = known(S)
LEAKS = probe("leaks", S.models_dir)
SILENT = {
    check.command: "" for check in every(S) if check.command not in probes.answers(S, rendered())
}

Change = Callable[[Any], object]
LITELLM = 0
POSTGRES = 3


def failing(command: str, change: Change) -> list[str]:
    """Give the checks that do not hold, and do not follow, where one document is changed."""
    document = copy.deepcopy(DOCUMENTS[command])
    change(document)
    answers = SILENT | probes.answers(S, rendered()) | {command: probes.printed(document)}
    found = findings(every(S), {key: (0, text) for key, text in answers.items()})
    return [each.check.name for each in found if each.state in {"failure", "warning"}]


def put(*path: str | int, value: object) -> Change:
    """Give a change of one value of a document."""

    def change(document: Any) -> None:  # noqa: ANN401 - any part of a document
        for key in path[:-1]:
            document = document[key]
        document[path[-1]] = value

    return change


def service(name: str, **values: object) -> Change:
    """Give a change of one container."""

    def change(document: dict[str, Any]) -> None:
        (mine,) = (each for each in document["containers"] if each["service"] == name)
        mine.update(values)

    return change


# Which probe, what it says, and the one check that does not hold then.
BROKEN: list[tuple[str, Change, str]] = [
    (STACK, put("version", value="24.0.9"), "docker: the engine answers"),
    (STACK, put("live_restore", value=False), "docker: live restore as set"),
    *(
        (STACK, service("redis", **{key: value}), "docker: containers are hardened")
        for key, value in {
            "read_only": False,
            "cap_drop": [],
            "cap_add": ["NET_ADMIN"],
            "security_opt": [],
            "privileged": True,
            "user": "root",
            "memory": 0,
            "cpus": 0,
            "pids": 0,
            "mounts": ["/var/run/docker.sock"],
        }.items()
    ),
    (
        STACK,
        service("redis", newest=False),
        "docker: images are those that the containers run",
    ),
    (
        STACK,
        put("images", S.redis_image, value=["sha256:1"]),
        "docker: locked images are those that the containers run",
    ),
    (STACK, put("unlike", value=["x"]), "docker: containers see the release's files"),
    (STACK, put("networks", "edge", value="10.0.0.0/24"), "network: edge has its subnet"),
    (STACK, service("redis", health="unhealthy"), "redis: healthy"),
    (STACK, service("postgres", status="exited"), "postgres: healthy"),
    (STACK, service("redis", inputs="0"), "redis: of the current release"),
    (STACK, service("postgres", image="x:1"), "postgres: of the current release"),
    (STACK, service("litellm", inputs="0"), "litellm: of the current release"),
    (STACK, service("litellm-migrate", exit_code=1), "litellm: migrations done"),
    (STACK, put("environment", "salt_key", value="other"), "secrets: LiteLLM runs with those on disk"),
    (
        STACK,
        put("environment", "LITELLM_TELEMETRY_DISABLED", value=""),
        "privacy: nothing is told to anybody",
    ),
    *(
        (STACK, put("configuration", key, value="other"), "privacy: the configuration that runs is as promised")
        for key in DOCUMENTS[STACK]["configuration"]
    ),
    (disk(S), put("changed", value=["/x"]), "host: files are as rendered"),
    (disk(S), put("modes", value=["/x"]), "host: modes of files are as rendered"),
    (disk(S), put("writable", value=["/x"]), "host: nothing is writable for everybody"),
    (disk(S), put("leftovers", value=["/x"]), "host: nothing half-made is left"),
    (disk(S), put("rooms", value={"/": 500}), "host: the disk is not full"),
    (disk(S), put("rooms", value={"/": 90000, "/x": 2000}), "host: the disk has room"),
    (disk(S), put("memory", "available", value=100), "host: memory is left"),
    (disk(S), put("secrets", value=["x"]), "secrets: made, and no default"),
    (disk(S), put("secret_modes", value=["x"]), "secrets: readable for their readers only"),
    *(
        (disk(S), put("directories", path, value="777 root root"), f"host: {path}")
        for path in DOCUMENTS[disk(S)]["directories"]
    ),
    *(
        (disk(S), put("units", value=[probes.unit("gatehouse-x.timer", **change)]), "host: units run")
        for change in (
            {"active": "failed"},
            {"active": "inactive"},
            {"enabled": "disabled"},
        )
    ),
    (
        disk(S),
        put("units", value=[probes.unit("gatehouse-x.service", active="failed", runs=False, installed=False)]),
        "host: jobs end well",
    ),
    (database(S), put("server", "limit", value=99), "postgres: takes as many connections as set"),
    (database(S), put("server", "connections", value=81), "postgres: connections are left"),
    (database(S), put("server", "locks", value=1), "postgres: nobody sits on the migration lock"),
    (database(S), put("server", "idle", value=1), "postgres: no forgotten connections"),
    (database(S), put("server", "pooled", value=26), "postgres: the proxy keeps to its pool"),
    (database(S), put("server", "bytes", value=10241 * 2**20), "postgres: small enough"),
    (
        database(S),
        put("spend", value={"bytes": 2**30, "day": 10**5, "rows": 10**5, "oldest_days": 1}),
        "postgres: spend logs stay small enough",
    ),
    (database(S), put("spend", "oldest_days", value=94.0), "postgres: old spend logs are removed"),
    (database(S), put("prompts", value=3), "privacy: no prompt in the spend logs"),
    (database(S), put("admin", value=[]), "litellm: the admin user is there"),
    (database(S), put("admin", value=["internal_user"]), "litellm: the admin user is there"),
    (database(S), put("missing_tables", value=["LiteLLM_SkillsTable"]), "litellm: no table is missing"),
    (database(S), put("keys", value=[{"alias": "a", "left": -1, "limited": True}]), "keys: none has ended"),
    (database(S), put("keys", value=[{"alias": "a", "left": 9, "limited": True}]), "keys: none ends soon"),
    (database(S), put("keys", value=[{"alias": "a", "left": None, "limited": False}]), "keys: all have limits"),
    (database(S), put("migrations", "missing", value=["x"]), "litellm: migrations complete"),
    (database(S), put("migrations", "failed", value=["x"]), "litellm: migrations complete"),
    (GATEWAY, put("liveness", value=503), "litellm: alive"),
    (GATEWAY, put("readiness", "db", value="Not connected"), "litellm: connected to its database"),
    (GATEWAY, put("anonymous", value=200), "litellm: refuses a client without a key"),
    (GATEWAY, put("unlisted", value=["x"]), "litellm: lists its models"),
    (GATEWAY, put("completion", "object", value="error"), "litellm: answers through the self-test model"),
    (GATEWAY, put("unreadable", value=["x"]), "litellm: every provider is readable"),
    (GATEWAY, put("page", value=False), "litellm: serves its web interface"),
    (LOGIN, put("login", value="LiteLLM answered 500"), "litellm: lets the admin in"),
    (CACHE, put("login", value="-WRONGPASS"), "redis: answers"),
    (CACHE, put("milliseconds", value=51.0), "redis: answers quickly"),
    (CACHE, put("info", "maxmemory", value="0"), "redis: memory within its limit"),
    (CACHE, put("info", "used_memory", value=str(321 * 2**20)), "redis: memory within its limit"),
    (CACHE, put("info", "evicted_keys", value="100"), "redis: large enough"),
    (CACHE, put("anonymous", value="$-1"), "redis: refuses without its password"),
    (BACKUP, put("backup", "there", value=False), "backup: the repository is there"),
    (BACKUP, put("backup", "backup", "last", "ok", value=False), "backup: the last one is good and new"),
    (BACKUP, put("backup", "backup", "verify", "ok", value=False), "backup: what it holds can be read"),
    (BACKUP, put("backup", "drill", "last", "ok", value=False), "backup: it comes back"),
    (BACKUP, put("backup", "backup", "shown", value=None), "backup: its password is kept elsewhere"),
    (BACKUP, put("restore", value="broken off"), "backup: no restore was broken off"),
    (BACKUP, put("aside", value=[{"name": "litellm_aside_1", "bytes": 1}]), "backup: no database was put aside"),
    (LEAKS, put("places", value=["a secret shows in ps"]), "secrets: visible nowhere else"),
]  # fmt: skip


@pytest.mark.parametrize(("command", "change", "name"), BROKEN)
def test_answer_fails_its_check_and_no_other(command: str, change: Change, name: str) -> None:
    """What a probe says is wrong is one check's alone; the others hold, or follow from it."""
    assert failing(command, change) == [name]


def test_every_check_of_a_probe_is_shown_failing() -> None:
    """No check of a probe is missing in the list above, but those that only have to get answers."""
    every_one = {check.name for check in every(S) if check.command in DOCUMENTS}
    shown = {name for _, _, name in BROKEN}
    assert every_one - shown == {
        "postgres: answers",
        "litellm: healthy",
        "litellm: its version may be used",
    } | {name for name in every_one if name.startswith("network: inner")}


def test_nothing_fails_where_all_is_right() -> None:
    """The documents that the changes above start from are those of a right host."""
    assert failing(STACK, lambda _: None) == []


@pytest.mark.parametrize("command", [*DOCUMENTS, SOCKETS], ids=lambda text: text[-40:])
def test_probe_without_an_answer_fails_one_check_of_its_own(command: str) -> None:
    """A probe that breaks off is not taken for one that found nothing wrong."""
    answers = {key: (0, text) for key, text in (SILENT | probes.answers(S, rendered())).items()}
    found = findings(every(S), answers | {command: (1, "Traceback …\nOSError: no such socket")})
    mine = [each for each in found if each.check.command == command]
    assert all(not each.result.holds for each in mine)
    assert {each.state for each in mine} & {"failure", "warning"}
    assert any("OSError: no such socket" in each.result.found for each in mine)


def test_question_that_failed_is_told_with_its_error() -> None:
    """An answer that is missing says why; the others are judged as ever."""
    document = copy.deepcopy(DOCUMENTS[GATEWAY])
    del document["unreadable"]
    text = probes.printed(document, unreadable="OSError: /model/info answered 500")
    found = {check.name: check.judge(0, text) for check in every(S) if check.command == GATEWAY}
    wrong = {name: result.found for name, result in found.items() if not result.holds}
    assert wrong == {"litellm: every provider is readable": "OSError: /model/info answered 500"}


def test_engine_refused_version_is_named() -> None:
    """A container of a version that must not serve is told with the reason."""
    (check,) = (each for each in every(S) if each.name == "litellm: its version may be used")
    document = copy.deepcopy(DOCUMENTS[STACK])
    service("litellm", image="x/litellm:1.82.7")(document)
    found = check.judge(0, probes.printed(document))
    assert not found.holds
    assert "MAL-2026-2144" in found.found


@pytest.mark.parametrize("name", PROBES)
def test_probe_is_a_program_of_the_standard_library(name: str) -> None:
    """Its text compiles alone, names nothing of Gatehouse, and runs its own main once."""
    text = program(name)
    compile(text, name, "exec")
    assert "from gatehouse" not in text
    assert text.count("if __name__") == 1
    assert shlex.split(probe(name, "it's"))[-2:] == [text, "it's"]


def test_probe_of_the_disk_answers_anywhere(tmp_path: Path) -> None:
    """Where there is no gateway, each answer is there or says why not."""
    asked = json.dumps({"directories": {}, "secrets": ["x"], "rooms": [str(tmp_path)]})
    done = subprocess.run(
        [sys.executable, "-I", "-c", program("disk"), asked],
        capture_output=True,
        text=True,
        check=True,
    )
    found = json.loads(done.stdout)
    assert found["memory"]["total"] > 0
    assert next(iter(found["rooms"].values())) > 0
    assert "manifest.json" in found["errors"]["changed"]


@contextmanager
def stub(answers: dict[str, tuple[int, object]]) -> Iterator[str]:
    """Run something that answers as LiteLLM does, and give its address."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            status, body = answers[self.path]
            self.send_response(status)
            self.end_headers()
            self.wfile.write(json.dumps(body).encode())

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


CIPHERTEXT = "k3ZzH0m1qk8b3l9nVq0cS7a1d2F4g5H6j7K8l9Z0x1C2v3B4n5M6Q7w8E9r0T1y2"


@pytest.mark.parametrize(
    ("parameters", "found"),
    [
        ({"model": "ollama_chat/qwen3:8b", "custom_llm_provider": "ollama_chat"}, []),
        ({"model": "openai/Qwen2.5-0.5B-Instruct-AWQ", "api_base": "http://x:8000/v1"}, []),
        ({"model": CIPHERTEXT}, ["chat: model"]),
        ({"model": "x/y", "custom_llm_provider": CIPHERTEXT}, ["chat: custom_llm_provider"]),
        ({"model": "x/y", "api_base": "v2:gcm:AAAA"}, ["chat: api_base"]),
    ],
)
def test_ciphertext_is_told_from_names(parameters: dict[str, str], found: list[str]) -> None:
    """What this salt key could not read is ciphertext; long names and addresses are not."""
    body = {"data": [{"model_name": "chat", "litellm_params": parameters}]}
    with stub({"/model/info": (200, body)}) as url:
        assert gateway.unreadable(gateway.Client(url, "sk-none")) == found


def test_readiness_is_read_also_where_it_is_refused() -> None:
    """503 with LiteLLM's own words is an answer."""
    body = {"detail": {"status": "unhealthy", "db": "Not connected"}}
    with stub({"/health/readiness": (503, body)}) as url:
        found = gateway.readiness(gateway.Client(url, "sk-none"))
    assert (found["status"], found["db"]) == ("unhealthy", "Not connected")


def test_room_is_looked_for_where_docker_keeps_its_data(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Wherever that is, besides the paths that are asked for."""
    monkeypatch.setattr(disk_probe, "docker_root", lambda: str(tmp_path))
    asked = json.dumps({"directories": {}, "secrets": [], "rooms": []})
    monkeypatch.setattr(sys, "argv", ["disk", asked])
    disk_probe.main()
    assert list(json.loads(capsys.readouterr().out)["rooms"]) == [str(tmp_path)]


def test_docker_that_is_away_or_refuses_is_told_in_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who does not listen is named; what Docker says with a refusal is passed on."""
    path = tmp_path / "docker.sock"
    monkeypatch.setattr(common, "DOCKER", str(path))
    with pytest.raises(OSError, match=r"Docker does not listen at .*/docker\.sock: No such file"):
        common.docker("/info")
    words = b'{"message":"configured logging driver does not support reading"}'
    answer = b"HTTP/1.1 501 Not Implemented\r\nContent-Length: %d\r\n\r\n%s" % (len(words), words)
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))
        server.listen()

        def refuse() -> None:
            client, _ = server.accept()
            with client:
                client.recv(4096)
                client.sendall(answer)

        thread = threading.Thread(target=refuse)
        thread.start()
        with pytest.raises(OSError, match=r"answered 501 to /logs: .*does not support reading"):
            common.docker("/logs")
        thread.join()
