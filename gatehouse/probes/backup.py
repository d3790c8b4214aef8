"""What is remembered of backups and of drills, and whether the repository is where it was.

Argument: the repository, where it is a folder of this host.
"""

import json
import sys
import time
from pathlib import Path
from typing import Any

from gatehouse.probes.common import tell

STATE = "/var/lib/gatehouse/state"
# Made by the first deploy with backups: from then on one is due.
SINCE = "/etc/gatehouse/secrets/backup_password"


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


def main() -> None:
    """Answer."""
    location = sys.argv[1] if len(sys.argv) > 1 else ""
    tell({"backup": lambda: known(location)})


if __name__ == "__main__":
    main()
