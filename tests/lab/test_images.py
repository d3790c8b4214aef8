"""Images from an archive: what is missing is loaded, and what cannot be found is named."""

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from gatehouse.images import Locked, written
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


def test_archive_that_takes_a_locked_name_is_refused(
    workstation: Workstation, tmp_path: Path
) -> None:
    """One image is missing, and the archive has another one for a name that is locked: it stays."""
    settings = settings_of(workstation)
    redis, postgres = str(settings["redis_image"]), str(settings["postgres_image"])
    number = f"docker image inspect -f '{{{{.Id}}}}' {postgres}"
    mine, before = workstation.exec(number).stdout.strip(), containers(workstation)
    lock, archive = tmp_path / "images.lock", tmp_path / "images.tar"
    lock.write_text(written({postgres: Locked(mine, {})}))
    workstation.exec(
        f"docker tag {redis} {postgres} && docker save -o /root/two.tar {redis} {postgres} && "
        f"docker tag {mine} {postgres} && docker rmi --force {redis}"
    )
    subprocess.run(
        ["docker", "cp", f"{workstation.container}:/root/two.tar", str(archive)],
        check=True,
        capture_output=True,
    )
    workstation.exec("rm /root/two.tar")
    try:
        changed = {"images_archive": str(archive), "images_lock": str(lock)}
        refused = deploy(workstation, settings=changed, expect=1)
        assert f"holds another {postgres} than images.lock says: sha256:" in refused.words
        assert workstation.exec(number).stdout.strip() == mine
        assert containers(workstation) == before
        assert failing(workstation) == []
    finally:
        deploy(workstation)


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
