"""What a deploy to a throwaway workstation is told on top of the shipped defaults."""

from pathlib import Path

from gatehouse.lab.images import LabImages


def overrides(images: LabImages, archive: Path | None = None) -> dict[str, object]:
    """Give the settings for the lab.

    `archive` holds the images where no registry does; None: what is missing is pulled.
    """
    carried = {"images_source": "archive", "images_archive": str(archive)} if archive else {}
    return {
        # The clock is the surrounding machine's.
        "host_time_sync_required": False,
        # From the mirror that the workstation's own packages came from.
        "docker_source": "distribution",
        "postgres_image": images.postgres,
        "redis_image": images.redis,
        "litellm_image": images.litellm,
        "engines_llamacpp_image": images.llamacpp,
        **carried,
    }
