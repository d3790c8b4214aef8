"""Redis. Arguments: address and port; the password is read here and goes to Redis only."""

import socket
import statistics
import sys
import time
from pathlib import Path
from typing import BinaryIO

from gatehouse.probes.common import tell

KEY = "/etc/gatehouse/secrets/redis_password"
TIMEOUT = 5.0
PINGS = 5
FACTS = ("used_memory", "maxmemory", "evicted_keys", "expired_keys")


class Redis:
    """One connection; knows as much of the protocol as it needs."""

    def __init__(self, address: str, port: int) -> None:
        """Connect; raises `OSError`."""
        self._socket = socket.create_connection((address, port), timeout=TIMEOUT)
        self._file: BinaryIO = self._socket.makefile("rb")

    def ask(self, *words: str) -> str:
        """Give a simple or a bulk answer; an error is a text that begins with `-`."""
        parts = [f"${len(word.encode())}\r\n{word}\r\n" for word in words]
        self._socket.sendall(f"*{len(words)}\r\n{''.join(parts)}".encode())
        line = self._file.readline().decode().strip()
        if not line:
            raise OSError("Redis closed the connection")
        if line.startswith("$"):
            return self._file.read(int(line[1:]) + 2).decode() if line != "$-1" else ""
        return line

    def milliseconds(self) -> float:
        """Give the median time of some pings."""
        times = []
        for _ in range(PINGS):
            begin = time.perf_counter()
            if self.ask("PING") != "+PONG":
                raise OSError("Redis does not answer a ping")
            times.append(time.perf_counter() - begin)
        return round(statistics.median(times) * 1000, 3)


def main() -> None:
    """Ask without a password, then with it."""
    address, port = sys.argv[1], int(sys.argv[2])
    anonymous = Redis(address, port).ask("GET", "anything")
    redis = Redis(address, port)
    login = redis.ask("AUTH", Path(KEY).read_text().strip())

    def info() -> dict[str, str]:
        if login != "+OK":
            raise OSError("Redis does not take its password")
        lines = dict(line.partition(":")[::2] for line in redis.ask("INFO").splitlines())
        return {name: lines[name] for name in FACTS}

    tell(
        {
            "anonymous": lambda: anonymous,
            "login": lambda: login,
            "milliseconds": redis.milliseconds,
            "info": info,
        }
    )


if __name__ == "__main__":
    main()
