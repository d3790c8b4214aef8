"""The workstation that is measured: thrown away afterwards, as every workstation of the lab."""

import os
import resource
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from gatehouse.bench.timeline import Line, Totals, totals
from gatehouse.lab.common import ROOT, LabError
from gatehouse.lab.images import LabImages
from gatehouse.lab.progress import Progress
from gatehouse.lab.settings import overrides
from gatehouse.lab.workstation import Workstation

NAME = "bench"
UPSTREAM_PORT = 9100
MODEL = "chat-bench-upstream"
DEPLOY_SECONDS = 1800
SHOWN_LINES = 40


@dataclass(frozen=True)
class Deploy:
    """One run of `pyinfra inventory deploy.py`; `cpu_seconds` are those of the operator's side."""

    seconds: float
    cpu_seconds: float
    lines: list[Line]
    totals: Totals


def settings(images: LabImages) -> dict[str, Any]:
    """Give what differs from the shipped defaults; the tuning of the gateway is left as shipped."""
    return overrides(images, None) | {
        # No key of the operator's belongs on a workstation that is thrown away.
        "secrets_file": os.devnull,
        "models_extra": [
            {
                "name": MODEL,
                "backend": "openai/bench",
                "api_base": f"http://host.docker.internal:{UPSTREAM_PORT}/v1",
                "context_tokens": 8192,
                "max_tokens": 1024,
            }
        ],
    }


@contextmanager
def station(
    images: LabImages,
    progress: Progress,
    *,
    keep: bool,
    more: Mapping[str, Any] = MappingProxyType({}),
) -> Iterator[Workstation]:
    """Start a workstation that has the images; remove it afterwards, unless `keep`.

    `more`: settings on top of those that every measurement has.
    """
    found = Workstation.start(
        NAME,
        image=images.host,
        preload=images,
        settings={**settings(images), **more},
        progress=progress,
    )
    try:
        yield found
    finally:
        if keep:
            progress.say(f"kept: `python -m gatehouse.lab down {NAME}` removes the workstation")
        else:
            found.stop()


def provision(workstation: Workstation) -> Deploy:
    """Provision the workstation, as an operator does; raises `LabError` when that fails."""
    inventory = workstation.access.inventory.relative_to(ROOT)
    command = [sys.executable, "-m", "pyinfra", "-y", str(inventory), "deploy.py"]
    environment = {key: value for key, value in os.environ.items() if not key.endswith("_API_KEY")}
    # Each line has to come when it is printed: its time is what is measured.
    environment["PYTHONUNBUFFERED"] = "1"
    lines: list[Line] = []
    before, begin = _children_cpu_seconds(), time.monotonic()
    with subprocess.Popen(
        command,
        cwd=ROOT,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
    ) as running:
        deadline = threading.Timer(DEPLOY_SECONDS, running.kill)
        deadline.start()
        try:
            lines.extend(
                Line(time.monotonic() - begin, line.rstrip("\n")) for line in running.stdout or ()
            )
        finally:
            deadline.cancel()
    seconds = time.monotonic() - begin
    found = totals(lines)
    if running.returncode or found is None:
        tail = "\n".join(line.text for line in lines[-SHOWN_LINES:])
        raise LabError(
            f"`pyinfra {inventory} deploy.py` failed ({running.returncode}) after {seconds:.0f} s; "
            f"its last lines:\n{tail}"
        )
    return Deploy(seconds, _children_cpu_seconds() - before, lines, found)


def _children_cpu_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime
