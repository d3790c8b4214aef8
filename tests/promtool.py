"""Prometheus' own tool, from Debian's package, without the service that the package would start."""

import shutil
import subprocess
from pathlib import Path

from gatehouse.lab.common import BUILD, LabError, run

FOLDER = BUILD / "prometheus"


def promtool() -> Path:
    """Give the program, unpacked from the package where it is not installed.

    Raises `LabError` where neither is possible.
    """
    installed = shutil.which("promtool")
    if installed:
        return Path(installed)
    program = FOLDER / "usr/bin/promtool"
    if not program.exists():
        if not shutil.which("apt-get"):
            raise LabError("promtool is missing: install Prometheus on this machine")
        FOLDER.mkdir(parents=True, exist_ok=True)
        run(["apt-get", "update"], check=False)
        # apt gives up root's rights for a download, and may not write here then.
        options = ["-o", "APT::Sandbox::User=root"]
        subprocess.run(
            ["apt-get", *options, "download", "prometheus"],
            cwd=FOLDER,
            capture_output=True,
            check=True,
        )
        (package,) = FOLDER.glob("prometheus_*.deb")
        run(["dpkg", "-x", str(package), str(FOLDER)])
        package.unlink()
    return program
