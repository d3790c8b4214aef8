"""The stand-in for model servers, over a real socket and in a process of its own."""

import base64
import http.client
import json
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from gatehouse.lab import upstream

PROGRAM = Path(upstream.__file__)
SECONDS = 10


@pytest.fixture(scope="module")
def address() -> Iterator[tuple[str, int]]:
    """A server that runs as it does in a workstation: the file alone, without this package."""
    command = [sys.executable, "-I", str(PROGRAM), "--port", "0", "--name", "cloud"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout
        line = server.stdout.readline()
        assert line.startswith("cloud listens on http://127.0.0.1:")
        yield "127.0.0.1", int(line.rsplit(":", 1)[1])
        server.terminate()
        assert server.wait(SECONDS) == 0


@pytest.fixture
def client(address: tuple[str, int]) -> Iterator[http.client.HTTPConnection]:
    """One kept-alive connection to a server that works and has counted nothing."""
    connection = http.client.HTTPConnection(*address, timeout=SECONDS)
    ask(connection, "POST", "/_mode", {})
    ask(connection, "DELETE", "/_calls")
    yield connection
    connection.close()


def ask(
    connection: http.client.HTTPConnection,
    method: str,
    path: str,
    body: object = None,
    **headers: str,
) -> tuple[int, Any]:
    """Give the status and the answer's JSON, or its text where it is a stream."""
    content = (
        body if isinstance(body, bytes) else json.dumps(body).encode() if body is not None else None
    )
    connection.request(
        method, path, content, {name.replace("_", "-"): v for name, v in headers.items()}
    )
    answer = connection.getresponse()
    text = answer.read().decode()
    stream = answer.headers["content-type"] == "text/event-stream"
    return answer.status, text if stream else json.loads(text)


def question(text: str, **more: object) -> dict[str, object]:
    """Give a chat request."""
    return {"model": "m", "messages": [{"role": "user", "content": text}], **more}


def test_chat_echoes_the_question(client: http.client.HTTPConnection) -> None:
    """Two questions have two answers, each with its model and a count of tokens."""
    status, answer = ask(client, "POST", "/v1/chat/completions", question('say "héllo"'))
    assert status == 200
    assert answer["choices"][0]["message"]["content"] == 'cloud heard: say "héllo"'
    assert (answer["model"], answer["object"]) == ("m", "chat.completion")
    usage = answer["usage"]
    assert usage["total_tokens"] == usage["prompt_tokens"] + usage["completion_tokens"]
    assert usage["prompt_tokens"] == len('say "héllo"') // 4


def test_chat_echoes_the_last_user_message(client: http.client.HTTPConnection) -> None:
    """What the system or the assistant said is not echoed, nor parts that are no text."""
    parts = [{"type": "image_url", "image_url": {"url": "data:"}}, {"type": "text", "text": "two"}]
    messages = [
        {"role": "system", "content": "be kind"},
        {"role": "user", "content": "one"},
        {"role": "assistant", "content": None},
        {"role": "user", "content": parts},
    ]
    _, answer = ask(client, "POST", "/v1/chat/completions", {"model": "m", "messages": messages})
    assert answer["choices"][0]["message"]["content"].split() == ["cloud", "heard:", "two"]


def test_chat_streams_the_same_content_in_chunks(client: http.client.HTTPConnection) -> None:
    """A stream has a role, several pieces, an end, the usage that was asked for, and [DONE]."""
    body = question("one two  three", stream=True, stream_options={"include_usage": True})
    status, text = ask(client, "POST", "/v1/chat/completions", body)
    *events, done = [part.removeprefix("data: ") for part in text.strip().split("\n\n")]
    chunks = [json.loads(event) for event in events]
    assert (status, done) == (200, "[DONE]")
    deltas = [chunk["choices"][0]["delta"] for chunk in chunks if chunk["choices"]]
    assert deltas[0]["role"] == "assistant"
    assert "".join(delta.get("content", "") for delta in deltas) == "cloud heard: one two  three"
    assert len(chunks) >= 6
    assert chunks[-2]["choices"][0]["finish_reason"] == "stop"
    assert chunks[-1]["usage"]["total_tokens"] > 0
    assert len({chunk["id"] for chunk in chunks}) == 1


def test_embeddings_are_deterministic(client: http.client.HTTPConnection) -> None:
    """The same text always has the same vector, another text another one, in both encodings."""
    body: dict[str, object] = {"model": "e", "input": ["a", "b", "a"]}
    _, answer = ask(client, "POST", "/v1/embeddings", body)
    first, second, third = (each["embedding"] for each in answer["data"])
    assert first == third != second
    assert len(first) == upstream.DIMENSIONS
    _, coded = ask(client, "POST", "/v1/embeddings", {**body, "encoding_format": "base64"})
    packed = base64.b64decode(coded["data"][0]["embedding"])
    assert list(struct.unpack(f"<{upstream.DIMENSIONS}f", packed)) == first
    _, one = ask(client, "POST", "/v1/embeddings", {"model": "e", "input": "a", "dimensions": 3})
    assert len(one["data"][0]["embedding"]) == 3
    _, tokens = ask(client, "POST", "/v1/embeddings", {"model": "e", "input": [1, 2, 3]})
    assert (len(tokens["data"]), tokens["usage"]["total_tokens"]) == (1, 3)


@pytest.mark.parametrize("path", ["/v1/rerank", "/rerank"])
def test_rerank_puts_the_matching_document_first(
    client: http.client.HTTPConnection, path: str
) -> None:
    """Documents come in the order of the words that they share with the query."""
    documents = ["a cat", {"text": "the red fox jumps"}, "a red hat"]
    body = {"model": "r", "query": "red fox", "documents": documents, "return_documents": True}
    _, answer = ask(client, "POST", path, body)
    assert [result["index"] for result in answer["results"]] == [1, 2, 0]
    assert [result["relevance_score"] for result in answer["results"]] == [1.0, 0.5, 0.0]
    assert answer["results"][0]["document"]["text"] == "the red fox jumps"
    _, answer = ask(client, "POST", path, {**body, "top_n": 1})
    assert len(answer["results"]) == 1


def test_models_and_health_answer(client: http.client.HTTPConnection) -> None:
    """What a gateway asks a model server before it uses it."""
    assert ask(client, "GET", "/v1/models?limit=1")[1]["data"][0]["id"] == "upstream"
    assert ask(client, "GET", "/health") == (200, {"status": "ok"})


def test_calls_count_routes_and_hide_secrets(client: http.client.HTTPConnection) -> None:
    """A test can tell how often a model was asked and with which headers, not with which key."""
    for _ in range(2):
        ask(client, "POST", "/v1/chat/completions", question("x"), Authorization="Bearer sk-s3cret")
    ask(client, "POST", "/v1/chat/completions", b"no JSON", X_Trace="7", Authorization="sk-s3cret")
    ask(client, "GET", "/health")
    _, seen = ask(client, "GET", "/_calls")
    assert seen["total"] == 4
    assert seen["routes"]["GET /health"]["calls"] == 1
    chat = seen["routes"]["POST /v1/chat/completions"]
    assert (chat["calls"], chat["last_headers"]["x-trace"]) == (3, "7")
    assert chat["last_headers"]["authorization"] == "(hidden)"
    assert "s3cret" not in json.dumps(seen)
    assert ask(client, "DELETE", "/_calls")[1] == {"total": 0, "routes": {}}


def test_mode_fail_gives_the_wished_status(client: http.client.HTTPConnection) -> None:
    """Models fail until the mode is set back, while the server's own health stays good."""
    assert ask(client, "POST", "/_mode", {"fail": True, "status": 429})[0] == 200
    status, answer = ask(client, "POST", "/v1/chat/completions", question("x"))
    assert (status, answer["error"]["type"]) == (429, "server_error")
    assert ask(client, "GET", "/health")[0] == 200
    ask(client, "POST", "/_mode", {})
    assert ask(client, "POST", "/v1/chat/completions", question("x"))[0] == 200


def test_mode_context_error_has_openais_code(client: http.client.HTTPConnection) -> None:
    """LiteLLM tells this error by its code and goes to the context-window fallback."""
    ask(client, "POST", "/_mode", {"context_error": True})
    status, answer = ask(client, "POST", "/v1/chat/completions", question("x"))
    assert (status, answer["error"]["code"]) == (400, "context_length_exceeded")


def test_mode_delay_holds_only_the_models_back(address: tuple[str, int]) -> None:
    """A slow answer keeps nobody else waiting, and leaves a client that goes away behind."""
    slow, quick = (http.client.HTTPConnection(*address, timeout=SECONDS) for _ in range(2))
    ask(quick, "POST", "/_mode", {"delay_seconds": 0.3})
    begin = time.monotonic()
    answers = []
    asking = threading.Thread(
        target=lambda: answers.append(ask(slow, "POST", "/v1/chat/completions", question("x")))
    )
    asking.start()
    assert ask(quick, "GET", "/health")[0] == 200
    assert time.monotonic() - begin < 0.3
    asking.join(SECONDS)
    assert answers[0][0] == 200
    assert time.monotonic() - begin >= 0.3
    ask(quick, "POST", "/_mode", {})


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "says"),
    [
        ("POST", "/v1/chat/completions", b"{", 400, "not JSON"),
        ("POST", "/v1/chat/completions", [], 400, "not a JSON object"),
        ("POST", "/v1/chat/completions", {"messages": []}, 400, "model is missing"),
        ("POST", "/v1/chat/completions", {"model": "m"}, 400, "messages is missing"),
        (
            "POST",
            "/v1/chat/completions",
            {"model": "m", "messages": ["x"]},
            400,
            "role and content",
        ),
        ("POST", "/v1/embeddings", {"model": "m"}, 400, "input is missing"),
        ("POST", "/v1/embeddings", {"model": "m", "input": [{}]}, 400, "expected texts"),
        (
            "POST",
            "/v1/embeddings",
            {"model": "m", "input": "a", "dimensions": -1},
            400,
            "dimensions",
        ),
        ("POST", "/v1/rerank", {"model": "m", "documents": ["a"]}, 400, "query is missing"),
        ("POST", "/rerank", {"model": "m", "query": "a", "documents": [1]}, 400, "documents"),
        ("POST", "/v1/images", {}, 404, "there is only"),
        ("GET", "/rerank", None, 405, "expected POST"),
        ("POST", "/_mode", {"slow": True}, 400, "unknown: slow"),
        ("POST", "/_mode", {"status": 200}, 400, "from 400 to 599"),
        ("POST", "/_mode", {"fail": "yes"}, 400, "true or false"),
        ("POST", "/_mode", {"delay_seconds": -1}, 400, "expected 0 to"),
    ],
)
def test_bad_input_gets_an_error_that_says_what_is_expected(  # noqa: PLR0913 - a table of cases
    client: http.client.HTTPConnection,
    *,
    method: str,
    path: str,
    body: object,
    status: int,
    says: str,
) -> None:
    """Every refusal is JSON in OpenAI's form, and the connection can be used further."""
    seen, answer = ask(client, method, path, body)
    assert seen == status
    assert says in answer["error"]["message"]
    assert ask(client, "GET", "/health")[0] == 200


