"""What the tests of hosts share: one provisioned workstation for the whole run."""

import io
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from _pytest._io import TerminalWriter

from gatehouse.lab import images
from gatehouse.lab.engine import engine
from gatehouse.lab.images import LabImages
from gatehouse.lab.progress import Progress
from gatehouse.lab.settings import overrides
from gatehouse.lab.workstation import Workstation
from tests.deploying import deploy

# Names a running, provisioned workstation to use again, and to keep: quick while writing tests.
KEPT = "GATEHOUSE_TEST_WORKSTATION"
# Names this pytest's workstation, where another runs beside it (see tests/lanes.py).
LANE = "GATEHOUSE_TEST_LANE"
# What this run's workstation differs in from the lab's others: spend is written soon, and one model
# costs something.
QUICK = {
    "litellm_batch_write_seconds": 5,
    # Half a minute for each changed configuration: tests/lab/test_release.py has it on.
    "deploy_validate": False,
    "models_extra": [
        {
            "name": "chat-priced-builtin",
            "backend": "openai/gpt-4o",
            "mock_response": "An answer that costs something.",
        }
    ],
}

# Tests that have the run's workstation broken, lost and brought back: they go to the second lane.
BROKEN = {
    "test_backup",
    "test_registry",
    "test_release",
    "test_restart",
    "test_restore",
    "test_rotate",
}
# Tests with a workstation of their own that the first lane has when its others are done.
LATE = {"test_bare", "test_upgrade"}


def pytest_addoption(parser: pytest.Parser) -> None:
    """Take the inventory whose hosts `--hosts` names (`gatehouse verify` gives both)."""
    parser.addoption("--inventory", help="pyinfra inventory of the hosts given by --hosts")


def pytest_itemcollected(item: pytest.Item) -> None:
    """Mark what tests/lanes.py tells apart."""
    wanted = set(getattr(item, "fixturenames", ()))
    if {"workstation", "target"} & wanted and item.path.stem not in BROKEN:
        item.add_marker(pytest.mark.first)
    elif "engine_host" in wanted:
        item.add_marker(pytest.mark.engines)
    elif item.path.stem in LATE:
        item.add_marker(pytest.mark.late)


class Report(io.TextIOBase):
    """What pytest's report is written to: it is shown while tests' own output is kept back."""

    def __init__(self, writer: TerminalWriter) -> None:
        """Hold pytest's writer."""
        self._writer = writer

    def write(self, text: str) -> int:
        """Write at once."""
        self._writer.write(text, flush=True)
        return len(text)


@pytest.fixture(scope="session")
def progress(request: pytest.FixtureRequest) -> Progress:
    """Show what the lab does."""
    return Progress(Report(request.config.get_terminal_writer()))


@pytest.fixture(scope="session")
def lab_images(progress: Progress) -> LabImages:
    """Have the images of the lab."""
    return images.ensure(engine(progress), progress)


@pytest.fixture(scope="session")
def archive(lab_images: LabImages, progress: Progress) -> Path:
    """Have the archive of the gateway's images, as an air-gapped install carries it."""
    return images.archive(engine(progress), lab_images, progress)


@pytest.fixture(scope="session")
def workstation(request: pytest.FixtureRequest, progress: Progress) -> Iterator[Workstation]:
    """A workstation that the real deploy has made a gateway; every test leaves it as one."""
    if kept := os.environ.get(KEPT):
        yield Workstation.find(kept, progress)
        return
    found: LabImages = request.getfixturevalue("lab_images")
    with Workstation.start(
        os.environ.get(LANE, "session"),
        image=found.host,
        preload=found,
        settings=overrides(found, request.getfixturevalue("archive")) | QUICK,
        progress=progress,
    ) as started:
        with progress.step("provisioning it"):
            deploy(started)
        yield started
