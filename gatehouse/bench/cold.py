"""Engines on demand: what a cold start, a warm request, a token and a sleeping engine cost.

A small model on a real llama.cpp server, provisioned by the deploy; probe.py measures beside it.
"""

import json
from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from gatehouse.bench import beside, peer, probe
from gatehouse.bench.probe import Target
from gatehouse.bench.table import Report, Spread, table
from gatehouse.lab import models
from gatehouse.lab.common import LabError
from gatehouse.lab.progress import Progress
from gatehouse.lab.workstation import Workstation

NAME, PORT, PEER_PORT = "chat-bench-llamacpp", 8190, 8290
FOLDER, PEER = "/run/bench", "gatehouse-bench-peer"
# Slow enough that no two tokens come at once.
TOKENS_PER_SECOND = 100
MOST_COLD_SECONDS = 0.5
MOST_WARM_MS = 1.0
# Each after the other in every round, so that noise of the machine hits all of them.
STARTS = ("cold", "own", "docker", "peer")
SECONDS = 600

Found = dict[str, list[dict[str, float]]]

_WAYS = ("with", "without")
_UNITS = "/etc/systemd/system/gatehouse-engine-* /etc/systemd/system/gatehouse-server-*"
_WITHOUT = f"""
systemctl stop gatehouse-engine-{NAME}.socket
mkdir -p {FOLDER}/units && mv {_UNITS} {FOLDER}/units/
systemctl daemon-reload"""
_WITH = f"""
mv {FOLDER}/units/* /etc/systemd/system/
systemctl daemon-reload && systemctl start gatehouse-engine-{NAME}.socket"""


def settings() -> dict[str, Any]:
    """Give the settings of the one engine, and of the model that it serves."""
    engine = {
        "name": NAME,
        "kind": "llamacpp",
        "port": PORT,
        "file": models.CHAT,
        "context_tokens": 2048,
        "parallel": 4,
        "memory_mib": 1000,
        "enabled": True,
    }
    model = {"name": NAME, "backend": f"hosted_vllm/{NAME}", "engine": NAME}
    return {
        "engines_extra": [engine],
        "models_extra": [model | {"context_tokens": 2048, "max_tokens": 512}],
    }


def run(workstation: Workstation, progress: Progress, *, rounds: int) -> Report:
    """Measure everything in turns; held when all aims were reached."""
    found: Found = defaultdict(list)

    def measure(what: str, number: int) -> None:
        with progress.step(f"round {number + 1} of {rounds}: {what}"):
            found[what].append(_probe(workstation, what, target))

    with _measuring(workstation) as target:
        for number in range(rounds):
            for what in STARTS if number % 2 == 0 else STARTS[::-1]:
                measure(what, number)
        for number in range(rounds):
            measure("warm", number)
        # How it behaves is read at a start.
        _probe(workstation, "idle", target)
        models.behave(workstation, models.CHAT, tokens_per_second=TOKENS_PER_SECOND)
        for number in range(rounds):
            measure("stream", number)
        models.behave(workstation, models.CHAT)
        measure("idle", 0)
        for way in _WAYS:
            for _ in range(rounds):
                found[f"systemd {way}"].append(_probe(workstation, "systemd", target))
            # Nothing is measured after this; with --keep the engine is there again in the end.
            workstation.exec(_WITHOUT if way == "with" else _WITH, check=way == "with")
    return report(found, rounds)


def report(found: Mapping[str, list[dict[str, float]]], rounds: int) -> Report:
    """Put the figures beside their aims."""
    parts = [_starts(found), _warm(found), _idle(found)]
    title = f"Engines on demand: median of {rounds} rounds (lowest-highest)"
    text = "\n\n".join([title, *(part.text for part in parts)])
    return Report(text, all(part.held for part in parts))


