"""What an audit is to let pass, and why."""

from typing import Annotated

from pydantic import Field

from gatehouse.settings.field import Component, setting


class AuditSettings(Component):
    """The items of `gatehouse audit` that do not hold on purpose."""

    audit_exceptions: Annotated[
        dict[str, Annotated[str, Field(min_length=10, max_length=300)]],
        setting(
            "Items that do not hold on this host on purpose, with the reason. One that names no "
            "item, or an item that holds, fails the audit itself.",
            example={"1.1.2": "the only user of this host may become root anyway"},
        ),
    ]
