"""What runs on the host while a deploy is under way."""

from gatehouse.render.template import template


def watch() -> str:
    """Give the shell script that holds the lock of a deploy."""
    return template("release/watch.sh")
