"""Faults on purpose: each can be made and undone, and what is lost is counted by answers."""

import json
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from gatehouse.faults import steady
from gatehouse.faults.__main__ import HEAD, Outcome
from gatehouse.faults.faults import FAULTS, Fault

WHOLE = b'data: {"id": "chatcmpl-1"}\n\ndata: {"id": "chatcmpl-1"}\n\ndata: [DONE]\n\n'
CUT = b'data: {"id": "chatcmpl-1"}\n\n'


@contextmanager
def server(status: int, body: bytes, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Any]]:
    """Answer everything so, in the gateway's place; gives what was asked."""
    asked: list[Any] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            length = int(self.headers["Content-Length"])
            asked.append(json.loads(self.rfile.read(length)))
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_words: object) -> None:
            pass

    found = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    monkeypatch.setattr(steady, "ADDRESS", ("127.0.0.1", found.server_port))
    threading.Thread(target=found.serve_forever, daemon=True).start()
    try:
        yield asked
    finally:
        found.shutdown()


@pytest.mark.parametrize(
    ("number", "status", "body", "wanted", "words"),
    [
        (1, 200, b'{"id": "chatcmpl-1"}', "chatcmpl-1", ""),
        (4, 200, WHOLE, "chatcmpl-1", ""),
        (4, 200, CUT, None, "the stream was cut"),
        (1, 200, b"nonsense", None, "JSONDecodeError"),
        (1, 503, b"no database", None, "no database"),
    ],
)
def test_only_a_whole_answer_counts(  # noqa: PLR0913, PLR0917 - a table
    number: int,
    status: int,
    body: bytes,
    wanted: str | None,
    words: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A client has its answer when it can be read to its end, a stream up to its mark."""
    with server(status, body, monkeypatch) as asked:
        found = steady.ask("sk-x", number)
    assert (found["status"], found["id"], found["words"]) == (status, wanted, words)
    assert asked[0]["stream"] is (number == 4)


def test_nobody_there_is_a_request_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """A refused connection is counted, not raised."""
    monkeypatch.setattr(steady, "ADDRESS", ("127.0.0.1", 1))
    found = steady.ask("sk-x", 1)
    assert (found["status"], found["id"], found["words"]) == (0, None, "ConnectionRefusedError")


def test_lost_are_answers_without_a_row() -> None:
    """What was refused is not lost: nobody was told that it was answered."""
    answer = {"at": 0.0, "status": 200, "id": "a", "words": "", "seconds": 0.2}
    refused = {"at": 0.0, "status": 503, "id": None, "words": "no", "seconds": 1.5}
    cut = {"at": 0.0, "status": 200, "id": None, "words": "the stream was cut", "seconds": 9.0}
    outcome = Outcome(Fault("x", "true"), [answer, answer, refused, cut], 1, 3, 12.4)
    assert (outcome.answered, outcome.lost) == (2, 1)
    row = outcome.row()
    assert row == ["x", "2/4", "1 x 503, 1 x the stream was cut", "9.0 s", "1", "3", "12 s"]
    assert len(row) == len(HEAD)
    assert Outcome(Fault("x", "true"), [], 0, 0, None).row()[-1] == "no"


def test_names_are_unique() -> None:
    """A row is of one fault."""
    assert len({fault.name for fault in FAULTS}) == len(FAULTS)


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
def test_fault_is_valid_shell(fault: Fault) -> None:
    """Making and undoing it can be read by the shell that the workstation has."""
    for script in (fault.make, fault.undo):
        done = subprocess.run(
            ["bash", "-n"], input=script, text=True, capture_output=True, check=False
        )
        assert not done.stderr
