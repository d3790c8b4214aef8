"""A small OpenAI-compatible server that stands in for the cloud and for local model servers.

`python3 upstream.py --host 127.0.0.1 --port 9100` needs Python 3.11 and nothing else, so that the
one file can be copied into a workstation and run there. It is quick enough not to be the limit of
a benchmark, and it can be told to fail, to be slow or to find a question too long:

    POST /v1/chat/completions  echoes the question, in one piece or as a stream
    POST /v1/embeddings        one vector for each input, always the same for the same text
    POST /v1/rerank, /rerank   documents ordered by the words that they share with the query
    GET  /v1/models, /health
    GET  /_calls               calls of each route and the headers of the last; DELETE forgets them
    GET  /_mode, POST /_mode   {"fail": true, "status": 500, "delay_seconds": 1.5,
                               "context_error": true}; what is left out is off, {} is back to normal
"""

import argparse
import asyncio
import base64
import hashlib
import json
import re
import signal
import struct
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from http import HTTPStatus
from itertools import count
from typing import Any

MAX_HEAD_BYTES = 64 * 1024
MAX_BODY_BYTES = 64 * 1024 * 1024
MAX_DELAY_SECONDS = 600
ECHO_CHARACTERS = 200
DIMENSIONS = 8
MAX_DIMENSIONS = 4096
# Roughly what English text has.
CHARACTERS_PER_TOKEN = 4
SECRET_HEADERS = {"authorization", "api-key", "x-api-key", "cookie"}

_LENGTH = re.compile(rb"\r\ncontent-length:[ \t]*(\d+)[ \t]*\r\n", re.IGNORECASE)
_CHUNKED = re.compile(rb"\r\ntransfer-encoding:[^\r]*chunked", re.IGNORECASE)
_CLOSE = re.compile(rb"\r\nconnection:[ \t]*close", re.IGNORECASE)
_EXPECT = re.compile(rb"\r\nexpect:[ \t]*100-continue", re.IGNORECASE)
_CHUNK = re.compile(rb"([0-9a-fA-F]{1,8})[^\r\n]*\r\n")

_CHAT = (
    b'{"id":"chatcmpl-%x","object":"chat.completion","created":%d,"model":%s,"choices":[{"index":0,'
    b'"message":{"role":"assistant","content":%s},"logprobs":null,"finish_reason":"stop"}],'
    b'"usage":%s}'
)
_EVENT = (
    b'data: {"id":"chatcmpl-%x","object":"chat.completion.chunk","created":%d,"model":%s,'
    b'"choices":%s%s}\n\n'
)
_USAGE = b'{"prompt_tokens":%d,"completion_tokens":%d,"total_tokens":%d}'
_DELTA = b'[{"index":0,"delta":%s,"logprobs":null,"finish_reason":%s}]'


class RefusedError(Exception):
    """The request gets this status and an error in OpenAI's form."""

    def __init__(
        self,
        status: int,
        message: str,
        code: str | None = None,
        kind: str = "invalid_request_error",
    ) -> None:
        """Hold the HTTP status, what to say, and OpenAI's `code` and `type`."""
        super().__init__(message)
        self.status, self.code, self.kind = status, code, kind

    def answer(self) -> bytes:
        """Give the whole HTTP answer."""
        error = {"message": str(self), "type": self.kind, "param": None, "code": self.code}
        return _http(self.status, _json({"error": error}))


