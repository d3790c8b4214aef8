"""The two ports: the page with what programs ask for, and the metrics."""

import hashlib
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from prometheus_client.exposition import choose_encoder
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from gatehouse.health import metrics, page
from gatehouse.health.document import FILE, Document, Missing, parse, raw
from gatehouse.health.guard import Guard
from gatehouse.health.ready import Gateway

_STATIC = Path(__file__).with_name("static")
_TYPES = {"css": "text/css", "js": "text/javascript", "svg": "image/svg+xml"}
_FOREVER = "public, max-age=31536000, immutable"


@dataclass(frozen=True)
class Asset:
    """A file of the page and the name by which a browser may keep it for good."""

    content: bytes
    media_type: str
    digest: str


def _asset(path: Path) -> Asset:
    content = path.read_bytes()
    digest = hashlib.sha256(content).hexdigest()[:12]
    return Asset(content, _TYPES[path.suffix[1:]], digest)


ASSETS = {path.name: _asset(path) for path in sorted(_STATIC.iterdir())}


class Health:
    """The page's answers."""

    def __init__(self, gateway: Gateway, file: Path = FILE) -> None:
        """Hold what is asked: the gateway, and the document's file."""
        self._gateway = gateway
        self._file = file

    async def healthz(self, _: Request) -> Response:
        """Say that this process lives, and nothing else."""
        return JSONResponse({"alive": True})

    async def readyz(self, _: Request) -> Response:
        """Say whether the gateway can serve now: 503 with the reason where it cannot."""
        ready = await self._gateway.ready()
        document, missing = self._document()
        now = time.time()
        about = (
            {
                "age_seconds": round(now - document.gathered, 1),
                "stale": document.stale(now),
            }
            if document
            else {"age_seconds": None, "stale": True, "reason": missing}
        )
        found = {
            "ready": ready.ready,
            "reason": ready.reason,
            "milliseconds": ready.milliseconds,
            "document": about,
        }
        return JSONResponse(found, 200 if ready.ready else 503)

    async def status(self, request: Request) -> Response:
        """Give the document."""
        try:
            content = raw(self._file)
            parse(content, self._file)
        except Missing as missing:
            return JSONResponse({"error": str(missing)}, 503)
        return _unless_known(request, content, "application/json")

    async def page(self, request: Request) -> Response:
        """Give the page for people."""
        ready = await self._gateway.ready()
        document, missing = self._document()
        digests = {name: asset.digest for name, asset in ASSETS.items()}
        html = page.render(document, missing, ready, time.time(), digests)
        return _unless_known(
            request, html.encode(), "text/html", page.state_of(document, ready, time.time())
        )

    async def asset(self, request: Request) -> Response:
        """Give a file of the page; by its digest it never changes."""
        asset = ASSETS[request.url.path.removeprefix("/")]
        kept = request.query_params.get("v") == asset.digest
        headers = {"cache-control": _FOREVER if kept else "no-cache"}
        return Response(asset.content, media_type=asset.media_type, headers=headers)

    async def metrics(self, request: Request) -> Response:
        """Give the metrics in the form that is asked for."""
        ready = await self._gateway.ready()
        document, _ = self._document()
        encode, content_type = choose_encoder(request.headers.get("accept", ""))
        content = encode(metrics.registry(document, time.time(), ready=ready.ready))
        return Response(content, headers={"content-type": content_type})

    def _document(self) -> tuple[Document | None, str | None]:
        try:
            return parse(raw(self._file), self._file), None
        except Missing as missing:
            return None, str(missing)


def _unless_known(
    request: Request, content: bytes, media_type: str, state: str | None = None
) -> Response:
    """Answer 304 to who has it; `state` stands for a content that is another one every second."""
    of = content if state is None else state.encode()
    tag = f'"{hashlib.sha256(of).hexdigest()[:20]}"'
    headers = {"cache-control": "no-cache", "etag": tag}
    if request.headers.get("if-none-match") == tag:
        return Response(status_code=304, headers=headers)
    return Response(content, media_type=media_type, headers=headers)


async def _nothing(request: Request, _: Exception) -> Response:
    words = f"There is nothing at {request.url.path}.\n"
    return PlainTextResponse(words, 404)


async def _broken(_request: Request, _: Exception) -> Response:
    return PlainTextResponse("The page is broken: journalctl -u gatehouse-health\n", 500)


async def _where(_: Request) -> Response:
    return PlainTextResponse("The metrics are at /metrics.\n")


def app(gateway: Gateway, hosts: Sequence[str], metrics_port: int, file: Path = FILE) -> ASGIApp:
    """Give the application of both ports: the port that was asked decides which."""
    health = Health(gateway, file)
    handlers = {404: _nothing, 500: _broken}
    pages = Starlette(
        routes=[
            Route("/", health.page),
            Route("/healthz", health.healthz),
            Route("/readyz", health.readyz),
            Route("/status.json", health.status),
            *(Route(f"/{name}", health.asset) for name in ASSETS),
        ],
        exception_handlers=handlers,
    )
    numbers = Starlette(
        routes=[Route("/metrics", health.metrics), Route("/", _where)],
        exception_handlers=handlers,
    )

    async def by_port(scope: Scope, receive: Receive, send: Send) -> None:
        server = scope.get("server")
        chosen = numbers if server and server[1] == metrics_port else pages
        await chosen(scope, receive, send)

    return Guard(by_port, hosts)
