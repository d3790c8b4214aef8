"""What is on disk: rendered files, directories, secrets, units, room, and what was left over.

Arguments: a JSON object with `directories` (path to `mode owner group`), `secrets` (file names) and
`rooms` (paths whose file systems are looked at).
"""

import hashlib
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from gatehouse.probes.common import docker_root, manifest, rights, tell

SECRETS = "/etc/gatehouse/secrets"
OURS = ("/opt/gatehouse", "/etc/gatehouse", "/var/lib/gatehouse")
# What people write when they are asked for a password and want to go on.
DEFAULTS = {"sk-1234", "admin", "postgres", "litellm", "redis", "password", "changeme", "secret"}
SHORTEST = 32
OLD_SECONDS = 3600
UNITS = "/etc/systemd/system/"
KINDS = (".service", ".timer", ".socket", ".path")
PROPERTIES = "Id,LoadState,ActiveState,UnitFileState,Result"


def present(directories: dict[str, str]) -> dict[str, str]:
    """Give mode, owner and group of the directories that are there."""
    return {path: rights(path) for path in directories if Path(path).is_dir()}


def changed() -> list[str]:
    """Give the files that are not what the release rendered."""
    found = []
    for path, wanted in manifest()["files"].items():
        try:
            digest = hashlib.sha256(Path(path).read_bytes()).hexdigest()
        except OSError as error:
            found.append(f"{path}: {error.strerror}")
            continue
        if wanted["sha256"] not in ("", digest):
            found.append(f"{path} has another content")
    return found


def modes(directories: dict[str, str]) -> list[str]:
    """Give the paths with another mode, owner or group."""
    wanted = {
        path: f"{file['mode']} {file['owner']} {file['group']}"
        for path, file in manifest()["files"].items()
    }
    found = []
    for path, expected in {**directories, **wanted}.items():
        try:
            seen = rights(path)
        except OSError:
            # Another check's: a file that is missing is not what was rendered.
            continue
        if seen != expected:
            found.append(f"{path} is {seen}, not {expected}")
    return found


def writable() -> list[str]:
    """Give the paths of ours that everybody may write to."""
    # Thousands of files of a virtual environment are among them: find is ten times as fast.
    done = subprocess.run(
        ["find", *OURS, "!", "-type", "l", "-perm", "-o+w", "-print0"],
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
    )
    # A file may go while others are looked at.
    problems = [line for line in done.stderr.splitlines() if "No such file" not in line]
    if problems:
        raise OSError(problems[0])
    return done.stdout.split("\0")[:-1]


def secrets(names: list[str]) -> list[str]:
    """Give what is wrong with the host's own secrets, without saying anything of what they are."""
    found, values = [], {}
    for name in names:
        path = Path(SECRETS, name)
        try:
            values[name] = path.read_text().strip()
        except FileNotFoundError:
            found.append(f"{name} is missing")
            continue
        if values[name].removeprefix("sk-").lower() in DEFAULTS or values[name] in DEFAULTS:
            found.append(f"{name} is a well-known default")
        elif len(values[name]) < SHORTEST:
            found.append(f"{name}: too short")
    if "master_key" in values and values["master_key"] == values.get("salt_key"):
        found.append("the salt key is the master key")
    return found


def secret_modes() -> list[str]:
    """Give the secrets that others than their readers may read."""
    return sorted(
        f"{path.relative_to(SECRETS)} is {rights(str(path))}"
        for path in Path(SECRETS).rglob("*")
        if path.is_file() and rights(str(path)) != "440 root gatehouse-secrets"
    )


def units() -> list[dict[str, Any]]:
    """Give the state of every unit that the release placed, and whether it should be running."""
    wanted = {}
    for path in manifest()["files"]:
        name = path.removeprefix(UNITS)
        if not path.startswith(UNITS) or "/" in name or "@" in name or not name.endswith(KINDS):
            continue
        try:
            wanted[name] = Path(path).read_text()
        except OSError:
            continue
    if not wanted:
        return []
    shown = subprocess.run(
        ["systemctl", "show", f"--property={PROPERTIES}", *wanted],
        capture_output=True,
        text=True,
        timeout=10,
        check=False,
    ).stdout
    found = []
    for block in shown.strip().split("\n\n"):
        seen = dict(line.partition("=")[::2] for line in block.splitlines())
        text = wanted.get(seen.get("Id", ""), "")
        job = "Type=oneshot" in text and "RemainAfterExit=yes" not in text
        found.append(
            {
                "unit": seen.get("Id", ""),
                "active": seen.get("ActiveState", ""),
                "enabled": seen.get("UnitFileState", ""),
                "result": seen.get("Result", ""),
                "runs": "[Install]" in text and not job,
                "installed": "[Install]" in text,
            }
        )
    return found


def rooms(paths: list[str]) -> dict[str, int]:
    """Give the free room of each file system in MiB, each once."""
    found: dict[int, tuple[str, int]] = {}
    for path in paths:
        try:
            seen = os.statvfs(path)
            found.setdefault(Path(path).stat().st_dev, (path, seen.f_bavail * seen.f_frsize))
        except OSError:
            continue
    return {path: size // 2**20 for path, size in found.values()}


def memory() -> dict[str, int]:
    """Give the host's memory in MiB."""
    lines = dict(line.split(":", 1) for line in Path("/proc/meminfo").read_text().splitlines())
    names = {"total": "MemTotal", "available": "MemAvailable"}
    return {name: int(lines[key].split()[0]) // 1024 for name, key in names.items()}


def leftovers() -> list[str]:
    """Give what a deploy that was killed more than an hour ago has left half-made."""
    folders = (Path("/opt/gatehouse/releases"), Path("/opt/gatehouse/venvs"))
    return sorted(
        str(path)
        for folder in folders
        for kind in ("*.new", "*.tar")
        for path in folder.glob(kind)
        if time.time() - path.lstat().st_mtime > OLD_SECONDS
    )


def main() -> None:
    """Answer."""
    wanted = json.loads(sys.argv[1])
    tell(
        {
            "directories": lambda: present(wanted["directories"]),
            "changed": changed,
            "modes": lambda: modes({}),
            "writable": writable,
            "secrets": lambda: secrets(wanted["secrets"]),
            "secret_modes": secret_modes,
            "units": units,
            "rooms": lambda: rooms([*wanted["rooms"], docker_root()]),
            "memory": memory,
            "leftovers": leftovers,
        }
    )


if __name__ == "__main__":
    main()