@dataclass(frozen=True)
class Mode:
    """What is wrong with the server on purpose."""

    fail: bool = False
    status: int = 500
    delay_seconds: float = 0.0
    context_error: bool = False

    @classmethod
    def read(cls, body: bytes) -> "Mode":
        """Read a mode from JSON; raises `RefusedError` where a key or a value cannot be."""
        values = _object(body)
        if unknown := values.keys() - asdict(cls()).keys():
            expected = ", ".join(asdict(cls()))
            raise RefusedError(400, f"unknown: {', '.join(unknown)}; expected of {expected}")
        mode = cls(**values)
        if not (isinstance(mode.fail, bool) and isinstance(mode.context_error, bool)):
            raise RefusedError(400, "fail and context_error are true or false")
        if not isinstance(mode.status, int) or not 400 <= mode.status <= 599:  # noqa: PLR2004
            raise RefusedError(400, f"status is {mode.status!r}: expected a number from 400 to 599")
        delay = mode.delay_seconds
        if not isinstance(delay, int | float) or not 0 <= delay <= MAX_DELAY_SECONDS:
            raise RefusedError(
                400, f"delay_seconds is {delay!r}: expected 0 to {MAX_DELAY_SECONDS}"
            )
        return mode

    def check(self) -> None:
        """Raise the `RefusedError` that this mode asks for, if any."""
        if self.fail:
            raise RefusedError(self.status, "made to fail by POST /_mode", kind="server_error")
        if self.context_error:
            raise RefusedError(
                400,
                "This model's maximum context length is 8192 tokens. However, your messages "
                "resulted in 9001 tokens. Please reduce the length of the messages.",
                "context_length_exceeded",
            )


@dataclass
class Calls:
    """How often a route was called, and the head of the last request as it came."""

    number: int = 0
    head: bytes = b""

    def shown(self) -> dict[str, object]:
        """Give it for a person or a test; what could be a secret is left out."""
        headers = {}
        for line in self.head.decode("latin-1").split("\r\n")[1:]:
            name, separator, value = line.partition(":")
            if separator:
                name = name.strip().lower()
                headers[name] = "(hidden)" if name in SECRET_HEADERS else value.strip()
        return {"calls": self.number, "last_headers": headers}


@dataclass
class Upstream:
    """Answers requests; knows nothing of sockets. `name` begins each echo."""

    name: str = "upstream"
    models: tuple[str, ...] = ("upstream",)
    mode: Mode = field(default_factory=Mode)
    calls: dict[str, Calls] = field(default_factory=dict)
    _numbers: Iterator[int] = field(default_factory=lambda: count(time.time_ns()))

    def __post_init__(self) -> None:
        """Build the table of routes."""
        self._model_routes: dict[str, Callable[[bytes], bytes]] = {
            "POST /v1/chat/completions": self._chat,
            "POST /v1/embeddings": _embeddings,
            "POST /v1/rerank": _rerank,
            "POST /rerank": _rerank,
        }
        self._plain_routes: dict[str, Callable[[bytes], bytes]] = {
            "GET /v1/models": self._list_models,
            "GET /health": lambda _: _http(200, b'{"status":"ok"}'),
        }
        self._own_routes: dict[str, Callable[[bytes], bytes]] = {
            "GET /_calls": self._show_calls,
            "DELETE /_calls": self._forget_calls,
            "GET /_mode": lambda _: _http(200, _json(asdict(self.mode))),
            "POST /_mode": self._set_mode,
        }

    def answer(self, route: str, head: bytes, body: bytes) -> tuple[bytes, float]:
        """Give the HTTP answer and the seconds to wait before it is sent."""
        try:
            if run := self._own_routes.get(route):
                return run(body), 0.0
            if model := self._model_routes.get(route):
                self._count(route, head)
                self.mode.check()
                return model(body), self.mode.delay_seconds
            if run := self._plain_routes.get(route):
                self._count(route, head)
                return run(body), 0.0
            raise self._unknown(route)
        except RefusedError as refused:
            return refused.answer(), self.mode.delay_seconds if route in self._model_routes else 0.0

    def _unknown(self, route: str) -> RefusedError:
        routes = [*self._model_routes, *self._plain_routes, *self._own_routes]
        path = route.partition(" ")[2]
        methods = [known.split()[0] for known in routes if known.split()[1] == path]
        if methods:
            return RefusedError(405, f"{route}: expected {' or '.join(methods)}")
        return RefusedError(404, f"{route}: there is only {', '.join(routes)}", "not_found")

    def _count(self, route: str, head: bytes) -> None:
        calls = self.calls.get(route)
        if calls is None:
            calls = self.calls[route] = Calls()
        calls.number += 1
        calls.head = head

    def _show_calls(self, _: bytes) -> bytes:
        routes = {route: calls.shown() for route, calls in self.calls.items()}
        total = sum(calls.number for calls in self.calls.values())
        return _http(200, _json({"total": total, "routes": routes}))

    def _forget_calls(self, _: bytes) -> bytes:
        self.calls.clear()
        return self._show_calls(b"")

    def _set_mode(self, body: bytes) -> bytes:
        self.mode = Mode.read(body)
        return _http(200, _json(asdict(self.mode)))

    def _list_models(self, _: bytes) -> bytes:
        data = [
            {"id": model, "object": "model", "created": 0, "owned_by": self.name}
            for model in self.models
        ]
        return _http(200, _json({"object": "list", "data": data}))

    def _chat(self, body: bytes) -> bytes:
        request = _object(body)
        model, messages = _model(request), request.get("messages")
        if not isinstance(messages, list) or not messages:
            raise RefusedError(400, "messages is missing or empty: expected a list of messages")
        texts = [_text(message) for message in messages]
        asked = [t for t, each in zip(texts, messages, strict=True) if each["role"] == "user"]
        said = asked[-1] if asked else texts[-1]
        content = f"{self.name} heard: {said[:ECHO_CHARACTERS]}"
        usage = _usage(sum(map(_tokens, texts)), _tokens(content))
        number, now = next(self._numbers), int(time.time())
        if request.get("stream"):
            options = request.get("stream_options") or {}
            last = usage if options.get("include_usage") else None
            return _stream(_events((number, now, model), content, last))
        return _http(200, _CHAT % (number, now, model, _json(content), usage))


