"""Who did what, when, with which result: one JSON line for each change, only ever added to.

Values of secrets are never given to it: a key is named by its alias, a secret by its file.
"""

import fcntl
import json
import os
import pwd
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal, cast, get_args

FILE = Path("/var/lib/gatehouse/audit.jsonl")
# Who calls from another machine (`gatehouse --host NAME …`) says so in this variable.
CAME_FROM = "GATEHOUSE_OPERATOR"
Outcome = Literal["begun", "ok", "failed", "refused"]


def actor() -> str:
    """Give who acts on this host: the person behind sudo where there is one."""
    name = os.environ.get("SUDO_USER")
    if not name:
        try:
            # What `loginuid` says survives `su` and `sudo -i`.
            name = pwd.getpwuid(int(Path("/proc/self/loginuid").read_text())).pw_name
        except (OSError, ValueError, KeyError):
            name = pwd.getpwuid(os.getuid()).pw_name
    if os.environ.get("INVOCATION_ID") and not os.environ.get("SUDO_USER"):
        name = "timer" if name == "root" else name
    return name


def record(action: str, outcome: Outcome, **details: str | float | list[str] | None) -> None:
    """Add a line: `action` is the command as it is typed, without values that are secret.

    Raises `OSError` where it cannot be written: who changes something must be able to say so.
    """
    entry = {
        "time": datetime.now(UTC).isoformat(timespec="milliseconds"),
        "who": actor(),
        "action": action,
        "result": outcome,
        # What the other machine says of itself; who acts here is `who`.
        **({"from": os.environ[CAME_FROM]} if os.environ.get(CAME_FROM) else {}),
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


def main() -> None:
    """Add a line for a deploy: `python -m gatehouse.audit ACTION RESULT [KEY=VALUE …]`."""
    action, outcome, *rest = sys.argv[1:]
    if outcome not in get_args(Outcome):
        sys.exit(f"{outcome!r} is none of {', '.join(get_args(Outcome))}")
    details = dict(each.split("=", 1) for each in rest)
    record(action, cast(Outcome, outcome), **details)


if __name__ == "__main__":
    main()
