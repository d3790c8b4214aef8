"""Alerts without Prometheus."""

from typing import Annotated, Literal

from gatehouse.settings.field import Component, setting


class AlertsSettings(Component):
    """Who is told when a check begins to fail and when it holds again, and how soon."""

    alerts_url: Annotated[
        str | None,
        setting(
            "Where alerts go: `https://…` gets a JSON POST, `mailto:NAME@HOST` a mail through the "
            "host's own mail server (SMTP on loopback). `secret`: the address is in the host's "
            "/etc/gatehouse/secrets/alerts_url, because whoever knows it may post. None: nobody is "
            "told.",
            example="https://hooks.example.org/gateway",
            pattern=r"^(secret|https?://[^\s'\"\\]+|mailto:[^\s'\"\\@]+@[A-Za-z0-9.-]+)$",
        ),
    ]
    alerts_severity: Annotated[
        Literal["warning", "failure"],
        setting("The least severity that is told."),
    ]
    alerts_after_seconds: Annotated[
        int,
        setting(
            "How long a check must fail before anybody is told: a restart is no reason to wake "
            "people.",
            unit="seconds",
            ge=0,
            le=86400,
        ),
    ]
