"""`advisories`: ask whether a Python package that is pinned here has a known hole."""

import re
import sys
from pathlib import Path

import click
import httpx

from gatehouse.commands.verify import CannotLook

LOCKS = (Path("requirements.lock"), Path("requirements-host.lock"))
SERVICE = "https://api.osv.dev"
_SECONDS = 30.0
# What the service takes at once.
_MOST = 1000
_PIN = re.compile(r"^([A-Za-z0-9._-]+)==([^\s;\\]+)", re.MULTILINE)


@click.command("advisories")
@click.option("--service", default=SERVICE, show_default=True, help="An OSV service.")
def command(service: str) -> None:
    """Ask OSV.dev for advisories about the versions that the requirements files pin.

    Ends with 0 when none is known, 1 when there are some, and 2 when nobody could be asked.
    """
    pins = sorted({pin for lock in LOCKS for pin in _PIN.findall(lock.read_text())})
    try:
        known = {pin: ids for pin, ids in zip(pins, ask(service, pins), strict=True) if ids}
    except (httpx.HTTPError, ValueError, KeyError) as error:
        raise CannotLook(
            f"{service} cannot be asked ({str(error) or type(error).__name__}): whether the "
            f"{len(pins)} pinned packages have known holes is not known; try again where it answers"
        ) from None
    for (name, version), ids in known.items():
        click.echo(f"{name} {version}: {', '.join(ids)}")
    if known:
        click.echo(f"{len(known)} of {len(pins)} pinned packages have known holes: https://osv.dev")
        sys.exit(1)
    click.echo(f"no advisory is known for the {len(pins)} pinned packages")


def ask(service: str, pins: list[tuple[str, str]]) -> list[list[str]]:
    """Give the advisories of each pin; raises `httpx.HTTPError`, `ValueError` or `KeyError`."""
    found: list[list[str]] = []
    for start in range(0, len(pins), _MOST):
        queries = [
            {"package": {"name": name, "ecosystem": "PyPI"}, "version": version}
            for name, version in pins[start : start + _MOST]
        ]
        answer = httpx.post(f"{service}/v1/querybatch", json={"queries": queries}, timeout=_SECONDS)
        answer.raise_for_status()
        results = answer.json()["results"]
        if len(results) != len(queries):
            raise ValueError(f"{len(results)} answers to {len(queries)} questions")
        found += [[each["id"] for each in result.get("vulns", [])] for result in results]
    return found
