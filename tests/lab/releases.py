"""Deploys that go wrong on purpose: whether the gateway serves, and what must not be lost."""

import json
import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

from gatehouse.lab.workstation import Workstation
from tests.deploying import deploy
from tests.waiting import wait_for

# How soon the gateway serves again.
SECONDS = 60
FREE_SECONDS = 300
KEY = "/root/before-it.key"
_ANSWER = (
    f'curl -sf --max-time 5 -H "Authorization: Bearer $(cat {KEY})" '
    '-H "Content-Type: application/json" http://127.0.0.1:4000/v1/chat/completions '
    '-d \'{"model": "chat-selftest-builtin", "messages": [{"role": "user", "content": "%s"}]}\''
)
_COUNTS = (
    '/opt/gatehouse/venv/bin/python -I -c "import json; from gatehouse.tool import dump; '
    'print(json.dumps(dump.counts()))"'
)
_UNIT = "gatehouse-deploy.service"
_DISK = "/run/small-disk"
# Folders on one disk in memory, which is full as soon as it is no larger than what it holds.
_MAKE_DISK = f"""
mkdir {_DISK} && mount -t tmpfs -o size=4g,mode=755 tmpfs {_DISK} || exit 1
for folder in $folders; do
    mkdir -p {_DISK}$folder && cp -a $folder/. {_DISK}$folder/ &&
        chown --reference=$folder {_DISK}$folder && chmod --reference=$folder {_DISK}$folder &&
        mount --bind {_DISK}$folder $folder || exit 1
done"""
FILL = f"mount -o remount,size=$(df -Bk --output=used {_DISK} | tail -n 1 | tr -d ' ') {_DISK}"
_REMOVE_DISK = f"for folder in $folders; do umount $folder; done; umount {_DISK}; rmdir {_DISK}"


def current(workstation: Workstation, link: str = "current") -> str:
    """Give the release that a link leads to."""
    return workstation.exec(f"basename $(readlink /opt/gatehouse/{link})").stdout.strip()


def answers(workstation: Workstation, text: str = "still there?") -> bool:
    """Tell whether a completion is answered."""
    return workstation.exec(_ANSWER % text, check=False).returncode == 0


def counts(workstation: Workstation) -> dict[str, int]:
    """Give the rows that must not be lost."""
    found: dict[str, int] = json.loads(workstation.exec(_COUNTS).stdout)
    return found


def under_way(workstation: Workstation) -> bool:
    """Tell whether the host still holds the lock of a deploy."""
    done = workstation.exec(f"systemctl is-active --quiet {_UNIT}", check=False)
    return done.returncode == 0


def busy() -> float:
    """Give how many times longer everything takes here now: other tests use the machine too."""
    return max(1.0, os.getloadavg()[0] / (os.cpu_count() or 1))


def begun(operation: str) -> Callable[[str], bool]:
    """Tell when an operation has begun."""
    return lambda log: f"Starting operation: {operation}" in log


def kill_deploy(
    workstation: Workstation,
    when: Callable[[str], bool],
    settings: Mapping[str, object] | None = None,
) -> None:
    """Kill a deploy, and wait until the host has noticed: before that it refuses the next one."""
    deploy(workstation, settings=settings, kill_when=when)
    wait_for(lambda: not under_way(workstation), FREE_SECONDS, "the lock to be free")


@dataclass
class Before:
    """What served before a deploy that goes wrong."""

    release: str
    rows: dict[str, int]
    # When the deploy went wrong; until then the time does not count.
    wrong: float = 0.0


@contextmanager
def small_disk(workstation: Workstation, *folders: str) -> Iterator[None]:
    """Have folders of the host on a disk of their own, with room until `FILL` is run.

    Afterwards they are what they were before.
    """
    given = f"folders='{' '.join(folders)}'\n"
    try:
        workstation.exec(given + _MAKE_DISK)
        yield
    finally:
        workstation.exec(given + _REMOVE_DISK, check=False)


@contextmanager
def nothing_lost(workstation: Workstation) -> Iterator[Before]:
    """Have a key and some spend, let a deploy go wrong inside, and see that all is still there.

    The release before serves within a minute, no row is missing, and the lock is free.
    """
    workstation.exec(f"gatehouse keys new before-it --days 1 --to {KEY}")
    assert answers(workstation)
    before = Before(current(workstation), counts(workstation))
    try:
        yield before
        begin = before.wrong or time.monotonic()
        wait_for(
            lambda: (
                current(workstation) == before.release
                and answers(workstation)
                and not under_way(workstation)
            ),
            SECONDS * 5,
            "the release before to serve again",
        )
        took = time.monotonic() - begin
        print(f"served again after {took:.0f} s")  # noqa: T201 - a figure for the docs
        after = counts(workstation)
        assert {noun: rows for noun, rows in before.rows.items() if after[noun] < rows} == {}
        assert took < SECONDS * busy()
        assert workstation.exec("cat /run/gatehouse/deploy.lock").stdout == ""
        workstation.exec("test ! -e /var/lib/gatehouse/deploying")
    finally:
        workstation.exec(f"gatehouse keys revoke before-it --yes; rm -f {KEY}", check=False)
