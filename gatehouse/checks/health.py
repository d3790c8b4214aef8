"""The page of the host's health, the metrics, and who gathers for them."""

from gatehouse.checks.check import Check, silent
from gatehouse.settings import Settings

_UNITS = """
for unit in gatehouse-health.socket gatehouse-health.service gatehouse-collect.timer; do
    systemctl is-active --quiet $unit || echo "$unit is $(systemctl is-active $unit)"
done; true"""
_COLLECTOR = """
ended=$(systemctl show -p Result --value gatehouse-collect.service)
[ "$ended" = success ] || echo "gatehouse-collect.service ended with $ended\""""


def checks(settings: Settings) -> list[Check]:  # noqa: ARG001 - every component's signature
    """Give the checks of the page and of root's collector."""
    return [
        Check(
            name="health: the page is served",
            component="health",
            expected="gatehouse-health and the collector's timer are active",
            command=_UNITS,
            judge=silent,
            fix="systemctl restart gatehouse-health.socket gatehouse-collect.timer; "
            "systemctl restart gatehouse-health",
            needs=("host: units run",),
        ),
        Check(
            name="health: the collector can look",
            component="health",
            expected="its last run succeeded",
            command=f"{_COLLECTOR}; true",
            judge=silent,
            fix="journalctl -u gatehouse-collect -n 20; then: systemctl start gatehouse-collect",
            needs=("host: units run", "host: jobs end well"),
        ),
    ]
