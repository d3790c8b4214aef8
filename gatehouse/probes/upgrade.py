"""What an upgrade would find on the host. Argument: JSON, service → image reference.

It starts nothing of the gateway: an image's migrations are listed by a container without network
that is gone at once.
"""

import contextlib
import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote

from gatehouse.probes.common import containers, docker, tell

# Where Postgres has its data, the file in it that names their major version, and the one in which
# each server writes how it was started: what it says outlives the container.
VOLUME, MAJOR, STARTED = "gatehouse_postgres-data", "PG_VERSION", "postmaster.opts"
# Where the official images have the server.
DEBIAN, ALPINE = "/usr/lib/postgresql/", "/usr/local/bin/"
GLIBC, MUSL = "glibc (Debian)", "musl (Alpine)"
RELEASES = "/opt/gatehouse"
STARTS = "/var/lib/gatehouse/starts.jsonl"
SECONDS = 60
PSQL = """
PGPASSWORD=$(cat /run/secrets/postgres_password)
export PGPASSWORD
exec psql -h 127.0.0.1 -U litellm -d litellm -AtXq -f -"""
QUESTION = """
SET statement_timeout = 10000;
SELECT json_build_object(
    'done', coalesce(json_agg(migration_name) FILTER (WHERE finished_at IS NOT NULL), '[]'),
    'failed', coalesce(json_agg(migration_name) FILTER (WHERE finished_at IS NULL), '[]'))
    FROM _prisma_migrations WHERE rolled_back_at IS NULL;
"""
# Where LiteLLM's images have them.
LIST = """
for folder in /app/.venv /usr /usr/local; do
    ls -d "$folder"/lib/python3*/site-packages/litellm_proxy_extras/migrations/*/ 2>/dev/null
done; true"""


def image(reference: str) -> dict[str, Any] | None:
    """Give ID and registry digests of an image, or None where the host does not have it."""
    try:
        found = json.loads(docker(f"/images/{quote(reference, safe='/:@')}/json"))
    except OSError:
        return None
    return {"id": found["Id"], "digests": found.get("RepoDigests") or []}


def running() -> dict[str, dict[str, Any]]:
    """Give service → reference and image of the stack's containers."""
    found = {}
    for each in containers():
        service = each["Config"]["Labels"].get("com.docker.compose.service", "")
        known = image(each["Image"]) or {"digests": []}
        found[service] = {
            "reference": each["Config"]["Image"],
            "id": each["Image"],
            "digests": known["digests"],
        }
    return found


def shipped(reference: str) -> list[str]:
    """Give the names of the migrations that an image brings; raises `OSError`."""
    if image(reference) is None:
        raise OSError(f"{reference} is not on this host")
    done = subprocess.run(
        [
            *("docker", "run", "--rm", "--network", "none", "--read-only", "--cap-drop", "ALL"),
            *("--entrypoint", "/bin/sh", reference, "-c", LIST),
        ],
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )
    # Names may have spaces.
    names = sorted(Path(line).name for line in done.stdout.splitlines())
    if done.returncode or not names:
        raise OSError(f"{reference} shows no migrations: {done.stderr.strip() or 'none found'}")
    return names


def database() -> dict[str, list[str]]:
    """Give the migrations that the database has, and those that failed; raises `OSError`."""
    done = subprocess.run(
        ["docker", "exec", "-i", "gatehouse-postgres-1", "sh", "-c", PSQL],
        input=QUESTION,
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )
    if done.returncode or not done.stdout.strip():
        raise OSError(done.stderr.strip() or "psql gave no answer")
    found: dict[str, list[str]] = json.loads(done.stdout)
    return {name: sorted(names) for name, names in found.items()}


def server(reference: str) -> dict[str, dict[str, str]]:
    """Give major version and C library of the data, and of an image; raises `OSError`.

    What nobody says is missing: all of it where there are no data, or no such image. The data were
    sorted by the library of the server that runs, or ran last.
    """
    wanted: dict[str, str] = {}
    if image(reference):
        found = json.loads(docker(f"/images/{quote(reference, safe='/:@')}/json"))
        wanted = said(found["Config"].get("Env") or [])
    names = quote(json.dumps({"name": [VOLUME]}))
    volumes = json.loads(docker(f"/volumes?filters={names}"))["Volumes"] or []
    folders = [Path(each["Mountpoint"]) for each in volumes if each["Name"] == VOLUME]
    if not folders or not (folders[0] / MAJOR).exists():
        return {"data": {}, "image": wanted}
    data = started(folders[0] / STARTED)
    for each in containers():
        if each["Config"]["Labels"].get("com.docker.compose.service") == "postgres":
            data |= said(each["Config"]["Env"])
    data["major"] = (folders[0] / MAJOR).read_text().strip()
    return {"data": data, "image": wanted}


def started(path: Path) -> dict[str, str]:
    """Give the C library of the server that has served the data last, as the data say."""
    try:
        program = path.read_text().split(maxsplit=1)[0]
    except (FileNotFoundError, IndexError):
        return {}
    for folder, library in ((DEBIAN, GLIBC), (ALPINE, MUSL)):
        if program.startswith(folder):
            return {"library": library}
    return {}


def said(environment: list[str]) -> dict[str, str]:
    """Give what the official image says of itself in its environment.

    Debian's variants have a package's version (16.9-1.pgdg120+1) and its folder in their PATH,
    Alpine's the server's version (16.9).
    """
    values = dict(each.split("=", 1) for each in environment)
    found = {}
    if major := values.get("PG_MAJOR"):
        found["major"] = major
    if version := values.get("PG_VERSION"):
        packaged = "pgdg" in version or DEBIAN in values.get("PATH", "")
        found["library"] = GLIBC if packaged else MUSL
    return found


def releases() -> dict[str, dict[str, str]]:
    """Give service → image reference of the current release, and of the good one, if there is."""
    found = {}
    for name in ("current", "good"):
        with contextlib.suppress(FileNotFoundError):
            services = json.loads(Path(RELEASES, name, "manifest.json").read_text())["services"]
            found[name] = {service: each["image"] for service, each in services.items()}
    return found


def starts() -> list[dict[str, Any]]:
    """Give the starts that deploys have measured, oldest first."""
    try:
        lines = Path(STARTS).read_text().splitlines()
    except FileNotFoundError:
        return []
    return [json.loads(line) for line in lines if line.strip()]


def main() -> None:
    """Answer."""
    wanted: Mapping[str, str] = json.loads(sys.argv[1])
    tell(
        {
            "running": running,
            "targets": lambda: {reference: image(reference) for reference in wanted.values()},
            "shipped": lambda: shipped(wanted["litellm"]),
            "database": database,
            "server": lambda: server(wanted["postgres"]),
            "releases": releases,
            "starts": starts,
        }
    )


if __name__ == "__main__":
    main()
