"""Where the operator's provider keys come from."""

from typing import Annotated

from gatehouse.settings.field import Component, setting


class SecretsSettings(Component):
    """The host makes its own secrets; only provider keys come from the operator."""

    secrets_gid: Annotated[
        int,
        setting(
            "Numeric group, without members, through which the containers may read the secrets "
            "that are mounted into them.",
            unit="gid",
            ge=1000,
            le=65000,
        ),
    ]
    secrets_file: Annotated[
        str,
        setting(
            "Git-ignored file on the operator's machine with NAME=value lines of provider keys; "
            "the environment wins over it.",
            min_length=1,
        ),
    ]
