"""Distribution packages, asked for by the command that they bring."""

import shlex

from pyinfra import host
from pyinfra.api import FunctionCommand, operation

from gatehouse.deploys import Commands, progress
from gatehouse.deploys.facts import Run

# A machine that is still being installed, or that updates itself, holds the lock for a while.
APT = "DEBIAN_FRONTEND=noninteractive apt-get -q -y -o DPkg::Lock::Timeout=300"


def install(packages: list[str]) -> FunctionCommand:
    """Give the command that installs packages, after reading fresh lists of them.

    A list that cannot be read (a dead third-party source) is no reason to stop: what matters is
    whether the packages can be had.
    """
    words = " ".join(map(shlex.quote, packages))
    command = f"{APT} update; {APT} install --no-install-recommends {words}"
    return progress.run(f"installing {', '.join(packages)}", command)


@operation()
def present(commands: dict[str, str]) -> Commands:
    """Ensure that each command is there; `commands` is command → package that brings it."""
    words = " ".join(commands)
    check = f"for c in {words}; do command -v $c >/dev/null || echo $c; done"
    missing = host.get_fact(Run, command=check)["out"].split()
    if missing:
        yield install([commands[command] for command in missing])
    else:
        host.noop("the packages are installed")
