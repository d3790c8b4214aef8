"""A small model hub: what `gatehouse models pull` asks of the real one."""

import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote

REPOSITORY = "somebody/small-GGUF"
COMMIT = "c0ffee" * 6 + "c0ff"


@dataclass
class Hub:
    """What the hub holds, how it behaves, and what it was asked."""

    url: str = ""
    files: dict[str, bytes] = field(default_factory=dict)
    licence: str | None = "apache-2.0"
    token: str | None = None
    # Instead of the file's own: what the hub says, true or not.
    size: int | None = None
    # Stop in the middle of an answer after so many bytes, and hold the connection.
    hold_after: int | None = None
    # Break the connection after so many bytes, so many times.
    break_after: int = 0
    breaks: int = 0
    # Redirect the content to another address of this machine, as to a content network.
    elsewhere: str = ""
    ranges: list[str] = field(default_factory=list)
    tokens: list[tuple[str, str | None]] = field(default_factory=list)
    held: threading.Event = field(default_factory=threading.Event)


class _Handler(BaseHTTPRequestHandler):
    hub: Hub
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        """Say nothing."""

    def do_HEAD(self) -> None:
        """Tell what a file is."""
        self._resolve()

    def do_GET(self) -> None:
        """Give a file or a description."""
        hub = self.hub
        if self.path.startswith("/api/models/"):
            siblings = [{"rfilename": name} for name in hub.files]
            card = {"license": hub.licence} if hub.licence else {}
            self._json({"sha": COMMIT, "siblings": siblings, "cardData": card})
        else:
            self._resolve()

    def _json(self, value: object) -> None:
        body = json.dumps(value).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _resolve(self) -> None:
        hub = self.hub
        host = str(self.headers["Host"])
        hub.tokens.append((host, self.headers["Authorization"]))
        name = unquote(self.path.partition("/resolve/")[2].partition("/")[2])
        content = hub.files.get(name)
        away = hub.elsewhere and hub.elsewhere not in f"http://{host}"
        ours = away or not hub.elsewhere
        if hub.token and ours and self.headers["Authorization"] != f"Bearer {hub.token}":
            self._nothing(401)
            return
        if content is None:
            self._nothing(404, [("X-Error-Code", "EntryNotFound")])
            return
        linked = [
            ("X-Repo-Commit", COMMIT),
            ("X-Linked-Etag", f'"{hashlib.sha256(content).hexdigest()}"'),
            ("X-Linked-Size", str(hub.size or len(content))),
        ]
        if away:
            self._nothing(302, [*linked, ("Location", hub.elsewhere + self.path)])
            return
        self._content(content, linked)

    def _content(self, content: bytes, linked: list[tuple[str, str]]) -> None:
        hub, start = self.hub, 0
        if wanted := self.headers["Range"]:
            hub.ranges.append(wanted)
            start = int(wanted.removeprefix("bytes=").rstrip("-"))
            if start >= len(content):
                self._nothing(416)
                return
            linked.append(("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}"))
        self.send_response(206 if wanted else 200)
        for key, value in [*linked, ("Content-Length", str(len(content) - start))]:
            self.send_header(key, value)
        self.end_headers()
        if self.command == "HEAD":
            return
        body = content[start:]
        if hub.breaks:
            hub.breaks -= 1
            self.wfile.write(body[: hub.break_after])
            self.close_connection = True
            return
        if hub.hold_after is not None:
            self.wfile.write(body[: hub.hold_after])
            self.wfile.flush()
            hub.held.wait(60)
            self.close_connection = True
            return
        self.wfile.write(body)

    def _nothing(self, status: int, headers: list[tuple[str, str]] | None = None) -> None:
        self.send_response(status)
        for key, value in [*(headers or []), ("Content-Length", "0")]:
            self.send_header(key, value)
        self.end_headers()


@contextmanager
def hub() -> Iterator[Hub]:
    """Run a hub on this machine."""
    state = Hub()
    handler = type("Handler", (_Handler,), {"hub": state})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    state.url = f"http://127.0.0.1:{server.server_port}"
    try:
        yield state
    finally:
        state.held.set()
        server.shutdown()
        server.server_close()
        thread.join()
