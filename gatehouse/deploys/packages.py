"""Distribution packages, asked for by the command that they bring."""

import shlex
from collections.abc import Sequence

from pyinfra import host
from pyinfra.api import FunctionCommand, operation

from gatehouse.deploys import Commands, progress
from gatehouse.deploys.facts import Run

# A machine that is still being installed, or that updates itself, holds the lock for a while.
APT = "DEBIAN_FRONTEND=noninteractive apt-get -q -y -o DPkg::Lock::Timeout=300"


def install(
    packages: list[str], instead_of: Sequence[str] = (), otherwise: str = ""
) -> FunctionCommand:
    """Give the command that installs packages, after reading fresh lists of them.

    Of `instead_of`, what is installed is removed in the same step. An installation that was
    killed is finished first. A list that cannot be read (a dead third-party source) is no reason
    to stop: what matters is whether the packages can be had. `otherwise`: what to do without them.
    """
    words = " ".join(map(shlex.quote, packages))
    # apt removes a package whose name ends in a minus.
    old = (
        f"$(dpkg-query -W -f '${{Package}} ${{db:Status-Status}}\\n' {' '.join(instead_of)} "
        '2>/dev/null | awk \'$2 == "installed" { print $1 "-" }\')'
        if instead_of
        else ""
    )
    command = (
        f"dpkg --configure -a; {APT} update; {APT} install --no-install-recommends {words} {old}"
    )
    if otherwise:
        command = f"{{ {command}; }} || {{ echo {shlex.quote(otherwise)}; exit 1; }}"
    return progress.run(f"installing {', '.join(packages)}", command)


@operation()
def present(commands: dict[str, str], otherwise: str = "") -> Commands:
    """Ensure that each command is there; `commands` is command → package that brings it.

    `otherwise`: what the operator can do where the packages cannot be had.
    """
    words = " ".join(commands)
    check = f"for c in {words}; do command -v $c >/dev/null || echo $c; done"
    missing = host.get_fact(Run, command=check)["out"].split()
    if missing:
        yield install([commands[command] for command in missing], otherwise=otherwise)
    else:
        host.noop("the packages are installed")
