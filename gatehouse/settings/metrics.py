"""Metrics, and the Prometheus that may watch them."""

from typing import Annotated

from gatehouse.settings.field import Component, setting
from gatehouse.settings.postgres import CONTAINER_USER, IMAGE


class MetricsSettings(Component):
    """Where the metrics are, whether LiteLLM gives its own, and who watches them."""

    metrics_port: Annotated[
        int,
        setting("Port of `/metrics`, on loopback.", unit="port", ge=1024, le=65535),
    ]
    metrics_litellm: Annotated[
        bool,
        setting(
            "LiteLLM counts requests, tokens and latencies for its own `/metrics` on the gateway's "
            "port, which asks for a key. It costs time in every request."
        ),
    ]
    metrics_prometheus: Annotated[
        bool,
        setting("A Prometheus and an Alertmanager on this host, on loopback, with the rules."),
    ]
    metrics_prometheus_image: Annotated[str, setting("Image, pinned to a version.", pattern=IMAGE)]
    metrics_alertmanager_image: Annotated[
        str, setting("Image, pinned to a version.", pattern=IMAGE)
    ]
    metrics_user: Annotated[
        str, setting("uid:gid that both run as: that of the images.", pattern=CONTAINER_USER)
    ]
    metrics_prometheus_port: Annotated[
        int, setting("Prometheus' port, on loopback.", unit="port", ge=1024, le=65535)
    ]
    metrics_alertmanager_port: Annotated[
        int, setting("Alertmanager's port, on loopback.", unit="port", ge=1024, le=65535)
    ]
    metrics_alertmanager_url: Annotated[
        str | None,
        setting(
            "Webhook that Alertmanager posts to. None: it shows what fires and tells nobody; "
            "`alerts_url` does.",
            pattern=r"^https?://[^\s'\"\\]+$",
        ),
    ]
    metrics_retention_days: Annotated[
        int, setting("How long Prometheus keeps what it saw.", unit="days", ge=1, le=3650)
    ]
    metrics_memory_mib: Annotated[
        int, setting("Memory limit of Prometheus.", unit="MiB", ge=128, le=1048576)
    ]
    metrics_start_timeout_seconds: Annotated[
        int,
        setting(
            "How long each may take to be healthy; for so long a deploy waits, and Docker does not "
            "call it unhealthy.",
            unit="seconds",
            ge=10,
            le=3600,
        ),
    ]