def _starts(found: Mapping[str, list[dict[str, float]]]) -> Report:
    whole = {what: [each["seconds"] for each in found[what]] for what in STARTS}
    shown = {
        "own": "the server alone, from its exec",
        "docker": "`docker start` by hand",
        "cold": "a request to the engine's port",
        "peer": "a resident proxy (not llama-swap)",
    }
    added = {
        what: Spread.of(a - b for a, b in zip(seconds, whole["own"], strict=True))
        for what, seconds in whole.items()
    }
    rows = [
        (text, Spread.of(whole[what]).text(2), "" if what == "own" else added[what].text(2))
        for what, text in shown.items()
    ]
    head = ("a cold start, to the first byte of the answer", "seconds", "added to the server's own")
    ours = Spread.of(a - b for a, b in zip(whole["cold"], whole["docker"], strict=True))
    aim = _aim("added by a cold start", added["cold"].middle, MOST_COLD_SECONDS, "s")
    note = (
        f"  of it on top of `docker start` by hand: {ours.text(2)} s\n"
        "  the resident proxy starts the container on its first request and looks as llama-swap "
        "does:\n  250 ms after the start, then once a second; it is up all the time, and admits "
        "nothing"
    )
    return Report(f"{table(head, rows)}\n{note}\n{aim.text}", aim.held)


def _warm(found: Mapping[str, list[dict[str, float]]]) -> Report:
    shown = {
        "a request, one connection": ("warm", "kept"),
        "a request, a new connection each": ("warm", "new"),
        "a token of a stream, whole / tokens": ("stream", "token"),
        "a token of a stream, between two": ("stream", "gap"),
    }
    rows, aims = [], []
    for text, (part, what) in shown.items():
        direct = Spread.of(each[f"direct_{what}"] for each in found[part])
        entry = Spread.of(each[f"entry_{what}"] for each in found[part])
        added = Spread.of(each[f"entry_{what}"] - each[f"direct_{what}"] for each in found[part])
        rows.append((text, direct.text(2), entry.text(2), added.text(2)))
        aims.append(_aim(f"added to {text}", added.middle, MOST_WARM_MS, "ms"))
    shown_table = table(("warm, ms", "direct", "through the port", "added"), rows)
    lines = "\n".join(aim.text for aim in aims)
    return Report(f"{shown_table}\n{lines}", all(aim.held for aim in aims))


def _idle(found: Mapping[str, list[dict[str, float]]]) -> Report:
    processes = max(each["processes"] for each in found["idle"])
    memory = max(each["kib"] for each in found["idle"])
    aim = _aim("processes of ours while it sleeps", processes, 0, "")
    ways = {way: Spread.of(each["kib"] for each in found[f"systemd {way}"]) for way in _WAYS}
    more = ways["with"].middle - ways["without"].middle
    return Report(
        f"{aim.text}; {memory:.0f} KiB\n"
        f"  systemd's own memory: {ways['with'].text(0)} KiB with the engine's units, "
        f"{ways['without'].text(0)} without: {more:.0f} more",
        aim.held,
    )


def _aim(what: str, measured: float, most: float, unit: str) -> Report:
    held = measured <= most
    reached = "reached" if held else "NOT reached"
    digits = 2 if unit else 0
    text = f"  {what}: the aim is at most {most:g} {unit}".rstrip()
    return Report(f"{text} (found {measured:.{digits}f}): {reached}", held)


def _probe(workstation: Workstation, what: str, target: Target) -> dict[str, float]:
    done = workstation.exec(
        ["python3", f"{FOLDER}/probe.py", what],
        text=json.dumps(asdict(target)),
        check=False,
        timeout_seconds=SECONDS,
    )
    if done.returncode:
        raise LabError(f"the measurement `{what}` failed: {done.stderr.strip()[-1500:]}")
    found: dict[str, float] = json.loads(done.stdout)
    return found


@contextmanager
def _measuring(workstation: Workstation) -> Iterator[Target]:
    """Put the programs that measure into the workstation and start the resident proxy."""
    workstation.exec(f"install -d -m 755 {FOLDER}")
    for path in map(Path, (probe.__file__, peer.__file__, beside.__file__)):
        workstation.exec(f"cat >{FOLDER}/{path.name}", text=path.read_text())
    known = json.loads(workstation.exec("cat /opt/gatehouse/current/engines/engines.json").stdout)
    (engine,) = (each for each in known["engines"] if each["name"] == NAME)
    host, _, port = engine["backend"].partition(":")
    target = Target(NAME, engine["container"], host, int(port), engine["port"], PEER_PORT)
    workstation.exec(
        f"systemd-run --quiet --collect --unit {PEER} python3 {FOLDER}/peer.py {PEER_PORT} {host} "
        f"{port} {target.container}"
    )
    try:
        yield target
    finally:
        workstation.exec(f"systemctl stop {PEER} gatehouse-engine-{NAME}", check=False)
