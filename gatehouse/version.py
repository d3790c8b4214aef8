"""Which Gatehouse this is."""

from importlib import metadata


def version() -> str:
    """Give the version; a checkout that nobody installed has none."""
    try:
        return metadata.version("gatehouse")
    except metadata.PackageNotFoundError:
        return "unknown"
