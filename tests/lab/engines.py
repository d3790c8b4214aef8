"""A workstation with engines, all of them real llama.cpp servers, and how to ask and watch them."""

import json
import shlex
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from gatehouse.lab import models
from gatehouse.lab.workstation import Workstation
from tests.waiting import wait_for

IDLE_SECONDS = 3
STATES = "/run/gatehouse/engines"
SELFTEST = "chat-selftest-builtin"
# Slow enough to be watched: what costs 5 ms on this model takes 50.
SLOWLY = {"LAB_TOKENS_PER_SECOND": "20"}

CHAT, EMBED, RERANK = "chat-tiny-llamacpp", "embed-tiny-llamacpp", "rerank-tiny-llamacpp"
SLOW, DYING, NEVER = "chat-slow-llamacpp", "chat-dying-llamacpp", "chat-never-llamacpp"
HUGE = "chat-huge-llamacpp"
FIVE = [f"chat-{name}-llamacpp" for name in ("one", "two", "three", "four", "five")]


def engine(name: str, port: int, /, kind: str = "llamacpp", **fields: object) -> dict[str, Any]:
    """Give an engine's settings."""
    files = {"embed": models.EMBED, "rerank": models.RERANK}
    return {
        "name": name,
        "kind": kind,
        "port": port,
        "file": files.get(kind, models.CHAT),
        "context_tokens": 512 if kind in files else 2048,
        "parallel": 1 if kind in files else 16,
        "memory_mib": 1000,
        "idle_seconds": IDLE_SECONDS,
        "load_seconds": 60,
        "enabled": True,
    } | fields


ENGINES = [
    engine(CHAT, 8190, environment=SLOWLY),
    engine(EMBED, 8191, "embed"),
    engine(RERANK, 8192, "rerank"),
    engine(SLOW, 8193, environment={"LAB_LOAD_SECONDS": "4"}),
    engine(DYING, 8194, environment={"LAB_LOAD_SECONDS": "1", "LAB_FAIL": "1"}, retry_seconds=5),
    engine(NEVER, 8195, environment={"LAB_NEVER_READY": "1"}, load_seconds=5, retry_seconds=0),
    engine(HUGE, 8196, memory_mib=9_000_000),
    *(
        engine(name, 8197 + number, memory_mib=3000, drain_seconds=30, environment=SLOWLY)
        for number, name in enumerate(FIVE)
    ),
]


def _model(engine_: dict[str, Any]) -> dict[str, Any]:
    name = engine_["name"]
    found = {"name": name, "backend": f"hosted_vllm/{name}", "engine": name, "retries": 2}
    found |= {"context_tokens": engine_["context_tokens"], "max_tokens": 512, "timeout_seconds": 30}
    if name == SLOW:
        found["on_cold"] = "fallback"
    return found


SETTINGS: dict[str, Any] = {
    "engines_extra": ENGINES,
    "models_extra": [_model(each) for each in ENGINES],
    "models_fallbacks": {SLOW: [SELFTEST], HUGE: [SELFTEST]},
    "models_context_fallbacks": {},
    "litellm_batch_write_seconds": 5,
}
PORTS: dict[str, int] = {each["name"]: each["port"] for each in ENGINES}


# Looks ten times a second which servers there are, whatever our own files say about them, and what
# those files say was given out (to wait for those who leave); gives the most of each in the end.
WATCH = f"""
import json, pathlib, sys, time
mib = json.loads(sys.argv[1])
most = {{"held": 0, "promised": 0, "looks": 0, "who": []}}
while pathlib.Path("/run/watched").exists():
    servers, promised = set(), 0
    for path in pathlib.Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = path.read_text().split("\\0")
        except OSError:
            continue
        if "/app/llama-server" in words:
            servers.add(words[words.index("--alias") + 1])
    for path in pathlib.Path("{STATES}").glob("[a-z]*.json"):
        try:
            state = json.loads(path.read_text())
        except OSError:
            continue
        if state["state"] in ("loading", "awake"):
            promised += state["need_mib"]
    held = sum(mib[name] for name in servers)
    if held > most["held"]:
        most |= {{"held": held, "who": sorted(servers)}}
    most["promised"] = max(most["promised"], promised)
    most["looks"] += 1
    time.sleep(0.1)
print(json.dumps(most))
"""


@dataclass(frozen=True)
class Reply:
    """What curl said: status (0: none), seconds to the first byte and in all, and the body."""

    status: int
    first_seconds: float
    seconds: float
    text: str

    @property
    def content(self) -> str:
        """The words of a chat answer."""
        return str(json.loads(self.text)["choices"][0]["message"]["content"])


