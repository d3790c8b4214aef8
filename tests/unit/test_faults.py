"""Faults on purpose: each can be made and undone, and what is lost is counted by answers."""

import json
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from gatehouse.faults import disks, faults, station, steady
from gatehouse.faults.__main__ import possible
from gatehouse.faults.books import HEAD, Outcome, Said, said_lost
from gatehouse.faults.faults import BACKED, FAULTS, PORT, SPARE_PORT, Fault
from gatehouse.lab.common import LabError
from gatehouse.lab.progress import Progress


def event(content: str, **more: object) -> str:
    """Give one event of a stream."""
    choice = {"index": 0, "delta": {"content": content}, "finish_reason": None}
    return f"data: {json.dumps({'id': 'chatcmpl-1', 'choices': [choice], **more})}\n\n"


END = "data: [DONE]\n\n"
# QUESTION stands for what was asked.
WHOLE = event("I heard: ") + event("QUESTION") + END
NOTHING = event("") + END
HALF = event("I am about to") + END
BROKEN = event("I heard: QUESTION") + 'data: {"error": {"message": "lost"}}\n\n' + END
PLAIN = json.dumps({"id": "chatcmpl-1", "choices": [{"message": {"content": "QUESTION"}}]})
OTHER = json.dumps({"id": "chatcmpl-1", "choices": [{"message": {"content": "to another"}}]})
EMPTY = json.dumps({"id": "chatcmpl-1", "choices": [{"message": {"content": None}}]})


