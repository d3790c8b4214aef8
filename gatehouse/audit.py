"""Who did what, when, with which result: one JSON line for each change, only ever added to.

Values of secrets are never given to it: a key is named by its alias, a secret by its file.
"""

import fcntl
import json
import os
import pwd
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

FILE = Path("/var/lib/gatehouse/audit.jsonl")
Outcome = Literal["ok", "failed", "refused"]


def actor() -> str:
    """Give who acts: the person behind sudo where there is one, and where they came from."""
    name = os.environ.get("SUDO_USER")
    if not name:
        try:
            # What `loginuid` says survives `su` and `sudo -i`.
            name = pwd.getpwuid(int(Path("/proc/self/loginuid").read_text())).pw_name
        except (OSError, ValueError, KeyError):
            name = pwd.getpwuid(os.getuid()).pw_name
    if os.environ.get("INVOCATION_ID") and not os.environ.get("SUDO_USER"):
        name = "timer" if name == "root" else name
    came_from = os.environ.get("SSH_CONNECTION", "").split()
    return f"{name}@{came_from[0]}" if came_from else name


def record(action: str, outcome: Outcome, **details: str | float | list[str] | None) -> None:
    """Add a line: `action` is the command as it is typed, without values that are secret.

    Raises `OSError` where it cannot be written: who changes something must be able to say so.
    """
    entry = {
        "time": datetime.now(UTC).isoformat(timespec="milliseconds"),
        "who": actor(),
        "action": action,
        "result": outcome,
        **{key: value for key, value in details.items() if value is not None},
    }
    line = json.dumps(entry, ensure_ascii=False) + "\n"
    handle = os.open(FILE, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o640)
    try:
        if os.fstat(handle).st_size == 0:
            os.fchown(handle, -1, FILE.parent.stat().st_gid)
            os.fchmod(handle, 0o640)
        fcntl.flock(handle, fcntl.LOCK_EX)
        os.write(handle, line.encode())
        os.fsync(handle)
    finally:
        os.close(handle)


def entries(file: Path | None = None) -> list[dict[str, object]]:
    """Give every line, oldest first; one that a full disk cut off is passed over.

    Raises `OSError`; a file that is not there yet is an empty list.
    """
    found = []
    try:
        lines = (file or FILE).read_text(errors="replace").splitlines()
    except FileNotFoundError:
        return []
    for line in lines:
        try:
            entry = json.loads(line)
        except ValueError:
            continue
        if isinstance(entry, dict):
            found.append(entry)
    return found
