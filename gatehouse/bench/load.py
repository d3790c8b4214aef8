"""A cheap HTTP client that puts load on a gateway and measures it.

It needs Python 3.11 and nothing else, because it runs inside the workstation: seen from outside, a
tunnel would be measured too. `python3 load.py` reads a `Job` as JSON from its standard input and
prints a `Result` as JSON.

The loop is closed: each connection asks again as soon as it has its answer. So a slow server is
asked less often, and its latencies are those of `connections` clients that wait for their answers.
"""

import asyncio
import json
import math
import re
import sys
import time
from dataclasses import asdict, dataclass, field
from itertools import count
from pathlib import Path

# In a body, this is replaced by a number that no other request has, so that no cache answers.
MARK = "{unique}"
DRAIN_SECONDS = 30
CONNECT_SECONDS = 10

_LENGTH = re.compile(rb"\r\ncontent-length:[ \t]*(\d+)", re.IGNORECASE)
_CLOSE = re.compile(rb"\r\nconnection:[ \t]*close", re.IGNORECASE)


@dataclass(frozen=True)
class Job:
    """What to ask, how long, and at most how often.

    `key_file` holds the key, so that it is on no command line. `warm_seconds` come before and do
    not count.
    """

    host: str
    port: int
    path: str
    body: str
    key_file: str | None = None
    connections: int = 1
    seconds: float = 5.0
    warm_seconds: float = 1.0
    most_requests: int = 100_000


@dataclass(frozen=True)
class Result:
    """What was seen; latencies in milliseconds of the requests that were begun in time."""

    requests: int
    seconds: float
    per_second: float
    p50_ms: float
    p99_ms: float
    longest_ms: float
    errors: dict[str, int]
    client_cpu_seconds: float


@dataclass
class Tally:
    """The measurement as it goes on; times are those of `time.perf_counter`."""

    job: Job
    begin: float
    latencies: list[float] = field(default_factory=list)
    errors: dict[str, int] = field(default_factory=dict)
    in_time: int = 0
    asked: int = 0

    def __post_init__(self) -> None:
        """Build what is the same in all requests."""
        job = self.job
        self.end = self.begin + job.seconds
        self._before, _, self._after = (part.encode() for part in job.body.partition(MARK))
        # All of these have the same number of digits, so every body has the same length.
        first = time.time_ns()
        self._numbers = count(first)
        width = len(str(first)) if MARK in job.body else 0
        length = len(self._before) + width + len(self._after)
        key = Path(job.key_file).read_text() if job.key_file else ""
        lines = [
            f"POST {job.path} HTTP/1.1",
            f"Host: {job.host}:{job.port}",
            "Content-Type: application/json",
            f"Content-Length: {length}",
            *([f"Authorization: Bearer {key.strip()}"] if key else []),
        ]
        self._head = "\r\n".join([*lines, "", ""]).encode()
        self._varied = width > 0

    def request(self) -> bytes | None:
        """Give the next request; None when it is over."""
        if time.perf_counter() >= self.end or self.asked >= self.job.most_requests:
            return None
        self.asked += 1
        number = b"%d" % next(self._numbers) if self._varied else b""
        return b"".join([self._head, self._before, number, self._after])

    def answered(self, status: bytes, sent: float) -> None:
        """Count an answer."""
        now = time.perf_counter()
        if status != b"200":
            self.failed(f"status {status.decode('latin-1')}")
        elif sent >= self.begin:
            self.latencies.append(now - sent)
            self.in_time += now <= self.end

    def failed(self, why: str) -> None:
        """Count a request without a good answer."""
        self.errors[why] = self.errors.get(why, 0) + 1


class Client(asyncio.Protocol):
    """One connection, which asks again and again; `over` is done when it has ended."""

    def __init__(self, tally: Tally, over: "asyncio.Future[None]") -> None:
        """Add to `tally`."""
        self._tally = tally
        self._over = over
        self._buffer = b""
        self._sent = 0.0
        self._waiting = False
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Ask for the first time."""
        if not isinstance(transport, asyncio.Transport):
            raise TypeError(f"expected a stream, got {transport!r}")
        self._transport = transport
        self._ask()

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - asyncio's signature
        """Count what will not be answered any more."""
        if self._waiting:
            self._tally.failed("connection closed")
        self._finish()

    def data_received(self, data: bytes) -> None:
        """Take the answer, and ask again when it is whole."""
        buffer = self._buffer = self._buffer + data if self._buffer else data
        end = buffer.find(b"\r\n\r\n")
        if end < 0:
            return
        length = _LENGTH.search(buffer, 0, end)
        if length:
            whole = len(buffer) >= end + 4 + int(length[1])
        else:
            whole = buffer.endswith(b"0\r\n\r\n") and len(buffer) > end + 4
        if not whole:
            return
        self._buffer, self._waiting = b"", False
        self._tally.answered(buffer[9:12], self._sent)
        # Servers that recycle their workers say so in the last answer.
        if _CLOSE.search(buffer, 0, end + 2):
            self._finish()
        else:
            self._ask()

    def _ask(self) -> None:
        request = self._tally.request()
        if request is None or self._transport is None:
            self._finish()
            return
        self._sent, self._waiting = time.perf_counter(), True
        self._transport.write(request)

    def _finish(self) -> None:
        self._waiting = False
        if self._transport:
            self._transport.close()
        if not self._over.done():
            self._over.set_result(None)


async def keep_asking(tally: Tally) -> None:
    """Ask over one connection at a time until it is over; a lost one is made anew."""
    loop = asyncio.get_running_loop()
    while time.perf_counter() < tally.end and tally.asked < tally.job.most_requests:
        over: asyncio.Future[None] = loop.create_future()
        making = loop.create_connection(
            lambda over=over: Client(tally, over),  # type: ignore[misc]
            tally.job.host,
            tally.job.port,
        )
        try:
            transport, _ = await asyncio.wait_for(making, CONNECT_SECONDS)
        except OSError as error:
            tally.failed(f"cannot connect: {error}")
            return
        try:
            left = tally.end + DRAIN_SECONDS - time.perf_counter()
            await asyncio.wait_for(over, left)
        except TimeoutError:
            transport.abort()
            return


async def run(job: Job) -> Result:
    """Ask as the job says and give what was seen."""
    tally = Tally(job, time.perf_counter() + job.warm_seconds)
    cpu, begin = time.process_time(), time.perf_counter()
    await asyncio.gather(*(keep_asking(tally) for _ in range(job.connections)))
    cpu = time.process_time() - cpu
    seconds = min(job.seconds, max(time.perf_counter() - begin - job.warm_seconds, 1e-9))
    latencies = sorted(tally.latencies)
    return Result(
        requests=tally.asked,
        seconds=seconds,
        per_second=tally.in_time / seconds,
        p50_ms=percentile(latencies, 50) * 1000,
        p99_ms=percentile(latencies, 99) * 1000,
        longest_ms=percentile(latencies, 100) * 1000,
        errors=tally.errors,
        client_cpu_seconds=cpu,
    )


def percentile(ordered: list[float], percent: float) -> float:
    """Give the value that `percent` of the ordered values do not exceed; 0 when there are none."""
    if not ordered:
        return 0.0
    return ordered[max(0, math.ceil(len(ordered) * percent / 100) - 1)]


def main() -> int:
    """Read a job, do it, print the result."""
    json.dump(asdict(asyncio.run(run(Job(**json.load(sys.stdin))))), sys.stdout)
    return 0


if __name__ == "__main__":
    sys.exit(main())
