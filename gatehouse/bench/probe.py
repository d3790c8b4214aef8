"""Measures an engine from inside the workstation, beside it.

It needs Python 3.11 and nothing else: seen from outside, a tunnel would be measured too.
`python3 probe.py WHAT` reads a `Target` as JSON from its standard input and prints figures as JSON:
seconds for what is waited for, milliseconds for what is repeated.
"""

import http.client
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any

CHAT, HEALTH = "/v1/chat/completions", "/health"
LOOPBACK = "127.0.0.1"
SECONDS = 60
LOOK_SECONDS = 0.004
# For a second server beside the engine's own.
OTHER_PORT = 8089
Where = tuple[str, int]


@dataclass(frozen=True)
class Target:
    """An engine: its port on this host, where its container listens, and how much is asked."""

    name: str
    container: str
    host: str
    backend_port: int
    port: int
    peer_port: int
    requests: int = 1000
    tokens: int = 50
    streams: int = 2

    @property
    def direct(self) -> Where:
        """Where the engine itself listens."""
        return self.host, self.backend_port

    @property
    def entry(self) -> Where:
        """The engine's port, which systemd holds."""
        return LOOPBACK, self.port


def cold(target: Target) -> dict[str, float]:
    """Ask an engine that sleeps, by its port."""
    asleep(target)
    return {"seconds": first_byte(target.entry)}


def docker(target: Target) -> dict[str, float]:
    """Start the container by hand, wait for its health, ask it: Docker's share, nothing of ours."""
    asleep(target)
    begin = time.perf_counter()
    _run("docker", "start", target.container)
    started = time.perf_counter() - begin
    healthy(target.direct)
    first_byte(target.direct)
    seconds = time.perf_counter() - begin
    _run("docker", "stop", target.container)
    return {"seconds": seconds, "start_seconds": started}


def own(target: Target) -> dict[str, float]:
    """Give what the server itself needs, from its exec to the first byte of its first answer.

    A second server with the same arguments but for the port starts beside the one that is awake: in
    its namespaces and its control group, as its user, with its environment. So image, limits and
    the way to it are the same, and the files are in the page cache as much as at a cold start. One
    warm-up request is in it, as the first request is in a cold start; Docker and systemd are not.
    """
    first_byte(target.entry)
    where = (target.host, OTHER_PORT)
    with beside(target) as begin:
        healthy(where)
        first_byte(where)
        return {"seconds": time.perf_counter() - begin}


def peer(target: Target) -> dict[str, float]:
    """Ask an engine that sleeps through the resident proxy (peer.py)."""
    asleep(target)
    seconds = first_byte((LOOPBACK, target.peer_port))
    _run("docker", "stop", target.container)
    return {"seconds": seconds}


def warm(target: Target) -> dict[str, float]:
    """Ask directly and through the port in turns: on one connection each, then on new ones."""
    first_byte(target.entry)
    ways = {"direct": target.direct, "entry": target.entry}
    kept = {way: http.client.HTTPConnection(*where, SECONDS) for way, where in ways.items()}
    times: dict[str, list[float]] = {f"{way}_{how}": [] for way in ways for how in ("kept", "new")}
    for _ in range(target.requests):
        for way, client in kept.items():
            times[f"{way}_kept"].append(_timed(_health, client))
    for _ in range(target.requests):
        for way, where in ways.items():
            times[f"{way}_new"].append(_timed(_health_once, where))
    return {name: median(each) * 1000 for name, each in times.items()}


def stream(target: Target) -> dict[str, float]:
    """Take long answers directly and through the port in turns; give milliseconds a token."""
    first_byte(target.entry)
    ways = {"direct": target.direct, "entry": target.entry}
    wholes: dict[str, list[float]] = {way: [] for way in ways}
    gaps: dict[str, list[float]] = {way: [] for way in ways}
    for _ in range(target.streams):
        for way, where in ways.items():
            arrivals = _arrivals(where, target.tokens)
            wholes[way].append((arrivals[-1] - arrivals[0]) / (len(arrivals) - 1) * 1000)
            gaps[way] += [(after - before) * 1000 for before, after in pairwise(arrivals[1:])]
    return {f"{way}_token": median(wholes[way]) for way in ways} | {
        f"{way}_gap": median(gaps[way]) for way in ways
    }


def idle(target: Target) -> dict[str, float]:
    """Count the processes of ours while the engine sleeps, and their memory (PSS, KiB)."""
    asleep(target)
    found = [pid for pid in Path("/proc").glob("[0-9]*") if _ours(pid)]
    return {"processes": len(found), "kib": sum(map(_pss, found))}