def test_connection_answers_requests_in_pieces_and_in_a_row(address: tuple[str, int]) -> None:
    """A request may come byte by byte and chunked, and the next may come before the answer."""
    body = json.dumps(question("hi")).encode()
    head = b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\n"
    chunked = b"%sTransfer-Encoding: chunked\r\n\r\n%x\r\n%s\r\n%x\r\n%s\r\n0\r\n\r\n" % (
        head, 10, body[:10], len(body) - 10, body[10:],
    )  # fmt: skip
    whole = b"%sContent-Length: %d\r\nConnection: close\r\n\r\n%s" % (head, len(body), body)
    with socket.create_connection(address, timeout=SECONDS) as stream:
        for number in range(len(chunked)):
            stream.sendall(chunked[number : number + 1])
        stream.sendall(chunked + whole)
        seen = b""
        while data := stream.recv(65536):
            seen += data
    assert seen.count(b"HTTP/1.1 200 OK") == 3
    assert seen.count(b"cloud heard: hi") == 3


@pytest.mark.parametrize(
    ("request_bytes", "status"),
    [
        (b"hello\r\n\r\n", b"400"),
        (b"GET / HTTP/1.1\r\nX: " + b"x" * 70_000, b"431"),
        (b"POST /rerank HTTP/1.1\r\nContent-Length: 99999999999\r\n\r\n", b"413"),
    ],
)
def test_connection_that_makes_no_sense_is_closed(
    address: tuple[str, int], request_bytes: bytes, status: bytes
) -> None:
    """What cannot be read gets an answer and then the end of the connection."""
    with socket.create_connection(address, timeout=SECONDS) as stream:
        stream.sendall(request_bytes)
        seen = b""
        while data := stream.recv(65536):
            seen += data
    assert seen.startswith(b"HTTP/1.1 " + status)


def test_large_body_is_waited_for(address: tuple[str, int]) -> None:
    """A client that asks first whether it may send gets told so."""
    body = json.dumps(question("y" * 100_000)).encode()
    head = (
        b"POST /v1/chat/completions HTTP/1.1\r\nExpect: 100-continue\r\nContent-Length: %d\r\n\r\n"
    )
    with socket.create_connection(address, timeout=SECONDS) as stream:
        stream.sendall(head % len(body))
        assert stream.recv(1000) == b"HTTP/1.1 100 Continue\r\n\r\n"
        stream.sendall(body)
        assert stream.recv(65536).startswith(b"HTTP/1.1 200 OK")


def test_address_that_is_taken_is_named(address: tuple[str, int]) -> None:
    """A second server on the same port ends with the address and the reason."""
    command = [sys.executable, "-I", str(PROGRAM), "--port", str(address[1])]
    found = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS, check=False)
    assert found.returncode == 2
    assert f"cannot listen on 127.0.0.1:{address[1]}" in found.stderr
