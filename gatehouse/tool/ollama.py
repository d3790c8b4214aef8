"""Models that an Ollama engine keeps itself: it is asked to pull them."""

import json
from collections.abc import Iterator
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.request import ProxyHandler, Request, build_opener

import click

from gatehouse.tool.errors import ProblemError
from gatehouse.tool.progress import bar
from gatehouse.tool.store import Wanted

_SPARE_SECONDS = 60


def pull(wanted: Wanted) -> int:
    """Have the engine pull a model, which wakes it; give its size. Raises `ProblemError`."""
    click.echo(f"{wanted.ollama}: pulled by {wanted.engines[0]} itself, which this wakes")
    layers: dict[str, int] = {}
    current, finished = "", False
    lines = _lines(wanted)
    line = next(lines, None)
    while line is not None:
        current = str(line.get("digest") or "")
        if not current:
            finished = line.get("status") == "success"
            line = next(lines, None)
            continue
        layers[current] = int(line.get("total") or 0)
        with bar(f"{wanted.ollama} {current[7:19]}", layers[current]) as advance:
            done = 0
            while line is not None and line.get("digest") == current:
                now = int(line.get("completed") or 0)
                advance(max(now - done, 0))
                done = max(done, now)
                line = next(lines, None)
    if not finished:
        raise ProblemError(f"{wanted.ollama}: Ollama ended without success: pull it again")
    return sum(layers.values())


def _lines(wanted: Wanted) -> Iterator[dict[str, Any]]:
    url = f"http://127.0.0.1:{wanted.port}/api/pull"
    body = json.dumps({"model": wanted.ollama, "stream": True}).encode()
    request = Request(url, body, {"Content-Type": "application/json"})
    # No proxy stands between this host and itself.
    opener = build_opener(ProxyHandler({}))
    name = wanted.engines[0]
    try:
        # The engine loads first, then says something for every piece that comes.
        with opener.open(request, timeout=wanted.load_seconds + _SPARE_SECONDS) as answer:
            for line in answer:
                found: dict[str, Any] = json.loads(line)
                if error := found.get("error"):
                    raise ProblemError(f"{wanted.ollama}: Ollama says: {error}")
                yield found
    except HTTPError as error:
        said = error.read(2000).decode(errors="replace").strip()
        raise ProblemError(f"{name} answers {error.code}: {said}") from None
    except (URLError, OSError, ValueError) as error:
        reason = getattr(error, "reason", error)
        raise ProblemError(
            f"{name} does not answer on port {wanted.port} ({reason}): `gatehouse engine list` and "
            f"`gatehouse engine logs {name}` say why"
        ) from None
