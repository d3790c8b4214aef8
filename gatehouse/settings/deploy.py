"""How a deploy goes on, and what of it is kept."""

from typing import Annotated

from gatehouse.settings.field import Component, setting


class DeploySettings(Component):
    """What ends a deploy that nobody looks after."""

    deploy_silence_seconds: Annotated[
        int,
        setting(
            "A deploy whose operator was not heard of for so long is given up: the host goes back "
            "to what served before it. One that was killed is noticed at once.",
            unit="seconds",
            ge=10,
            le=600,
        ),
    ]
    deploy_releases: Annotated[
        int,
        setting(
            "How many releases are kept, with their images, to go back to.",
            unit="releases",
            ge=2,
            le=50,
        ),
    ]
    deploy_validate: Annotated[
        bool,
        setting(
            "Whether LiteLLM, in its new image, reads a new configuration before anything is "
            "switched to it. That takes half a minute."
        ),
    ]
