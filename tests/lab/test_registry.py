"""Images from a registry, where none can be reached."""

from gatehouse.lab.workstation import Workstation
from tests.deploying import deploy
from tests.lab.conftest import containers, failing

# No name under .invalid exists anywhere (RFC 2606).
IMAGE = "registry.invalid/library/redis:8"


def test_registry_out_of_reach_is_said_before_anything_is_switched(
    workstation: Workstation,
) -> None:
    """The image and the setting for hosts without a registry are named; the gateway serves on."""
    before = containers(workstation)
    release = workstation.exec("readlink /opt/gatehouse/current").stdout
    settings = {"images_source": "registry", "redis_image": IMAGE}
    try:
        failed = deploy(workstation, settings=settings, expect=1)
        assert f"cannot pull {IMAGE}: is a registry reachable from this host?" in failed.words
        assert 'set images_source = "archive"' in failed.words
        assert "Traceback" not in failed.words
        assert "Release | Write the release" not in failed.words
        assert workstation.exec("readlink /opt/gatehouse/current").stdout == release
        assert containers(workstation) == before
        assert failing(workstation) == []
    finally:
        deploy(workstation)
