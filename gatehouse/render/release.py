"""What runs on the host while a deploy is under way, and after one that was cut off."""

from gatehouse.render.file import File
from gatehouse.render.template import template

UNIT = "gatehouse-back.service"


def watch() -> str:
    """Give the shell script that holds the lock of a deploy."""
    return template("release/watch.sh")


def files() -> dict[str, File]:
    """Give the unit of the way back at a boot, by absolute path."""
    return {f"/etc/systemd/system/{UNIT}": File(template("release/gatehouse-back.service"))}
