"""Prometheus and Alertmanager, where they are switched on, and what any other of them needs."""

from gatehouse.render.environment import inputs_hash
from gatehouse.render.machine import Machine
from gatehouse.render.template import plain, template
from gatehouse.settings import Settings

NAME = "metrics"
_PIDS = 128
_ALERTMANAGER_MIB = 128
# Service → files of the release that it runs with, besides compose/metrics.yaml.
SERVICES = {
    "alertmanager": ("metrics/alertmanager.yaml",),
    "prometheus": ("metrics/prometheus.yaml", "metrics/rules.yaml"),
}


def files(settings: Settings) -> dict[str, str]:
    """Give the files of the release, by path inside it."""
    found = {
        # For a Prometheus and a Grafana, wherever they are.
        "metrics/rules.yaml": plain("metrics/rules.yaml"),
        "metrics/grafana.json": plain("metrics/grafana.json"),
    }
    if settings.metrics_prometheus:
        found["compose/metrics.yaml"] = plain("metrics.yaml")
        found["metrics/prometheus.yaml"] = template("metrics/prometheus.yaml", settings=settings)
        found["metrics/alertmanager.yaml"] = template(
            "metrics/alertmanager.yaml", settings=settings
        )
    return found


def variables(settings: Settings, machine: Machine) -> dict[str, str]:
    """Give the variables of compose/metrics.yaml; none where it is off."""
    if not settings.metrics_prometheus:
        return {}
    found = {"GATEHOUSE_METRICS_BIND": settings.health_address}
    for name, image, port, memory in (
        (
            "PROMETHEUS",
            settings.metrics_prometheus_image,
            settings.metrics_prometheus_port,
            settings.metrics_memory_mib,
        ),
        (
            "ALERTMANAGER",
            settings.metrics_alertmanager_image,
            settings.metrics_alertmanager_port,
            _ALERTMANAGER_MIB,
        ),
    ):
        found |= {
            f"GATEHOUSE_{name}_IMAGE": image,
            f"GATEHOUSE_{name}_USER": settings.metrics_user,
            f"GATEHOUSE_{name}_PORT": str(port),
            f"GATEHOUSE_{name}_MEMORY": f"{memory}m",
            f"GATEHOUSE_{name}_CPUS": machine.cpus(1.0),
            f"GATEHOUSE_{name}_PIDS": str(_PIDS),
            f"GATEHOUSE_{name}_START_PERIOD": f"{settings.metrics_start_timeout_seconds}s",
        }
    return found | {"GATEHOUSE_PROMETHEUS_RETENTION": f"{settings.metrics_retention_days}d"}


def inputs(
    settings: Settings, release: dict[str, str], shared: list[str], values: dict[str, str]
) -> dict[str, str]:
    """Give the hash of what each service runs with; none where they are off."""
    if not settings.metrics_prometheus:
        return {}
    own = [*shared, release["compose/metrics.yaml"]]
    return {
        service: inputs_hash([*own, *(release[path] for path in paths)], values)
        for service, paths in SERVICES.items()
    }
