"""What is remembered of backups and of drills, where the repository is, what a restore has left.

Argument: the repository, where it is a folder of this host.
"""

import fcntl
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from gatehouse.probes.common import tell

STATE = "/var/lib/gatehouse/state"
# Made by the first deploy with backups: from then on one is due.
SINCE = "/etc/gatehouse/secrets/backup_password"
# There while a restore is at work, and until it was taken back where it was broken off.
UNFINISHED = "/etc/gatehouse/secrets/.restore"
LOCK = "/run/gatehouse/deploy.lock"
PSQL = ("docker", "exec", "gatehouse-postgres-1", "psql", "-U", "litellm", "-d", "postgres")
ASIDE = """SELECT coalesce(json_agg(json_build_object('name', datname,
    'bytes', pg_database_size(datname)) ORDER BY datname), '[]')
    FROM pg_database WHERE starts_with(datname, 'litellm_aside_')"""


def remembered(noun: str) -> dict[str, Any]:
    """Give a document of the host's state, or an empty one; raises `OSError`."""
    try:
        found = json.loads(Path(STATE, f"{noun}.json").read_text())
    except FileNotFoundError:
        return {}
    return found if isinstance(found, dict) else {}


def known(location: str) -> dict[str, Any]:
    """Give everything that the checks are about."""
    return {
        "now": time.time(),
        "since": Path(SINCE).stat().st_mtime,
        "there": not location or Path(location, "config").is_file(),
        "backup": remembered("backup"),
        "drill": remembered("drill"),
    }


def restore() -> str:
    """Say whether a restore is unfinished: `none`, `at work` or `broken off`; raises `OSError`."""
    if not Path(UNFINISHED).exists():
        return "none"
    try:
        with Path(LOCK).open() as file:
            try:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                # Somebody is at work, who has written down what it is.
                return "at work" if "restore" in file.read() else "broken off"
    except FileNotFoundError:
        pass
    return "broken off"


def aside() -> list[dict[str, Any]]:
    """Give the databases that a way back has put aside; raises `OSError`."""
    done = subprocess.run(
        [*PSQL, "-XAtqc", ASIDE], capture_output=True, text=True, timeout=20, check=False
    )
    if done.returncode:
        raise OSError(done.stderr.strip() or "psql gave no answer")
    found: list[dict[str, Any]] = json.loads(done.stdout)
    return found


def main() -> None:
    """Answer."""
    location = sys.argv[1] if len(sys.argv) > 1 else ""
    tell({"backup": lambda: known(location), "restore": restore, "aside": aside})


if __name__ == "__main__":
    main()
