"""The units of the page, of the metrics, of root's collector and of the alerts."""

from gatehouse.render.file import File
from gatehouse.render.template import template
from gatehouse.settings import Settings

UNITS = "/etc/systemd/system"
PYTHON = "/opt/gatehouse/venv/bin/python -I"
# Not the name of a unit: systemd makes a user of that name for as long as the unit runs.
GROUP = "gatehouse-status"
# The address that alerts go to, where it is no secret.
ALERTS_URL = "/etc/gatehouse/alerts_url"
ALERTS_SECRET = "/etc/gatehouse/secrets/alerts_url"  # noqa: S105 - a path
LOOPBACK = "127.0.0.1"


def files(settings: Settings) -> dict[str, File]:
    """Give the units by absolute path."""
    bind = settings.network_bind_address
    gateway = LOOPBACK if bind.is_unspecified else str(bind)
    here = settings.health_address
    hosts = sorted({*settings.health_hosts, here} - {LOOPBACK})
    allowed = ["localhost", *([] if gateway.startswith("127.") else [gateway])]
    if settings.metrics_prometheus:
        # Its container asks for the metrics through the bridge, by that name.
        hosts.append("host.docker.internal")
        allowed.append(str(settings.network_subnet))
    values: dict[str, object] = {
        "settings": settings,
        "python": PYTHON,
        "group": GROUP,
        "addresses": [f"{here}:{settings.health_port}", *settings.metrics_addresses],
        "gateway": f"http://{gateway}:{settings.litellm_port}",
        "hosts": hosts,
        "allowed": allowed,
    }
    texts = {
        "gatehouse-health.socket": template("health/gatehouse-health.socket", **values),
        "gatehouse-health.service": template("health/gatehouse-health.service", **values),
        "gatehouse-collect.service": template("health/gatehouse-collect.service", **values),
        "gatehouse-collect.timer": template("health/gatehouse-collect.timer", **values),
    }
    found = {f"{UNITS}/{name}": File(text) for name, text in texts.items()}
    url = settings.alerts_url
    if url:
        secret = url == "secret"
        values["url_file"] = ALERTS_SECRET if secret else ALERTS_URL
        found[f"{UNITS}/gatehouse-alerts.service"] = File(
            template("alerts/gatehouse-alerts.service", **values)
        )
        if not secret:
            found[ALERTS_URL] = File(f"{url}\n", "640", group=settings.host_group)
    return found
