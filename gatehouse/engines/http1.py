"""The least of HTTP: one request, one answer.

`http.client` costs 20 ms of CPU to import, which every cold start would wait for.
"""

import socket

_CHUNK = 65536


def status(backend: str, path: str, seconds: float) -> int | None:
    """Give the status that an address answers with; None when nobody answers in time."""
    host, _, port = backend.rpartition(":")
    request = f"GET {path} HTTP/1.0\r\nHost: {backend}\r\nConnection: close\r\n\r\n"
    try:
        with socket.create_connection((host.strip("[]"), int(port)), timeout=seconds) as client:
            client.sendall(request.encode())
            return _status(client.recv(_CHUNK))
    except OSError:
        return None


def over_unix(path: str, method: str, target: str, seconds: float) -> tuple[int, bytes]:
    """Ask a server behind a Unix socket; give status and body, or raise `OSError`.

    HTTP/1.0, so that the end of the stream is the end of the body.
    """
    request = f"{method} {target} HTTP/1.0\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n"
    received = b""
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(seconds)
        client.connect(path)
        client.sendall(request.encode())
        while chunk := client.recv(_CHUNK):
            received += chunk
    code = _status(received)
    if code is None:
        raise ConnectionError(f"{path} answered no HTTP")
    return code, received.partition(b"\r\n\r\n")[2]


def _status(answer: bytes) -> int | None:
    words = answer.split(maxsplit=2)
    if len(words) < 2 or not words[0].startswith(b"HTTP/") or not words[1].isdigit():  # noqa: PLR2004
        return None
    return int(words[1])