def _events(start: tuple[int, int, bytes], content: str, usage: bytes | None) -> Iterator[bytes]:
    """Give the events of a stream: the role, the content word by word, the end, the usage."""
    yield _EVENT % (*start, _DELTA % (b'{"role":"assistant","content":""}', b"null"), b"")
    for word in re.findall(r"\s*\S+|\s+$", content):
        yield _EVENT % (*start, _DELTA % (_json({"content": word}), b"null"), b"")
    yield _EVENT % (*start, _DELTA % (b"{}", b'"stop"'), b"")
    if usage is not None:
        yield _EVENT % (*start, b"[]", b',"usage":' + usage)
    yield b"data: [DONE]\n\n"


def _embeddings(body: bytes) -> bytes:
    request = _object(body)
    model, inputs = _model(request), request.get("input")
    # One text, one text as tokens, or a list of either.
    if isinstance(inputs, str) or (isinstance(inputs, list) and inputs and _is_number(inputs[0])):
        inputs = [inputs]
    if not isinstance(inputs, list) or not inputs:
        raise RefusedError(400, "input is missing or empty: expected a text or a list of texts")
    size = request.get("dimensions") or DIMENSIONS
    if not isinstance(size, int) or not 1 <= size <= MAX_DIMENSIONS:
        raise RefusedError(400, f"dimensions is {size!r}: expected 1 to {MAX_DIMENSIONS}")
    coded = request.get("encoding_format") == "base64"
    data, tokens = [], 0
    for index, each in enumerate(inputs):
        vector = _vector(each, size)
        shown = base64.b64encode(struct.pack(f"<{size}f", *vector)).decode() if coded else vector
        data.append({"object": "embedding", "index": index, "embedding": shown})
        tokens += _tokens(each) if isinstance(each, str) else len(each)
    usage = {"prompt_tokens": tokens, "total_tokens": tokens}
    answer = {"object": "list", "data": data, "model": json.loads(model), "usage": usage}
    return _http(200, _json(answer))


