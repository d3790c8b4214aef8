"""How container images reach the host."""

from typing import Annotated, Literal

from gatehouse.settings.field import Component, setting


class ImagesSettings(Component):
    """A registry, or an archive that the deploy carries over (the air-gapped install)."""

    images_source: Annotated[
        Literal["registry", "archive"],
        setting("Where the images come from: pulled by the host, or loaded from an archive."),
    ]
    images_archive: Annotated[
        str | None,
        setting(
            "Path, on the operator's machine, of the `docker save` archive to load.",
            example="build/images.tar",
        ),
    ]
