"""What the host remembers between two commands: one JSON document for each subject.

`/var/lib/gatehouse/state/<noun>.json`, readable for the group of readers and written by root.
"""

import json
import os
import tempfile
import time
from pathlib import Path
from typing import Any

FOLDER = Path("/var/lib/gatehouse/state")


def write(noun: str, content: dict[str, Any]) -> None:
    """Replace a document in one step; a reader sees the old one or the new one, whole.

    `written` is added: seconds since the epoch. Raises `OSError`.
    """
    FOLDER.mkdir(mode=0o750, exist_ok=True)
    group = FOLDER.parent.stat().st_gid
    os.chown(FOLDER, -1, group)
    handle, new = tempfile.mkstemp(dir=FOLDER, prefix=f".{noun}-")
    try:
        with os.fdopen(handle, "w") as file:
            json.dump({"written": round(time.time(), 3), **content}, file, indent=1)
            file.flush()
            os.fsync(file.fileno())
        Path(new).chmod(0o640)
        os.chown(new, -1, group)
        Path(new).replace(FOLDER / f"{noun}.json")
    except BaseException:
        Path(new).unlink(missing_ok=True)
        raise


def read(noun: str) -> dict[str, Any] | None:
    """Give a document, or None where there is none (or what is there is no document).

    Raises `PermissionError` where the caller may not look.
    """
    try:
        found = json.loads((FOLDER / f"{noun}.json").read_text())
    except (FileNotFoundError, ValueError):
        return None
    return found if isinstance(found, dict) else None