def _rerank(body: bytes) -> bytes:
    request = _object(body)
    model, query, documents = _model(request), request.get("query"), request.get("documents")
    if not isinstance(query, str) or not query:
        raise RefusedError(400, "query is missing or empty: expected a text")
    if not isinstance(documents, list) or not documents:
        raise RefusedError(400, "documents is missing or empty: expected a list of texts")
    found = [each.get("text") if isinstance(each, dict) else each for each in documents]
    texts = [text for text in found if isinstance(text, str)]
    if len(texts) < len(found):
        raise RefusedError(400, 'documents: expected texts, or objects with a "text"')
    words = set(query.lower().split())
    scores = [len(words & set(text.lower().split())) / len(words) for text in texts]
    order = sorted(range(len(texts)), key=lambda index: (-scores[index], index))
    results: list[dict[str, object]] = []
    for index in order[: request.get("top_n") or len(order)]:
        results.append({"index": index, "relevance_score": scores[index]})
        if request.get("return_documents"):
            results[-1]["document"] = {"text": texts[index]}
    tokens = _tokens(query) + sum(map(_tokens, texts))
    answer = {
        "id": "rerank",
        "model": json.loads(model),
        "results": results,
        "usage": {"prompt_tokens": tokens, "total_tokens": tokens},
    }
    return _http(200, _json(answer))


def _object(body: bytes) -> dict[str, Any]:
    try:
        value = json.loads(body or b"null")
    except ValueError as error:
        raise RefusedError(400, f"the body is not JSON: {error}") from None
    if not isinstance(value, dict):
        raise RefusedError(400, "the body is not a JSON object")
    return value


def _model(request: dict[str, Any]) -> bytes:
    """Give the model's name as JSON."""
    model = request.get("model")
    if not isinstance(model, str) or not model:
        raise RefusedError(400, "model is missing: expected a name")
    return _json(model)


def _text(message: object) -> str:
    """Give the text of a message, which may come in parts, of which some are no text."""
    if not isinstance(message, dict) or not isinstance(message.get("role"), str):
        raise RefusedError(400, "messages: expected objects with a role and content")
    content = message.get("content") or ""
    if isinstance(content, list):
        return " ".join(str(part.get("text", "")) for part in content if isinstance(part, dict))
    return str(content)


