"""What lets containers use the cards, and watches that they still do."""

from gatehouse.render.file import File
from gatehouse.render.template import template
from gatehouse.settings import Settings

UNITS = "/etc/systemd/system"
WATCH = "gatehouse-gpu-watch"


def files(settings: Settings, card: str) -> dict[str, File]:
    """Give the units of a host whose engines run on a card, by absolute path; else none."""
    if card == "none":
        return {}
    return {
        path: File(content)
        for path, content in {
            f"{UNITS}/gatehouse-cdi.service": template("gpu/gatehouse-cdi.service"),
            f"{UNITS}/gatehouse-cdi.path": template("gpu/gatehouse-cdi.path"),
            f"{UNITS}/nvidia-persistenced.service.d/gatehouse.conf": template(
                "gpu/persistenced.conf"
            ),
            f"{UNITS}/{WATCH}.service": template("gpu/gatehouse-gpu-watch.service"),
            f"{UNITS}/{WATCH}.timer": template("gpu/gatehouse-gpu-watch.timer", settings=settings),
        }.items()
    }
