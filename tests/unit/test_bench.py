"""The benchmark's own arithmetic, and its client against the stand-in model server."""

import json
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import asdict
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from gatehouse.bench import cold, deploy, load, probe, status, timeline
from gatehouse.bench.contestants import body
from gatehouse.bench.load import MARK, Job, Result, Tally, percentile
from gatehouse.bench.station import Deploy
from gatehouse.bench.table import Spread, ratio, table
from gatehouse.bench.timeline import Line, Totals
from gatehouse.lab import upstream

SECONDS = 30

# As pyinfra 3.10 prints it, with the seconds at which each line came.
RUN = [
    Line(0.9, "--> Loading config..."),
    Line(1.1, "--> Loading inventory..."),
    Line(1.3, "--> Connecting to hosts..."),
    Line(1.4, "    [bench] Connected"),
    Line(1.5, "--> Preparing operation files..."),
    Line(2.0, "--> Beginning operation run..."),
    Line(2.1, "--> Starting operation: Host | Make the groups "),
    Line(2.15, "    [bench] No changes"),
    Line(2.2, "--> Starting operation: Health | Check the gateway "),
    Line(4.2, "    [bench] No changes"),
    Line(4.5, "--> Results:"),
    Line(
        4.6,
        "    Grand total                                 2       -         -       2           ",
    ),
    Line(4.7, "--> Disconnecting from hosts..."),
]


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    """The port of a stand-in model server."""
    command = [sys.executable, "-I", str(Path(upstream.__file__)), "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout
        yield int(server.stdout.readline().rsplit(":", 1)[1])
        server.terminate()


def put_load(job: Job) -> Result:
    """Run the client as it runs in a workstation: the file alone, the job on standard input."""
    found = subprocess.run(
        [sys.executable, "-I", str(Path(load.__file__))],
        input=json.dumps(asdict(job)),
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=True,
    )
    return Result(**json.loads(found.stdout))


def test_spread_shows_the_median_and_its_range() -> None:
    """One slow run out of three does not move the figure, but it can be seen."""
    assert Spread.of([5.0, 1.0, 60.0]).text() == "5.0 (1.0-60.0)"
    assert Spread.of([5.25]).text(2) == "5.25"
    assert ratio(Spread.of([6.0]), Spread.of([3.0])) == 2.0
    assert ratio(Spread.of([6.0]), Spread.of([0.0])) == 0.0


def test_table_aligns_its_columns() -> None:
    """Names are on the left, figures are under each other on the right."""
    lines = table(("", "ms"), [("gateway", "9.5"), ("x", "10.0")]).splitlines()
    assert lines == ["             ms", "  -------  ----", "  gateway   9.5", "  x        10.0"]


@pytest.mark.parametrize(("percent", "value"), [(50, 2.0), (99, 4.0), (100, 4.0), (1, 1.0)])
def test_percentile_is_a_value_that_was_seen(percent: float, value: float) -> None:
    """Nothing is interpolated, so the 99th percentile of few values is the longest."""
    assert percentile([1.0, 2.0, 3.0, 4.0], percent) == value
    assert percentile([], percent) == 0.0


def test_timeline_phases_add_up_to_the_whole() -> None:
    """No second of a run is lost or counted twice."""
    phases = timeline.phases(RUN, 5.0)
    assert sum(phases.values()) == pytest.approx(5.0)
    assert phases["connect over SSH"] == pytest.approx(0.2)
    assert phases["operations"] == pytest.approx(2.5)


def test_timeline_of_a_run_that_broke_off_has_what_was_reached() -> None:
    """A run that could not connect has no later phases and no totals."""
    assert list(timeline.phases(RUN[:4], 2.0))[-1] == "read the inventory, check the settings"
    assert timeline.totals(RUN[:4]) is None


def test_timeline_knows_how_long_each_operation_took() -> None:
    """An operation lasts until the next headline."""
    found = timeline.operations(RUN)
    assert list(found) == ["Host | Make the groups", "Health | Check the gateway"]
    assert found["Health | Check the gateway"] == pytest.approx(2.3)


def test_timeline_totals_tell_changes_from_none() -> None:
    """The last row has a dash for none."""
    assert timeline.totals(RUN) == Totals(operations=2, changed=0, failed=0, unchanged=2)


def test_deploy_report_holds_the_limit_against_the_median() -> None:
    """One slow run is noise, two of three are not."""
    totals = Totals(operations=2, changed=0, failed=0, unchanged=2)
    runs = [Deploy(seconds, 1.0, RUN, totals) for seconds in (5.0, 6.0, 60.0)]
    sessions = deploy.Sessions(commands=69, transfers=0, connections=3)
    report = deploy.report(runs[:1], runs, sessions)
    assert report.held
    assert "6.0 (5.0-60.0)" in report.text
    assert "23 remote commands, 0 file transfers, 1 connection a deploy" in report.text
    assert "Health | Check the gateway" in report.text
    assert not deploy.report(runs[:1], runs[2:], sessions).held


def test_load_is_bounded(port: int) -> None:
    """The client stops at its number of requests, however much time is left."""
    path = "/v1/chat/completions"
    job = Job("127.0.0.1", port, path, body(), connections=4, warm_seconds=0, most_requests=50)
    result = put_load(job)
    assert (result.requests, result.errors) == (50, {})
    assert 0 < result.p50_ms <= result.p99_ms <= result.longest_ms


def test_load_asks_no_question_twice() -> None:
    """A cache would answer the second; and as both are as long, the head is the same."""
    tally = Tally(Job("127.0.0.1", 1, "/", body()), begin=time.perf_counter())
    first, second = tally.request(), tally.request()
    assert first is not None
    assert second is not None
    assert first != second
    assert len(first) == len(second)
    assert MARK.encode() not in first


def test_load_stops_in_time(port: int) -> None:
    """The rate is that of the measured seconds; what warmed up is not in it."""
    job = Job("127.0.0.1", port, "/v1/chat/completions", body(), seconds=0.3, warm_seconds=0.1)
    result = put_load(job)
    assert result.seconds == pytest.approx(0.3)
    assert 0 < result.per_second * result.seconds < result.requests


def test_load_sends_the_key_and_counts_refusals(tmp_path: Path) -> None:
    """Answers other than 200 are errors, also where the server closes after each."""
    seen = []

    class Refuse(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            seen.append(self.headers["Authorization"])
            self.rfile.read(int(self.headers["Content-Length"]))
            self.send_error(401)

        def log_message(self, *_: object) -> None:
            pass

    key = tmp_path / "key"
    key.write_text("sk-made-up\n")
    with ThreadingHTTPServer(("127.0.0.1", 0), Refuse) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        job = Job("127.0.0.1", server.server_port, "/", "{}", key_file=str(key), most_requests=3)
        result = put_load(job)
        server.shutdown()
    assert result.errors == {"status 401": 3}
    assert seen == ["Bearer sk-made-up"] * 3


def test_load_of_nobody_says_so() -> None:
    """A server that is not there is an error, not a rate of 0."""
    result = put_load(Job("127.0.0.1", 1, "/", "{}", seconds=1))
    assert result.per_second == 0
    assert next(iter(result.errors)).startswith("cannot connect")


FOUND: dict[str, list[dict[str, float]]] = {
    "own": [{"seconds": 0.3}, {"seconds": 0.5}, {"seconds": 9.0}],
    "docker": [{"seconds": 0.6}, {"seconds": 0.8}, {"seconds": 9.2}],
    "cold": [{"seconds": 0.7}, {"seconds": 0.9}, {"seconds": 9.5}],
    "peer": [{"seconds": 1.6}, {"seconds": 1.6}, {"seconds": 10.6}],
    "warm": [{"direct_kept": 0.1, "entry_kept": 0.2, "direct_new": 0.3, "entry_new": 0.5}],
    "stream": [{"direct_token": 10.0, "entry_token": 10.1, "direct_gap": 10, "entry_gap": 10}],
    "idle": [{"processes": 0, "kib": 0}],
    "systemd with": [{"kib": 3900}],
    "systemd without": [{"kib": 3850}],
}


def test_engines_report_takes_each_round_for_itself() -> None:
    """A round on a busy machine is slow for all: what counts is the difference within a round."""
    found = cold.report(FOUND, rounds=3)
    assert found.held, found.text
    assert "added by a cold start: the aim is at most 0.5 s (found 0.40): reached" in found.text
    assert "on top of `docker start` by hand: 0.10 (0.10-0.30) s" in found.text
    assert "50 more" in found.text


@pytest.mark.parametrize(
    ("part", "worse"),
    [
        ("cold", {"seconds": 9.9}),
        ("warm", {"direct_kept": 0.1, "entry_kept": 1.2, "direct_new": 0.3, "entry_new": 0.5}),
        ("stream", {"direct_token": 1.0, "entry_token": 2.1, "direct_gap": 1, "entry_gap": 1}),
        ("idle", {"processes": 1, "kib": 9000}),
    ],
)
def test_engines_report_says_what_is_missed(part: str, worse: dict[str, float]) -> None:
    """Each aim of its own makes the whole fail."""
    found = cold.report(FOUND | {part: [worse] * len(FOUND[part])}, rounds=3)
    assert not found.held
    assert found.text.count("NOT reached") == 1


def test_probe_counts_nothing_but_answers(port: int) -> None:
    """The time to the first byte is that of a whole answer; anything else ends the measurement."""
    assert probe.first_byte(("127.0.0.1", port)) > 0
    probe.healthy(("127.0.0.1", port))
    with pytest.raises(OSError, match="refused"):
        probe.first_byte(("127.0.0.1", 1))


def test_status_is_held_by_the_median_of_the_whole_command() -> None:
    """The limit is on what a person waits for, and is printed beside it."""
    times = {
        "gatehouse status": Spread.of([1.4, 1.6, 1.5]),
        "the checks in it": Spread.of([0.5, 0.6, 0.7]),
    }
    report = status.report(times, 80)
    assert report.held
    assert "80 checks, median of 3" in report.text
    assert "1.50 (1.40-1.60)    1.5" in report.text
    slow = status.report({"gatehouse status": Spread.of([1.6])}, 80)
    assert not slow.held
    assert "limit MISSED" in slow.text
