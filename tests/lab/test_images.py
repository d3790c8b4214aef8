"""Images from an archive: what is missing is loaded, and what cannot be found is named."""

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from gatehouse.lab.workstation import Workstation
from tests.deploying import deploy, settings_of
from tests.lab.conftest import containers, failing


@pytest.fixture
def redis(workstation: Workstation) -> Iterator[str]:
    """Give the name of Redis' image, after the workstation has forgotten it."""
    image = str(settings_of(workstation)["redis_image"])
    workstation.exec(f"docker rmi --force {image}")
    yield image
    deploy(workstation)


def saved(folder: Path, image: str) -> Path:
    """Make an archive that holds one image."""
    path = folder / "images.tar"
    subprocess.run(["docker", "save", "--output", path, image], check=True)
    return path


def test_missing_image_is_loaded_from_the_archive(
    workstation: Workstation, redis: str, tmp_path: Path
) -> None:
    """The image is there again, the archive is not left behind, and nothing was restarted."""
    before = containers(workstation)
    loaded = deploy(workstation, settings={"images_archive": str(saved(tmp_path, redis))})
    assert "Images | Load the images from the archive" in loaded.changed
    workstation.exec(f"docker image inspect {redis}")
    assert "images.tar" not in workstation.exec("ls /var/lib/gatehouse").stdout
    assert containers(workstation) == before
    assert failing(workstation) == []


def test_archive_without_the_image_is_refused(
    workstation: Workstation, redis: str, tmp_path: Path
) -> None:
    """An archive that does not hold what is wanted is named, with what it lacks."""
    other = str(settings_of(workstation)["postgres_image"])
    archive = saved(tmp_path, other)
    refused = deploy(workstation, settings={"images_archive": str(archive)}, expect=1)
    assert f"{archive} does not hold {redis}" in refused.words
    assert failing(workstation) == []


def test_archive_that_is_not_there_is_refused(workstation: Workstation, redis: str) -> None:
    """A path without a file ends the deploy before anything is changed."""
    refused = deploy(workstation, settings={"images_archive": "/nowhere/images.tar"}, expect=1)
    assert "/nowhere/images.tar: there is no such file" in refused.words
    assert "Traceback" not in refused.words
    assert "Starting operation" not in refused.words


def test_archive_is_not_needed_any_more(workstation: Workstation) -> None:
    """A host that has its images does not miss the archive."""
    # The settings are among what a release placed, and what it would go back to.
    settings = ["Host | Write the settings", "Health | Remember the release as good"]
    again = deploy(workstation, settings={"images_archive": "/nowhere/images.tar"})
    assert again.changed == settings
    assert deploy(workstation).changed == settings