@contextmanager
def server(status: int, text: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Any]]:
    """Answer everything so, in the gateway's place; gives what was asked."""
    asked: list[Any] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            length = int(self.headers["Content-Length"])
            asked.append(json.loads(self.rfile.read(length)))
            question = asked[-1]["messages"][0]["content"]
            body = text.replace("QUESTION", question).encode()
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
    ("number", "status", "text", "wanted", "words"),
    [
        (1, 200, PLAIN, "chatcmpl-1", ""),
        (4, 200, WHOLE, "chatcmpl-1", ""),
        (4, 200, NOTHING, None, steady.NO_WORD),
        (4, 200, HALF, None, steady.NOT_WHOLE),
        (4, 200, event("QUESTION"), None, steady.CUT),
        (4, 200, BROKEN, None, steady.CUT),
        (4, 200, END, None, steady.CUT),
        (1, 200, OTHER, None, steady.NOT_WHOLE),
        (1, 200, EMPTY, None, steady.NO_WORD),
        (1, 200, "nonsense", None, "JSONDecodeError"),
        (1, 503, "no database", None, "no database"),
    ],
)
def test_only_a_whole_answer_counts(  # noqa: PLR0913, PLR0917 - a table
    number: int,
    status: int,
    text: str,
    wanted: str | None,
    words: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A client has its answer when it repeats the question, and a stream also has its end."""
    with server(status, text, monkeypatch) as asked:
        found = steady.ask("sk-x", "chat-x", number)
    assert (found["status"], found["id"], found["words"]) == (status, wanted, words)
    assert (asked[0]["model"], asked[0]["stream"]) == ("chat-x", number == 4)


def test_nobody_there_is_a_request_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """A refused connection is counted, not raised."""
    monkeypatch.setattr(steady, "ADDRESS", ("127.0.0.1", 1))
    found = steady.ask("sk-x", "chat-x", 1)
    assert (found["status"], found["id"], found["words"]) == (0, None, "ConnectionRefusedError")


ANSWER: dict[str, object] = {"at": 0.0, "status": 200, "id": "a", "words": "", "seconds": 0.2}
REFUSED: dict[str, object] = {"at": 0.0, "status": 503, "id": None, "words": "no", "seconds": 1.5}
MUTE: dict[str, object] = {
    "at": 0.0,
    "status": 200,
    "id": None,
    "words": steady.CUT,
    "seconds": 9.0,
}
GONE: dict[str, object] = {
    "at": 0.0,
    "status": 0,
    "id": None,
    "words": "TimeoutError",
    "seconds": 45.0,
}


def answered(*ids: str) -> list[dict[str, object]]:
    """Give requests with a whole answer."""
    return [{**ANSWER, "id": each} for each in ids]


def test_books_balance() -> None:
    """Rows, those reported as lost and those lost silently are all that were answered."""
    answers = [*answered(*"abcdef"), REFUSED, MUTE, GONE]
    said = Said(frozenset("de"))
    outcome = Outcome(Fault("x", "true"), answers, frozenset("abc"), said, healed=12.4)
    assert (outcome.answered, outcome.rows, outcome.reported, outcome.silent) == (6, 3, 2, 1)
    row = outcome.row()
    saw = f"1 x 503, 1 x {steady.CUT}, 1 x TimeoutError"
    assert row == ["x", "6/9", saw, "45.0 s", "3", "2", "1", "0", "12 s"]
    assert len(row) == len(HEAD)


@pytest.mark.parametrize(
    ("said", "books"),
    [
        (Said(others=1), (1, 0, 0)),
        (Said(others=7), (1, 0, 6)),
        (Said(frozenset("b"), others=2), (1, 0, 2)),
        (Said(frozenset("yz")), (0, 1, 2)),
    ],
)
def test_what_is_said_explains_no_more_than_is_missing(
    said: Said, books: tuple[int, int, int]
) -> None:
    """A name explains its own row only, a number as many as it counts; the rest stands besides."""
    outcome = Outcome(Fault("x", "true"), [*answered("a", "b"), REFUSED], frozenset("a"), said, 1)
    assert (outcome.reported, outcome.silent, outcome.besides) == books


def test_row_that_is_there_was_not_lost() -> None:
    """A line that names an answer with a row is told besides, and makes up for no other."""
    said = Said(frozenset("a"))
    outcome = Outcome(Fault("x", "true"), answered("a", "b"), frozenset("a"), said, healed=1)
    assert (outcome.rows, outcome.reported, outcome.silent, outcome.besides) == (1, 0, 1, 1)


@pytest.mark.parametrize(
    ("rows", "healed", "loses", "well"),
    [
        ("ab", 1.0, False, True),
        ("a", 1.0, False, False),
        ("a", 1.0, True, True),
        ("ab", None, True, False),
    ],
)
def test_silent_loss_is_a_failure(
    rows: str, healed: float | None, *, loses: bool, well: bool
) -> None:
    """All is well when it healed and no row is missing, unless LiteLLM is known to lose some."""
    fault = Fault("x", "true", loses=loses)
    outcome = Outcome(fault, answered("a", "b"), frozenset(rows), Said(), healed)
    assert outcome.well is well


def test_what_could_not_be_made_is_no_success() -> None:
    """A fault that was never there proves nothing."""
    outcome = Outcome(Fault("x", "true"), [], frozenset(), Said(), None, broken="no such unit")
    assert (outcome.row()[0], outcome.row()[-1]) == ("x", "could not be made")
    assert len(outcome.row()) == len(HEAD)
    assert not outcome.well


def test_losses_are_read_from_the_log() -> None:
    """LiteLLM's own words for rows that it gives up are counted, and no others."""
    spend = "Spend tracking - "
    lines = [
        f"{spend}spend log queue is at its 64000000 byte budget; dropped the 12 oldest spend logs",
        f"{spend}3 spend log rows could not be written or parked in Redis and will be lost on exit",
        f"{spend}dropping 5 spend log rows without per-row isolation; isolation failure budget",
        f"{spend}dropping spend log row Postgres rejected. request_id=chatcmpl-1f error=y",
        f"{spend}dropping spend log row Postgres rejected. request_id= error=y",
        "Error in tracking cost callback - x",
        f"{spend}update_database failed. Spend log insertion or daily transaction enqueue may not",
        f"{spend}transient DB error writing spend logs, retry 1/3. logs_count=9, error=x",
        f"{spend}dropped 4 key increments: the failed statement may have applied",
        "nothing",
    ]
    found = said_lost(json.dumps({"message": line}) for line in lines)
    assert found == Said(frozenset({"chatcmpl-1f"}), others=12 + 3 + 5 + 1 + 1 + 1)
    assert said_lost([json.dumps({"message": lines[3]})]).since(found) == Said()


def test_names_are_unique() -> None:
    """A row is of one fault."""
    assert len({fault.name for fault in FAULTS}) == len(FAULTS)


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
def test_fault_is_valid_shell(fault: Fault) -> None:
    """Making and undoing it can be read by the shell that the workstation has."""
    for script in (fault.make, fault.undo, fault.before, fault.after):
        done = subprocess.run(
            ["bash", "-n"], input=script, text=True, capture_output=True, check=False
        )
        assert not done.stderr


def test_programs_of_faults_are_valid() -> None:
    """What runs on the workstation as a program is Python."""
    for program in (faults.LIAR, faults.GREEDY, faults.EATER, station.API):
        compile(program, "program", "exec")


def test_all_backends_are_those_of_the_model() -> None:
    """A model that has somebody to stand in for it loses both, and its servers are what stops."""
    found = next(fault for fault in FAULTS if fault.name == "all backends: down")
    assert found.model == BACKED
    assert f"upstream-{PORT} " in found.make
    assert f"upstream-{SPARE_PORT}" in found.make


def test_clock_is_not_left_wrong(tmp_path: Path) -> None:
    """It is set right by the time that has really passed; what was never set is let be."""
    fault = next(fault for fault in FAULTS if fault.name == "clock: an hour back")
    note, told = tmp_path / "clock", tmp_path / "told"
    # Prints what the clock says, and notes what it is set to.
    date = f'date() {{ case $1 in -s) echo "$2" >>{told} ;; *) command date "$@" ;; esac; }}\n'

    def run(script: str) -> None:
        script = date + script.replace("/run/clock", str(note))
        subprocess.run(["bash", "-ec", script], check=True)

    run(fault.undo)
    assert not told.exists()
    run(fault.make)
    run(fault.undo)
    wrong, right = told.read_text().splitlines()
    assert wrong == "-1 hour"
    assert abs(int(right.removeprefix("@")) - time.time()) < 60
    assert not note.exists()


def test_only_a_machine_has_a_clock(capsys: pytest.CaptureFixture[str]) -> None:
    """What a container cannot have is left out and named; nothing but that is an error."""
    progress = Progress(sys.stdout)
    kept = possible(FAULTS, progress)
    assert {fault.name for fault in FAULTS} - {fault.name for fault in kept} == {
        "clock: an hour ahead",
        "clock: an hour back",
    }
    assert "clock: an hour ahead, clock: an hour back" in capsys.readouterr().out
    with pytest.raises(LabError, match="no clock of its own"):
        possible([fault for fault in FAULTS if fault.vm], progress)


def test_small_disks_are_taken_away() -> None:
    """Every fault that fills a disk has one of its own around it."""
    for fault in FAULTS:
        if disks.FILL in fault.make:
            assert "mount -t tmpfs" in fault.before
            assert "umount -l /run/small" in fault.after
            assert fault.undo == disks.EMPTY
