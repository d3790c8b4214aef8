"""The watchdog: an engine whose container lost its card gets a new container.

After `systemctl daemon-reload` (any package upgrade does one) a container can lose the devices that
its runtime gave it behind systemd's back: "Failed to initialize NVML: Unknown Error". The engine
then serves from the CPU or answers with errors, and its health endpoint stays green. Only a new
container gets the card again.
"""

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gatehouse.engines.config import Engine, load
from gatehouse.engines.errors import EngineError
from gatehouse.engines.paths import Paths
from gatehouse.engines.state import States, write

LOST = Path("run/gatehouse/gpu-lost.json")
DRIVER = Path("proc/driver/nvidia/version")
SPECIFICATIONS = (Path("etc/cdi"), Path("run/cdi"))
TOOLKIT_UNIT = Path("usr/lib/systemd/system/nvidia-cdi-refresh.service")

PROBE_SECONDS = 30.0
MEND_SECONDS = 240.0
# What a shell and `docker exec` say when there is no such program: then nothing can be told.
_NO_PROGRAM = {126, 127}
_TIMEOUT = 124
# Priorities of the journal, which it reads from the beginning of a line.
_ERROR, _WARNING, _INFO = 3, 4, 6


@dataclass(frozen=True)
class Answer:
    """How a command ended, and what it said."""

    code: int
    said: str


Run = Callable[[Sequence[str], float], Answer]


def run(command: Sequence[str], seconds: float) -> Answer:
    """Run a command; one that takes too long ends with 124, as with timeout(1)."""
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            timeout=seconds,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return Answer(_TIMEOUT, f"no answer in {seconds:.0f} s")
    except OSError as error:
        return Answer(127, str(error))
    return Answer(done.returncode, " ".join(done.stdout.split()))


def main() -> int:
    """Look once, for the timer. Gives 0, 1 when something stays wrong, 2 when it could not look."""
    try:
        return watch(Path(os.environ.get("GATEHOUSE_ROOT", "/")), run)
    except (OSError, EngineError) as error:
        _say(_ERROR, f"could not look: {error}")
        return 2


def watch(root: Path, ask: Run) -> int:
    """Look at every engine that is awake on a card, and mend those that lost it.

    `root` is the root of the file system, `ask` runs commands.
    """
    paths = Paths.under(root)
    config, states = load(paths.config), States(paths.run)
    if config.card != "nvidia":
        (root / LOST).unlink(missing_ok=True)
        return 0
    host = ask(["nvidia-smi", "-L"], PROBE_SECONDS)
    if host.code:
        # A new container would not get a card either.
        _say(_ERROR, f"the driver does not answer on the host: {host.said}; reboot if it stays so")
        return 1
    stale = outdated(root)
    if stale:
        _refresh(root, stale, ask)
    engines = {
        engine.name: engine
        for engine in config.engines
        if engine.device == "gpu" and engine.container
    }
    # Those of an earlier look that could not be mended are tried again.
    lost = {name: entry for name, entry in _remembered(root).items() if name in engines}
    for name, engine in engines.items():
        if not engine.container or not states.is_awake(name):
            continue
        said = trouble(engine.container, ask)
        if said is None:
            lost.pop(name, None)
        else:
            _say(_ERROR, f"{name} lost its card: {said}")
            lost[name] = {"at": time.time(), "said": said}
    _remember(root, lost)
    for name in list(lost):
        if _mend(paths.release, engines[name], ask):
            del lost[name]
            _remember(root, lost)
    return 1 if lost else 0


def trouble(container: str, ask: Run) -> str | None:
    """Say what nvidia-smi says in a container that lost its card; None where it did not."""
    answer = ask(["docker", "exec", container, "nvidia-smi", "-L"], PROBE_SECONDS)
    if answer.code in {0, *_NO_PROGRAM}:
        return None
    # It may have been stopped just now, or Docker itself may be away.
    state = ask(["docker", "inspect", "-f", "{{.State.Running}}", container], PROBE_SECONDS)
    if (state.code, state.said) != (0, "true"):
        return None
    return answer.said or f"nvidia-smi ended with {answer.code}"


def outdated(root: Path) -> str:
    """Say which CDI specification was written for another driver than the one that runs."""
    try:
        driver = re.search(r"\d+(?:\.\d+)+", (root / DRIVER).read_text())
    except OSError:
        return ""
    for folder in SPECIFICATIONS:
        for path in sorted((root / folder).glob("*")):
            text = path.read_text(errors="replace") if path.is_file() else ""
            written = set(re.findall(r"libcuda\.so\.(\d+(?:\.\d+)+)", text))
            if "nvidia.com/gpu" in text and driver and written and driver.group() not in written:
                return (
                    f"/{path.relative_to(root)} is for {', '.join(sorted(written))}, "
                    f"the driver is {driver.group()}"
                )
    return ""


def _refresh(root: Path, stale: str, ask: Run) -> None:
    unit = "nvidia-cdi-refresh" if (root / TOOLKIT_UNIT).exists() else "gatehouse-cdi"
    _say(_WARNING, f"{stale}: {unit}.service writes it anew")
    answer = ask(["systemctl", "restart", f"{unit}.service"], MEND_SECONDS)
    if answer.code:
        _say(_ERROR, f"{unit}.service failed: {answer.said}")


def _mend(current: Path, engine: Engine, ask: Run) -> bool:
    """Stop an engine and give it a new container; the next request loads it, with its card."""
    # By its real path: what the link means may change in between.
    release = current.resolve()
    commands = [
        ["systemctl", "stop", engine.service, engine.server],
        [
            *("docker", "compose", "--project-directory", str(release)),
            *("-f", f"{release}/compose.yaml", "--profile", "engines"),
            *("up", "--no-start", "--no-deps", "--no-build", "--force-recreate", engine.name),
        ],
    ]
    if engine.boot == "always":
        commands.append(["systemctl", "start", "--no-block", engine.service])
    for command in commands:
        answer = ask(command, MEND_SECONDS)
        if answer.code:
            _say(
                _ERROR,
                f"{engine.name}: {' '.join(command[:2])} failed: {answer.said}; trying again later",
            )
            return False
    _say(_INFO, f"{engine.name} has a new container; the next request loads it")
    return True


def _remembered(root: Path) -> dict[str, Any]:
    try:
        found = json.loads((root / LOST).read_text())["lost"]
    except (OSError, ValueError, KeyError, TypeError):
        return {}
    return found if isinstance(found, dict) else {}


def _remember(root: Path, lost: Mapping[str, Any]) -> None:
    """Keep what is lost and not mended yet where checks read it; no file: nothing is."""
    path = root / LOST
    if not lost:
        path.unlink(missing_ok=True)
        return
    write(path, {"lost": lost})


def _say(priority: int, text: str) -> None:
    sys.stderr.write(f"<{priority}>{text}\n")
    sys.stderr.flush()
