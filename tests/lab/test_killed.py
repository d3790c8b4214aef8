"""A deploy that dies is made good by the next one, wherever it died."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from gatehouse.lab.images import LabImages
from gatehouse.lab.progress import Progress
from gatehouse.lab.settings import overrides
from gatehouse.lab.workstation import Workstation
from tests.deploying import deploy
from tests.lab.conftest import failing
from tests.lab.releases import begun, kill_deploy


@pytest.fixture(scope="module")
def fresh(lab_images: LabImages, archive: Path, progress: Progress) -> Iterator[Workstation]:
    """A workstation that nobody has deployed to yet."""
    with Workstation.start(
        "killed",
        image=lab_images.host,
        preload=lab_images,
        settings=overrides(lab_images, archive),
        progress=progress,
    ) as started:
        yield started


def exists(workstation: Workstation, path: str) -> Callable[[str], bool]:
    """Tell when a path has come into being on the workstation."""
    return lambda _: workstation.exec(f"ls {path}", check=False).returncode == 0


def test_killed_first_deploy_is_finished_by_the_next(fresh: Workstation) -> None:
    """Killed four times on its way, the host still becomes a gateway, and only one."""
    kill_deploy(fresh, exists(fresh, "/etc/gatehouse/secrets/*_key*"))
    secrets = "cd /etc/gatehouse/secrets && sha256sum $(ls | grep -E '_(key|password)$')"
    made = set(fresh.exec(secrets).stdout.splitlines())
    kill_deploy(fresh, begun("Release | Write the release"))
    kill_deploy(fresh, begun("LiteLLM | Migrate the database"))
    kill_deploy(fresh, begun("LiteLLM | Have it healthy"))
    deploy(fresh)
    assert failing(fresh) == []
    assert made <= set(fresh.exec(secrets).stdout.splitlines()), "a secret was replaced"
    leftovers = "find /etc/gatehouse /opt/gatehouse /etc/docker -name '*.new' -o -name '*.tar'"
    assert fresh.exec(leftovers).stdout.split() == []
    assert deploy(fresh).changed == []


@pytest.mark.parametrize(
    "operation", ["Release | Make it the current one", "Postgres | Have it healthy"]
)
def test_killed_change_is_finished_or_taken_back(fresh: Workstation, operation: str) -> None:
    """After a change that was killed, the settings of the next deploy hold, whichever they are."""
    change = {"postgres_memory_mib": 1100, "redis_maxmemory_mib": 128}
    kill_deploy(fresh, begun(operation), change)
    deploy(fresh)
    assert failing(fresh) == []
    assert deploy(fresh).changed == []