@dataclass
class Watched:
    """The most memory that servers held, and that was promised, in MiB."""

    held_mib: int = 0
    promised_mib: int = 0


def command(name: str, path: str = "/v1/chat/completions", **body: object) -> str:
    """Give the command that asks an engine by its own port; its last line is curl's report."""
    question = {"model": name, "messages": [{"role": "user", "content": "hello"}], "max_tokens": 3}
    sent = json.dumps((question | body) if path.endswith("completions") else body)
    return (
        f"curl -sN --max-time 100 -w '\\n%{{http_code}} %{{time_starttransfer}} %{{time_total}}' "
        f"-H 'Content-Type: application/json' -d {shlex.quote(sent)} "
        f"http://127.0.0.1:{PORTS[name]}{path}"
    )


def reply(output: str) -> Reply:
    """Read what `command` printed."""
    text, _, report = output.rpartition("\n")
    status, first, total = report.split()
    return Reply(int(status), float(first), float(total), text)


def ask(host: Workstation, name: str, path: str = "/v1/chat/completions", **body: object) -> Reply:
    """Ask an engine by its own port, on the workstation."""
    return reply(host.exec(command(name, path, **body), check=False).stdout)


def ask_all(host: Workstation, names: list[str], **body: object) -> list[Reply]:
    """Ask all at once."""
    script = "\n".join(
        f"{command(name, **body)} >/tmp/reply.{number} 2>&1 &" for number, name in enumerate(names)
    )
    reading = f"for n in $(seq 0 {len(names) - 1}); do cat /tmp/reply.$n; printf '\\036'; done"
    output = host.exec(f"{script}\nwait\n{reading}", check=False).stdout
    return [reply(each) for each in output.split("\x1e")[:-1]]


def state(host: Workstation, name: str) -> str:
    """Give what an engine does."""
    text = host.exec(f"cat {STATES}/{name}.json 2>/dev/null || true").stdout
    return str(json.loads(text)["state"]) if text else "asleep"


def running(host: Workstation) -> set[str]:
    """Give the engines whose containers run."""
    names = host.exec("docker ps --format '{{.Names}}'").stdout.split()
    found = {name.removeprefix("gatehouse-").removesuffix("-1") for name in names}
    return found & PORTS.keys()


def wait_asleep(host: Workstation, *names: str) -> None:
    """Wait until these engines, or all, are gone: no state, no container."""
    wanted = set(names) or set(PORTS)
    wait_for(
        lambda: (
            not (running(host) & wanted)
            and all(state(host, name) in {"asleep", "refused", "failed"} for name in wanted)
        ),
        60,
        f"{', '.join(names) or 'all engines'} to be asleep",
    )


def sleep_all(host: Workstation) -> None:
    """Stop every engine, and forget what failed."""
    units = " ".join(f"gatehouse-engine-{name}.service" for name in PORTS)
    host.exec(f"systemctl stop {units}; systemctl reset-failed", check=False)
    wait_asleep(host)
    host.exec(f"rm -f {STATES}/*.json")


def journal(host: Workstation, name: str) -> str:
    """Give what the units of an engine wrote."""
    units = f"-u gatehouse-engine-{name} -u gatehouse-server-{name}"
    return host.exec(f"journalctl --no-pager -o cat {units}").stdout


def is_whole(found: Reply, tokens: int, *, streamed: bool) -> bool:
    """Say whether an answer has all its tokens and its end."""
    if found.status != 200:
        return False
    if streamed:
        done = found.text.rstrip().endswith("data: [DONE]")
        return done and found.text.count('"content":" ') == tokens
    return bool(json.loads(found.text)["usage"]["completion_tokens"] == tokens)


@contextmanager
def watched(host: Workstation) -> Iterator[Watched]:
    """Look at all servers while something happens."""
    found = Watched()
    memory = json.dumps({each["name"]: each["memory_mib"] for each in ENGINES})
    host.exec("touch /run/watched")
    with ThreadPoolExecutor(1) as pool:
        script = f"python3 -c {shlex.quote(WATCH)} {shlex.quote(memory)}"
        watching = pool.submit(host.exec, script)
        try:
            yield found
        finally:
            host.exec("rm -f /run/watched")
        said = json.loads(watching.result().stdout)
    assert said["looks"] > 1, said
    found.held_mib, found.promised_mib = said["held"], said["promised"]


def memory_of_init(host: Workstation) -> int:
    """Give what PID 1 has in memory, in KiB."""
    return int(host.exec("awk '/^VmRSS/ {print $2}' /proc/1/status").stdout)
