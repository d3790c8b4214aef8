"""Metrics, and the Prometheus that may watch them."""

from typing import Annotated

from gatehouse.settings.field import Component, setting


class MetricsSettings(Component):
    """Where the metrics are, and whether LiteLLM gives its own."""

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
