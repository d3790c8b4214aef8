"""`gatehouse --host NAME …`: the same command, on the host, over SSH."""

import getpass
import os
import shlex
import socket
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from gatehouse.audit import CAME_FROM
from gatehouse.commands.hosts import hosts
from gatehouse.commands.verify import UNREACHED, CannotLook, Way, ssh_config
from gatehouse.settings.rules import suggestion

# What the shell of the other side says when it does not find a command.
_NOT_FOUND = 127
# Root's commands need root; who may not become root gets what everybody may see.
_SCRIPT = """
command -v gatehouse >/dev/null || exit {missing}
if [ "$(id -u)" = 0 ]; then as=; elif sudo -n true 2>/dev/null; then as="sudo -n"; else as=; fi
exec $as env {variables} gatehouse {arguments}"""


def run(name: str, arguments: Sequence[str], inventory: str) -> int:
    """Run `gatehouse ARGUMENTS` on a host of the inventory, or on one that ssh knows.

    Gives the exit code of the command there. Raises `CannotLook` when it cannot be reached.
    """
    found = way(name, Path(inventory))
    if arguments and arguments[0] == "open" and not found.local:
        arguments = [*arguments, "--via", address(found)]
    terminal = sys.stdin.isatty() and sys.stdout.isatty()
    script = _SCRIPT.format(
        missing=_NOT_FOUND,
        variables=" ".join(
            shlex.quote(f"{key}={value}") for key, value in _variables(terminal=terminal).items()
        ),
        arguments=shlex.join(arguments),
    )
    with tempfile.TemporaryDirectory(prefix="gatehouse-") as folder:
        config = Path(folder) / "ssh_config"
        config.write_text("" if found.local else ssh_config(found, folder))
        command = found.command(config, script)
        if terminal and not found.local:
            command.insert(1, "-t")
        try:
            code = subprocess.run(command, check=False).returncode
        except FileNotFoundError:
            raise CannotLook("ssh is missing on this machine: install openssh-client") from None
        finally:
            if not found.local:
                end = ["ssh", "-F", str(config), "-O", "exit", found.name]
                subprocess.run(end, capture_output=True, check=False)
    if code == UNREACHED and not found.local:
        raise CannotLook(
            f"{name} cannot be reached (ssh says why above): look at ssh_hostname, ssh_port, "
            "ssh_user and ssh_key in the inventory"
        )
    if code == _NOT_FOUND:
        raise CannotLook(f"{name} has no gatehouse command: pyinfra inventory deploy.py")
    return code


def way(name: str, inventory: Path) -> Way:
    """Find the way to a host; raises `CannotLook` for a name that cannot be one."""
    if name.startswith("-") or not name.strip() or any(each.isspace() for each in name):
        raise CannotLook(f"--host {name!r} is no name of a host")
    known: Mapping[str, dict[str, Any]] = {}
    if inventory.is_file():
        known = hosts(str(inventory), connection=True)
    if name in known:
        return Way(name, known[name])
    if close := suggestion(name, list(known)):
        raise CannotLook(f"--host {name}: the inventory has no such host{close}")
    return Way(name, {})


def address(found: Way) -> str:
    """Give how ssh is to be told of the host, for a command that a person pastes."""
    host = found.data.get("ssh_hostname", found.name)
    user = found.data.get("ssh_user")
    port = f"-p {found.data['ssh_port']} " if found.data.get("ssh_port") else ""
    return f"{port}{user}@{host}" if user else f"{port}{host}"


def _variables(*, terminal: bool) -> dict[str, str]:
    found = {CAME_FROM: f"{getpass.getuser()}@{socket.gethostname()}"}
    if terminal and os.environ.get("TERM"):
        found["TERM"] = os.environ["TERM"]
    if os.environ.get("NO_COLOR"):
        found["NO_COLOR"] = os.environ["NO_COLOR"]
    return found
