"""How container images reach the host, and what is asked of them before they run."""

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
    images_lock: Annotated[
        str,
        setting(
            "File on the operator's machine with the digest of each image (`make lock` writes it); "
            "what is not in it is pulled by its tag."
        ),
    ]
    images_cosign: Annotated[
        Literal["required", "optional", "off"],
        setting(
            "Verify who signed LiteLLM's image: always, else nothing is touched; where the host "
            "has cosign; or never."
        ),
    ]
    images_cosign_key: Annotated[
        str | None,
        setting(
            "Path, on the operator's machine, of the public key: LiteLLM's own for the versions "
            "that it signed with one, yours for copies of your own (docs/supply.md).",
            example="litellm.pub",
        ),
    ]
