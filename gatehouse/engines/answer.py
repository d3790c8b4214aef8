"""One refused client: read what it says, answer, and part without a reset."""

import json
import re
import socket
import time

# A client that sends on after an answer it does not read loses that answer, so its request is read
# first; but not for ever and not without end.
READ_SECONDS = 3.0
PART_SECONDS = 2.0
MOST_BYTES = 64 * 2**20
_MOST_HEAD = 64 * 1024
_CHUNK = 65536
_LENGTH = re.compile(rb"\r\ncontent-length:[ \t]*(\d+)", re.IGNORECASE)


def response(message: str, code: str, retry_seconds: int) -> bytes:
    """Give a 503 in the form that OpenAI's clients understand."""
    error = {"message": message, "type": "engine_unavailable", "code": code}
    body = json.dumps({"error": error}).encode()
    return (
        "HTTP/1.1 503 Service Unavailable\r\n"
        "Content-Type: application/json\r\n"
        f"Content-Length: {len(body)}\r\n"
        f"Retry-After: {retry_seconds}\r\n"
        "Connection: close\r\n\r\n"
    ).encode() + body


class Exchange:
    """A client's request, our one answer, and the wait until the client has it."""

    def __init__(self, client: socket.socket, answer: bytes) -> None:
        """Begin with a connection that does not block."""
        self.client = client
        self._answer = answer
        self._head = b""
        self._missing: int | None = None
        self._read = 0
        self._answered = False
        self._over = False
        self._end = time.monotonic() + READ_SECONDS

    def step(self) -> None:
        """Take what the client sent."""
        try:
            chunk = self.client.recv(_CHUNK)
        except BlockingIOError:
            return
        except OSError:
            self._over = True
            return
        self._read += len(chunk)
        if self._answered:
            self._over = not chunk or self._read > MOST_BYTES
        elif not chunk or self._has_all(chunk) or self._read > MOST_BYTES:
            self._say()

    def is_over(self) -> bool:
        """Say whether nothing is left to do; a client that is too slow is answered, then left."""
        if not self._over and time.monotonic() > self._end:
            if self._answered:
                self._over = True
            else:
                self._say()
        return self._over

    def _has_all(self, chunk: bytes) -> bool:
        if self._missing is None:
            self._head += chunk
            head, end, body = self._head.partition(b"\r\n\r\n")
            if not end:
                return len(self._head) > _MOST_HEAD
            length = _LENGTH.search(head)
            # A chunked body is read after the answer, as far as it comes.
            self._missing = (int(length[1]) if length else 0) - len(body)
        else:
            self._missing -= len(chunk)
        return self._missing <= 0

    def _say(self) -> None:
        self._answered = True
        self._end = time.monotonic() + PART_SECONDS
        try:
            # A few hundred bytes: they always fit into an empty send buffer.
            self.client.sendall(self._answer)
            self.client.shutdown(socket.SHUT_WR)
        except OSError:
            self._over = True
