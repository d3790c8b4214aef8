"""What the tests on throwaway workstations look at."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import testinfra
from playwright.sync_api import Browser

from gatehouse.checks import Finding, commands, every, findings
from gatehouse.deploys.facts import RunAll
from gatehouse.lab import models
from gatehouse.lab.common import ROOT
from gatehouse.lab.images import LabImages
from gatehouse.lab.progress import Progress
from gatehouse.lab.settings import overrides
from gatehouse.lab.workstation import Workstation
from gatehouse.settings import Settings, validate
from tests.browser import chromium
from tests.deploying import deploy, settings_of
from tests.gateway import Gateway
from tests.given import values
from tests.lab import engines
from tests.waiting import wait_for

OURS = "docker ps -aq --filter label=com.docker.compose.project=gatehouse"
# Runs the jobs of timers again that have failed.
AGAIN = """
cd /etc/systemd/system && for timer in gatehouse-*.timer; do
    job=${timer%.timer}.service
    ! systemctl is-failed --quiet "$job" || systemctl start "$job"
done"""
STALLED = "litellm: connected to its database: stalled"
UPSTREAM = "http://172.30.40.1"
START_SECONDS = 300


@pytest.fixture(scope="session")
def gateway(workstation: Workstation) -> Gateway:
    """Give a client of the session's gateway."""
    return gateway_of(workstation)


@pytest.fixture(scope="module")
def browser(progress: Progress) -> Iterator[Browser]:
    """Give a browser."""
    with chromium(progress) as started:
        yield started


@pytest.fixture(scope="session")
def engine_host(lab_images: LabImages, archive: Path, progress: Progress) -> Iterator[Workstation]:
    """A gateway with engines; each test leaves them asleep or lets them be stopped."""
    if kept := os.environ.get("GATEHOUSE_TEST_ENGINES"):
        yield Workstation.find(kept, progress)
        return
    with Workstation.start(
        "engines",
        image=lab_images.host,
        preload=lab_images,
        settings=overrides(lab_images, archive) | engines.SETTINGS,
        progress=progress,
    ) as started:
        models.install(started)
        with progress.step("provisioning it"):
            deploy(started)
        yield started


@pytest.fixture(scope="session")
def engine_gateway(engine_host: Workstation) -> Gateway:
    """Give a client of the gateway with engines."""
    return gateway_of(engine_host)


def gateway_of(workstation: Workstation) -> Gateway:
    """Give a client of a workstation's gateway."""
    access = workstation.access
    spec = f"ssh://{access.name}-root"
    return Gateway(testinfra.get_host(spec, ssh_config=str(access.ssh_config)))


def containers(workstation: Workstation) -> dict[str, str]:
    """Give the stack's containers: service → id."""
    template = '{{index .Config.Labels "com.docker.compose.service"}} {{.Id}}'
    found = workstation.exec(f"{OURS} | xargs -r docker inspect -f '{template}'").stdout
    return dict(line.split() for line in found.splitlines())


def recreated(before: dict[str, str], after: dict[str, str]) -> set[str]:
    """Give the services that have another container than before."""
    assert before.keys() == after.keys()
    return {name for name in before if before[name] != after[name]}


def failing(workstation: Workstation, **changes: object) -> list[str]:
    """Give what does not hold on a workstation with these settings, less what follows from it.

    A job that ran while a test had broken something is run again first, as its timer would later:
    what fails still is told. So does a lookup that was slow on a busy machine: LiteLLM tells of it
    for half a minute.
    """
    workstation.exec(AGAIN, check=False)

    def look() -> list[str]:
        return [
            f"{each.check.name}: {each.result.found}"
            for each in looked_at(workstation, **changes)
            if each.state in {"failure", "warning"}
        ]

    found = look()
    if STALLED in found:
        wait_for(lambda: STALLED not in look(), START_SECONDS, "LiteLLM's lookups to be quick")
        found = look()
    return found


def looked_at(workstation: Workstation, **changes: object) -> list[Finding]:
    """Make every check on a workstation with these settings, as a deploy does."""
    checks = every(wanted(workstation, **changes))
    everything, asked = RunAll(), commands(checks)
    output = workstation.exec(["sh", "-c", everything.command(asked)], check=False).stdout
    pairs = zip(asked, everything.process(output.split("\n")), strict=True)
    return findings(checks, {command: (each["rc"], each["out"]) for command, each in pairs})


def wanted(workstation: Workstation, **changes: object) -> Settings:
    """Give the settings of a workstation."""
    return validate(values() | settings_of(workstation) | changes)


def wait_until_healthy(workstation: Workstation) -> None:
    """Wait until every service says that it is healthy."""
    script = f"{OURS} | xargs -r docker inspect -f '{{{{with .State.Health}}}}{{{{.Status}}}}{{{{end}}}}'"
    wait_for(
        lambda: workstation.exec(script, check=False).stdout.split() == ["healthy"] * 3,
        START_SECONDS,
        "three healthy services",
    )


@contextmanager
def upstream(workstation: Workstation, port: int, name: str) -> Iterator[None]:
    """Run a model server on the bridge's host address, where the gateway's containers reach it."""
    start_upstream(workstation, port, name)
    try:
        yield
    finally:
        stop_upstream(workstation, port)


def start_upstream(workstation: Workstation, port: int, name: str) -> None:
    """Start a model server and wait until it answers."""
    program = (ROOT / "gatehouse/lab/upstream.py").read_text()
    workstation.exec("cat >/usr/local/bin/upstream.py", text=program)
    workstation.exec(
        f"systemd-run --quiet --collect --unit upstream-{port} python3 /usr/local/bin/upstream.py "
        f"--host 172.30.40.1 --port {port} --name {name}"
    )
    wait_for(
        lambda: workstation.exec(f"curl -sf {UPSTREAM}:{port}/health", check=False).stdout,
        30,
        f"the model server {name}",
    )


def stop_upstream(workstation: Workstation, port: int) -> None:
    """Stop a model server."""
    workstation.exec(f"systemctl stop upstream-{port}", check=False)
