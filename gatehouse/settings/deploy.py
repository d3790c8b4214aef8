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
