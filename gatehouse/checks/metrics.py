"""Prometheus and Alertmanager, where they are switched on."""

from dataclasses import replace

from gatehouse.checks.check import Check, equals
from gatehouse.checks.service import healthy
from gatehouse.settings import Settings

_SEES = "metrics: Prometheus is healthy"
_ASK = """docker exec gatehouse-prometheus-1 promtool query instant http://127.0.0.1:9090 \\
    "up{job=\\"gatehouse\\"}" | grep -q "=> 1 " && echo up"""


def checks(settings: Settings) -> list[Check]:
    """Give the checks of both; none where they are off."""
    if not settings.metrics_prometheus:
        return []
    both = [
        replace(healthy(name.lower()), name=f"metrics: {name} is healthy", component="metrics")
        for name in ("Prometheus", "Alertmanager")
    ]
    return [
        *both,
        Check(
            name="metrics: Prometheus sees the gateway",
            component="metrics",
            expected="up",
            command=_ASK,
            judge=equals("up"),
            fix="systemctl restart gatehouse-health.socket; then look at Targets in Prometheus",
            severity="warning",
            needs=(_SEES,),
        ),
    ]