def _tokens(text: str) -> int:
    return max(1, len(text) // CHARACTERS_PER_TOKEN)


def _usage(question: int, answer: int) -> bytes:
    return _USAGE % (question, answer, question + answer)


def _vector(value: object, size: int) -> list[float]:
    """Give numbers from -1 to 1 that depend on nothing but the value."""
    if not isinstance(value, str | list):
        raise RefusedError(400, f"input: expected texts, found {value!r}")
    found = hashlib.shake_128(json.dumps(value).encode()).digest(2 * size)
    # Multiples of 2**-15 are the same number in JSON and as 32-bit floats.
    return [number / 32768 for (number,) in struct.iter_unpack("<h", found)]


def _is_number(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _json(value: object) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()


def _http(status: int, body: bytes) -> bytes:
    return b"HTTP/1.1 %d %s\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s" % (
        status,
        _reason(status),
        len(body),
        body,
    )


def _reason(status: int) -> bytes:
    try:
        return HTTPStatus(status).phrase.encode()
    except ValueError:
        return b"Unknown"


def _stream(events: Iterator[bytes]) -> bytes:
    head = (
        b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nCache-Control: no-cache\r\n"
        b"Transfer-Encoding: chunked\r\n\r\n"
    )
    return b"".join([head, *(b"%x\r\n%s\r\n" % (len(event), event) for event in events)]) + (
        b"0\r\n\r\n"
    )


class Connection(asyncio.Protocol):
    """One client's connection: HTTP/1.1 with keep-alive, one request after the other."""

    def __init__(self, upstream: Upstream) -> None:
        """Answer with `upstream`."""
        self._upstream = upstream
        self._buffer = bytearray()
        self._waiting: asyncio.TimerHandle | None = None
        self._continued = False
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the way back."""
        if not isinstance(transport, asyncio.Transport):
            raise TypeError(f"expected a stream, got {transport!r}")
        self._transport = transport

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - asyncio's signature
        """Forget an answer that nobody waits for any more."""
        self._transport = None
        if self._waiting:
            self._waiting.cancel()

    def data_received(self, data: bytes) -> None:
        """Answer every request that is whole."""
        self._buffer += data
        try:
            while self._waiting is None and self._transport and self._next():
                pass
        except RefusedError as refused:
            # What follows in the connection cannot be told from the body.
            self._send(refused.answer(), keep=False)

    def _next(self) -> bool:
        """Answer the request at the start of the buffer; False when it is not whole yet."""
        end = self._buffer.find(b"\r\n\r\n")
        if end < 0 or end > MAX_HEAD_BYTES:
            if len(self._buffer) > MAX_HEAD_BYTES:
                raise RefusedError(431, f"the head is larger than {MAX_HEAD_BYTES} bytes")
            return False
        head = bytes(self._buffer[: end + 2])
        body = self._body(head, end + 4)
        if body is None:
            return False
        words = head.split(b"\r\n", 1)[0].decode("latin-1").split(" ")
        if len(words) != 3 or not words[2].startswith("HTTP/1."):  # noqa: PLR2004
            raise RefusedError(400, "expected an HTTP/1.1 request")
        keep = words[2] != "HTTP/1.0" and not _CLOSE.search(head)
        route = f"{words[0]} {words[1].partition('?')[0]}"
        answer, delay_seconds = self._upstream.answer(route, head, body)
        if delay_seconds:
            loop = asyncio.get_running_loop()
            self._waiting = loop.call_later(delay_seconds, self._send_late, answer, keep)
        else:
            self._send(answer, keep=keep)
        return True

    def _body(self, head: bytes, start: int) -> bytes | None:
        """Take the request out of the buffer and give its body; None when it is not whole yet."""
        if _CHUNKED.search(head):
            body, end = self._chunks(start)
        else:
            length = _LENGTH.search(head)
            end = start + int(length[1]) if length else start
            body = bytes(self._buffer[start:end])
        if end - start > MAX_BODY_BYTES or len(self._buffer) - start > 2 * MAX_BODY_BYTES:
            raise RefusedError(413, f"the body is larger than {MAX_BODY_BYTES} bytes")
        if body is None or end > len(self._buffer):
            if not self._continued and self._transport and _EXPECT.search(head):
                self._continued = True
                self._transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
            return None
        self._continued = False
        del self._buffer[:end]
        return body

    def _chunks(self, start: int) -> tuple[bytes | None, int]:
        """Give the joined chunks from `start` and where they end; None when they are not whole."""
        parts: list[bytes] = []
        while size := _CHUNK.match(self._buffer, start):
            length, start = int(size[1], 16), size.end()
            if length == 0:
                # Trailers, if any, end with an empty line too.
                end = self._buffer.find(b"\r\n\r\n", start - 2)
                return (None, start) if end < 0 else (b"".join(parts), end + 4)
            if len(self._buffer) < start + length + 2:
                break
            parts.append(bytes(self._buffer[start : start + length]))
            start += length + 2
        return None, start

    def _send_late(self, answer: bytes, keep: bool) -> None:  # noqa: FBT001 - call_later's
        self._waiting = None
        self._send(answer, keep=keep)
        self.data_received(b"")

    def _send(self, answer: bytes, *, keep: bool) -> None:
        if self._transport:
            self._transport.write(answer)
            if not keep:
                self._transport.close()
                self._transport = None


async def serve(host: str, port: int, upstream: Upstream) -> None:
    """Serve until SIGTERM or SIGINT; port 0 takes a free one. Prints a line when it listens."""
    loop = asyncio.get_running_loop()
    over = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, over.set)
    server = await loop.create_server(lambda: Connection(upstream), host, port, backlog=1024)
    port = server.sockets[0].getsockname()[1]
    print(f"{upstream.name} listens on http://{host}:{port}", flush=True)
    await over.wait()
    server.close()


def main(arguments: list[str] | None = None) -> int:
    """Run the command; gives 0, or 2 when it cannot listen there."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=9100, help="0 takes a free one")
    parser.add_argument("--name", default="upstream", help="begins each echo")
    parser.add_argument("--model", action="append", help="listed by /v1/models; can be repeated")
    options = parser.parse_args(arguments)
    models = tuple(options.model or ["upstream"])
    try:
        asyncio.run(serve(options.host, options.port, Upstream(options.name, models)))
    except OSError as error:
        print(f"cannot listen on {options.host}:{options.port}: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
