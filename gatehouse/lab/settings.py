"""What a deploy to a throwaway workstation is told on top of the shipped defaults."""

from pathlib import Path

from gatehouse.lab.images import LabImages


def overrides(images: LabImages, archive: Path) -> dict[str, object]:
    """Give the settings for the lab: `archive` holds `images`, so that no registry is asked."""
    return {
        # The clock is the surrounding machine's.
        "host_time_sync_required": False,
        # Debian's own packages: the mirror that the images were built from has them.
        "docker_source": "distribution",
        "images_source": "archive",
        "images_archive": str(archive.resolve()),
        "postgres_image": images.postgres,
        "redis_image": images.redis,
        "litellm_image": images.litellm,
    }
