"""Where a secret shows that should not. Arguments: paths that are passed over.

What is read is bounded: the newest lines of each log, and files up to a size that no rendered file
reaches. The search never prints what it searched for.
"""

import contextlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path

from gatehouse.probes.common import containers, docker, tell

SECRETS = Path("/etc/gatehouse/secrets")
OURS = ("/opt/gatehouse", "/var/lib/gatehouse")
# What restic writes, gigabytes of it; nothing in it can be read.
ENCRYPTED = ("/var/lib/gatehouse/backup/repository", "/var/lib/gatehouse/backup/cache")
LOG_LINES = 1000
MOST_BYTES = 16 * 2**20
SHORTEST = 8


def needles() -> list[bytes]:
    """Give every secret of the host; raises `OSError` where none may be read."""
    files = [path for path in SECRETS.rglob("*") if path.is_file()]
    values = [path.read_bytes().strip() for path in files]
    found = [value for value in values if len(value) >= SHORTEST]
    if not found:
        raise OSError(f"{SECRETS} holds no secret")
    return found


def processes() -> Iterator[bytes]:
    """Give every command line."""
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            yield path.read_bytes()
        except OSError:
            continue


def files(passed: list[str]) -> Iterator[bytes]:
    """Give the content of what Gatehouse and its commands wrote."""
    for top in OURS:
        for folder, folders, names in os.walk(top):
            folders[:] = [each for each in folders if f"{folder}/{each}" not in passed]
            for name in names:
                path = Path(folder, name)
                if path.suffix == ".tar" or not path.is_file():
                    continue
                # It may go while others are looked at.
                with contextlib.suppress(FileNotFoundError):
                    if path.stat().st_size <= MOST_BYTES:
                        yield path.read_bytes()


def main() -> None:
    """Look everywhere."""
    wanted = needles()
    found = [each["Id"] for each in containers()]
    logs = f"logs?stdout=true&stderr=true&tail={LOG_LINES}"
    passed = ["/opt/gatehouse/venvs", *ENCRYPTED, *sys.argv[1:]]

    def places() -> list[str]:
        searched: dict[str, Iterator[bytes]] = {
            "docker inspect": (docker(f"/containers/{each}/json") for each in found),
            "ps": processes(),
            "a rendered file": files(passed),
            "docker logs": (docker(f"/containers/{each}/{logs}") for each in found),
        }
        return [
            f"a secret shows in {place}"
            for place, texts in searched.items()
            if any(needle in text for text in texts for needle in wanted)
        ]

    tell({"places": places})


if __name__ == "__main__":
    main()
