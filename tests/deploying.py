"""The real deploy, run as an operator runs it, and what it said."""

import json
import os
import pprint
import re
import runpy
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from gatehouse.lab.common import ROOT
from gatehouse.lab.vm import Vm
from gatehouse.lab.workstation import Workstation
from tests.given import PROVIDER_KEY

# A deploy of an empty workstation takes a minute on an idle machine.
SECONDS = 600


@dataclass(frozen=True)
class Deploy:
    """A deploy that has ended: exit code, what it told the operator, and pyinfra's own summary."""

    code: int
    log: str
    summary: str
    seconds: float

    @cached_property
    def changed(self) -> list[str]:
        """The operations that changed something, in their order."""
        operations = json.loads(self.summary)["results"]["operations"]
        return [each["name"] for each in operations if each["success"]]

    @property
    def words(self) -> str:
        """The log in one line, without colours, as a person reads it."""
        return " ".join(re.sub(r"\x1b\[[0-9;]*m", "", self.log).split())


def deploy(  # noqa: PLR0913 - each has a default
    workstation: Workstation | Vm,
    *,
    settings: Mapping[str, object] | None = None,
    user: str | None = None,
    environment: Mapping[str, str] | None = None,
    kill_when: Callable[[str], object] | None = None,
    meanwhile: Callable[[str], object] | None = None,
    expect: int | None = 0,
    deadline_seconds: float = SECONDS,
) -> Deploy:
    """Run `pyinfra INVENTORY deploy.py -y` and wait for its end.

    `settings` are added to those of the workstation's inventory, for this run alone. `kill_when`
    is asked again and again with the log so far; the run is killed (SIGKILL) as soon as it gives
    something true; `meanwhile` is asked, too, and may do what it likes. A run that ends with another
    exit code than `expect` fails the test with the log; None expects nothing.
    """

    def ask(so_far: str) -> object:
        if meanwhile:
            meanwhile(so_far)
        return kill_when and kill_when(so_far)

    folder = workstation.access.folder
    inventory = _inventory(workstation, settings or {}, user)
    inherited = {name: value for name, value in os.environ.items() if name != PROVIDER_KEY}
    log, summary = folder / "deploy.log", folder / "deploy.json"
    begin = time.monotonic()
    with log.open("w") as err, summary.open("w") as out:
        process = subprocess.Popen(
            [Path(sys.executable).with_name("pyinfra"), inventory, "deploy.py", "-y", "--json"],
            cwd=ROOT,
            env=inherited | {"PYINFRA_PROGRESS": "off"} | dict(environment or {}),
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=err,
            start_new_session=True,
        )
        killed = _watch(process, log, begin, ask, deadline_seconds)
    done = Deploy(
        process.returncode, log.read_text(), summary.read_text(), time.monotonic() - begin
    )
    assert kill_when is None or killed, f"the deploy ended before it could be killed:\n{done.log}"
    if expect is not None and not killed:
        assert done.code == expect, f"exit code {done.code}, expected {expect}:\n{done.log}"
    return done


def _watch(
    process: "subprocess.Popen[bytes]",
    log: Path,
    begin: float,
    kill_when: Callable[[str], object] | None,
    deadline_seconds: float,
) -> bool:
    """Wait for the end, or bring it about; tell whether it was a kill."""
    while process.poll() is None:
        late = time.monotonic() - begin > deadline_seconds
        if late or (kill_when and kill_when(log.read_text())):
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            assert not late, (
                f"the deploy was not done after {deadline_seconds} s:\n{log.read_text()}"
            )
            return True
        time.sleep(0.05)
    return False


def settings_of(workstation: Workstation | Vm) -> dict[str, Any]:
    """Give the data that the workstation's inventory adds to the shipped defaults."""
    data: dict[str, Any] = runpy.run_path(str(workstation.access.inventory))["workstations"][0][1]
    return data


def _inventory(
    workstation: Workstation | Vm, settings: Mapping[str, object], user: str | None
) -> Path:
    """Give the workstation's own inventory, or a copy of it with changes."""
    if not settings and not user:
        return workstation.access.inventory
    data = settings_of(workstation) | settings | ({"ssh_user": user} if user else {})
    path = workstation.access.folder / "inventory-changed"
    path.write_text(
        f"workstations = {pprint.pformat([(workstation.name, data)], sort_dicts=False)}\n"
    )
    return path
