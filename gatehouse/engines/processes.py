"""What /proc says about processes."""

import os
from collections.abc import Iterator
from pathlib import Path

PROC = Path("/proc")


def every() -> Iterator[int]:
    """Give the ids of all processes."""
    for entry in os.listdir(PROC):  # noqa: PTH208 - a Path for each would cost more than the read
        if entry.isdigit():
            yield int(entry)


def name(pid: int) -> str:
    """Give the short name of a process."""
    return _read(pid, "comm").strip() or "gone"


def is_stopped(pid: int) -> bool:
    """Say whether every thread of a process stands still (SIGSTOP has arrived), or none is left."""
    try:
        tasks = os.listdir(PROC / str(pid) / "task")  # noqa: PTH208 - see `every`
    except OSError:
        return True
    return all(_stat(int(task))[:1] in (["T"], ["Z"], []) for task in tasks)


def children() -> dict[int, list[int]]:
    """Give the children of every process that has any."""
    found: dict[int, list[int]] = {}
    for pid in every():
        if fields := _stat(pid):
            found.setdefault(int(fields[1]), []).append(pid)
    return found


def tree(root: int, family: dict[int, list[int]] | None = None) -> frozenset[int]:
    """Give a process and all that came from it."""
    family = children() if family is None else family
    found, waiting = {root}, [root]
    while waiting:
        new = [child for child in family.get(waiting.pop(), []) if child not in found]
        found.update(new)
        waiting.extend(new)
    return frozenset(found)


def resident_mib(pids: frozenset[int]) -> int:
    """Give the host memory that processes have in use, with the files that they map."""
    return sum(_pages(pid)[0] for pid in pids) * _PAGE // 2**20


def own_mib(pid: int) -> int:
    """Give the host memory that goes when a process goes: without the pages of files."""
    resident, shared = _pages(pid)
    return max(0, resident - shared) * _PAGE // 2**20


_PAGE = os.sysconf("SC_PAGE_SIZE")


def _pages(pid: int) -> tuple[int, int]:
    fields = _read(pid, "statm").split()
    return (int(fields[1]), int(fields[2])) if len(fields) > 2 else (0, 0)  # noqa: PLR2004


def _stat(pid: int) -> list[str]:
    # The name in parentheses may hold spaces and parentheses: what follows the last one is regular.
    return _read(pid, "stat").rpartition(")")[2].split()


def _read(pid: int, what: str) -> str:
    try:
        with open(f"{PROC}/{pid}/{what}", errors="replace") as file:  # noqa: PTH123 - see `every`
            return file.read()
    except OSError:
        return ""