def systemd(target: Target) -> dict[str, float]:  # noqa: ARG001 - all of these are called alike
    """Give systemd's own memory (PSS, KiB) right after it has been executed anew."""
    _run("systemctl", "daemon-reexec")
    return {"kib": _pss(Path("/proc/1"))}


def asleep(target: Target) -> None:
    """Stop the engine and wait until nothing of it is left."""
    _run("systemctl", "stop", f"gatehouse-engine-{target.name}.service")
    server, end = f"gatehouse-server-{target.name}.service", time.monotonic() + SECONDS
    dead = {"inactive", "failed"}
    while _said("systemctl", "show", "-P", "ActiveState", server) not in dead:
        if time.monotonic() > end:
            raise SystemExit(f"{server} does not stop")
        time.sleep(0.05)
    # What its end has left to do for systemd, Docker and the kernel is no part of the next start.
    time.sleep(1)


def first_byte(where: Where) -> float:
    """Ask for one token over a connection of its own; give the seconds to the answer's begin."""
    client = http.client.HTTPConnection(*where, timeout=SECONDS)
    begin = time.perf_counter()
    client.request("POST", CHAT, _question(1), {"Content-Type": "application/json"})
    answer = client.getresponse()
    seconds = time.perf_counter() - begin
    text = answer.read()
    client.close()
    if answer.status != http.client.OK:
        raise SystemExit(f"{where} answered {answer.status}: {text[:300]!r}")
    return seconds


def healthy(where: Where) -> None:
    """Wait until a server says that it is well."""
    end = time.monotonic() + SECONDS
    while time.monotonic() < end:
        try:
            if _health_once(where) == http.client.OK:
                return
        except (OSError, http.client.HTTPException):
            pass
        time.sleep(LOOK_SECONDS)
    raise SystemExit(f"{where} is not well after {SECONDS} s")


@contextmanager
def beside(target: Target) -> Iterator[float]:
    """Start a second server beside the engine's own (beside.py); gives the time of its exec."""
    pid = _said("docker", "inspect", "-f", "{{.State.Pid}}", target.container)
    program = Path(__file__).with_name("beside.py")
    reader, writer = os.pipe()
    server = subprocess.Popen(
        ["python3", str(program), pid, str(OTHER_PORT), str(writer)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        pass_fds=[writer],
    )
    os.close(writer)
    try:
        os.read(reader, 1)
        yield time.perf_counter()
    finally:
        os.close(reader)
        server.kill()
        server.wait()


def _question(tokens: int, *, stream: bool = False) -> str:
    message = {"role": "user", "content": "hello"}
    body = {"model": "any", "messages": [message], "max_tokens": tokens, "stream": stream}
    return json.dumps(body | {"ignore_eos": True, "cache_prompt": False})


def _arrivals(where: Where, tokens: int) -> list[float]:
    """Give the times at which the pieces of one long answer came."""
    client = http.client.HTTPConnection(*where, timeout=SECONDS)
    body = _question(tokens, stream=True)
    client.request("POST", CHAT, body, {"Content-Type": "application/json"})
    answer = client.getresponse()
    found = []
    while line := answer.readline():
        if line.startswith(b"data: {"):
            found.append(time.perf_counter())
    client.close()
    if len(found) < tokens:
        raise SystemExit(f"{where} gave {len(found)} of {tokens} tokens")
    return found


def _health(client: http.client.HTTPConnection) -> int:
    client.request("GET", HEALTH)
    answer = client.getresponse()
    answer.read()
    return answer.status


def _health_once(where: Where) -> int:
    client = http.client.HTTPConnection(*where, timeout=0.2)
    try:
        return _health(client)
    finally:
        client.close()


def _timed(work: Callable[[Any], object], what: object) -> float:
    begin = time.perf_counter()
    work(what)
    return time.perf_counter() - begin


def _ours(proc: Path) -> bool:
    try:
        words = proc.joinpath("cmdline").read_bytes().split(b"\0")
    except OSError:
        return False
    return b"gatehouse.engines" in words or words[0].endswith(b"systemd-socket-proxyd")


def _pss(proc: Path) -> int:
    try:
        lines = proc.joinpath("smaps_rollup").read_text().splitlines()
    except OSError:
        return 0
    return next(int(line.split()[1]) for line in lines if line.startswith("Pss:"))


def _run(*words: str) -> None:
    subprocess.run(words, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def _said(*words: str) -> str:
    return subprocess.run(words, check=True, stdout=subprocess.PIPE, text=True).stdout.strip()


MEASURES = {each.__name__: each for each in (cold, docker, own, peer, warm, stream, idle, systemd)}


def main() -> int:
    """Read the target, measure, print the figures."""
    json.dump(MEASURES[sys.argv[1]](Target(**json.load(sys.stdin))), sys.stdout)
    return 0


if __name__ == "__main__":
    sys.exit(main())
