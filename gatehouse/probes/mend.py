"""Put right what the manifest of the current release says. Arguments: `modes` or `units`, and JSON.

`modes DIRECTORIES`: modes and owners of files, directories and secrets; no content is touched.
`units`: what should run is enabled and started, what failed is tried again.
"""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

from gatehouse.probes.common import manifest, rights
from gatehouse.probes.disk import SECRETS, modes, units, writable


def set_rights(path: str, wanted: str) -> None:
    """Give a path its mode, owner and group."""
    if rights(path) != wanted:
        mode, owner, group = wanted.split()
        shutil.chown(path, owner, group)
        Path(path).chmod(int(mode, 8))
        sys.stdout.write(f"{path} is {wanted}\n")


def mend_modes(directories: dict[str, str]) -> None:
    """Set modes and owners."""
    wanted = dict(directories)
    for path, file in manifest()["files"].items():
        wanted[path] = f"{file['mode']} {file['owner']} {file['group']}"
    for path, expected in wanted.items():
        if path in directories:
            Path(path).mkdir(parents=True, exist_ok=True)
        if os.path.lexists(path):
            set_rights(path, expected)
    for path in Path(SECRETS).rglob("*"):
        if path.is_file():
            set_rights(str(path), "440 root gatehouse-secrets")
    for name in writable():
        Path(name).chmod(Path(name).stat().st_mode & ~0o002)
        sys.stdout.write(f"{name} is no longer writable for everybody\n")
    left = modes(directories)
    if left:
        sys.exit("; ".join(left))


def mend_units() -> None:
    """Enable and start what should run."""
    for each in units():
        wrong = each["runs"] and each["active"] != "active"
        if (
            wrong
            or each["active"] == "failed"
            or (each["installed"] and each["enabled"] != "enabled")
        ):
            name = each["unit"]
            subprocess.run(["systemctl", "reset-failed", name], check=False, capture_output=True)
            if each["installed"]:
                subprocess.run(["systemctl", "enable", "--quiet", name], check=True)
            if each["runs"] or each["active"] == "failed":
                subprocess.run(["systemctl", "restart", name], check=True)
            sys.stdout.write(f"{name} was started again\n")


def main() -> None:
    """Mend."""
    if sys.argv[1] == "modes":
        mend_modes(json.loads(sys.argv[2]))
    else:
        mend_units()


if __name__ == "__main__":
    main()
