"""`verify`: prove with testinfra that the hosts of an inventory are what they were made to be."""

import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from gatehouse.commands.hosts import hosts
from gatehouse.settings import validate

TESTS = Path("tests/host")
LOCAL = "@local"
MADE_BY_DEPLOY = "/etc/gatehouse/settings.json"
CONNECT_SECONDS = 10
# ssh's own exit code for a connection that did not come about.
UNREACHED = 255
# pyinfra's host data → OpenSSH's options.
_OPTIONS = {
    "ssh_hostname": "HostName",
    "ssh_port": "Port",
    "ssh_user": "User",
    "ssh_key": "IdentityFile",
    "ssh_known_hosts_file": "UserKnownHostsFile",
    "ssh_strict_host_key_checking": "StrictHostKeyChecking",
}


class CannotLook(click.ClickException):
    """A host that cannot be looked at, which is no statement about it."""

    exit_code = 2


@dataclass(frozen=True)
class Way:
    """The way to one host, as far as the inventory says it."""

    name: str
    data: Mapping[str, Any]

    @property
    def local(self) -> bool:
        """Whether it is this machine."""
        return self.name == LOCAL

    def command(self, config: Path, script: str) -> list[str]:
        """Give the command that runs a script of `sh` there."""
        return ["sh", "-c", script] if self.local else ["ssh", "-F", str(config), self.name, script]

    def spec(self, *, sudo: bool) -> str:
        """Give testinfra's name of the host."""
        place = "local://" if self.local else f"ssh://{self.name}"
        return f"{place}?sudo=true" if sudo else place


@click.command("verify")
@click.option("--inventory", default="inventory", show_default=True, help="pyinfra's inventory.")
@click.option("--limit", multiple=True, metavar="HOST", help="Only this host; can be repeated.")
@click.argument("arguments", nargs=-1, metavar="[PYTEST ARGUMENTS]")
def command(inventory: str, limit: tuple[str, ...], arguments: tuple[str, ...]) -> None:
    """Run the host tests against every host of the inventory.

    They change nothing, and remove the keys, users and log rows that they make; only LiteLLM's
    daily totals and its list of deleted keys still count them.

    Ends with 0 when everything is proven, 1 when something is wrong, and 2 when a host could not be
    looked at.
    """
    ways = [Way(name, data) for name, data in _wanted(hosts(inventory, connection=True), limit)]
    for way in ways:
        validate(way.data)
    with tempfile.TemporaryDirectory(prefix="gatehouse-") as folder:
        config = Path(folder) / "ssh_config"
        config.write_text("".join(ssh_config(way, folder) for way in ways if not way.local))
        try:
            specs = [_looked_at(way, config) for way in ways]
            done = subprocess.run(
                [
                    *(sys.executable, "-m", "pytest", str(TESTS), "-p", "no:cacheprovider"),
                    *(f"--hosts={','.join(specs)}", f"--ssh-config={config}"),
                    *(f"--inventory={inventory}", *(arguments or ["--quiet"])),
                ],
                check=False,
            )
        finally:
            for way in ways:
                if not way.local:
                    _quiet(["ssh", "-F", str(config), "-O", "exit", way.name])
    sys.exit(min(done.returncode, CannotLook.exit_code))


def ssh_config(way: Way, folder: str) -> str:
    """Write OpenSSH's configuration for one host; its connection is kept in `folder` for reuse.

    testinfra asks ssh to share connections but names no place for them, and then opens one for
    each command.
    """
    values = {option: way.data.get(key) for key, option in _OPTIONS.items()}
    given = {option: value for option, value in values.items() if value is not None}
    given |= {"IdentitiesOnly": "yes"} if "IdentityFile" in given else {}
    given |= {
        "BatchMode": "yes",
        "ConnectTimeout": CONNECT_SECONDS,
        "ControlMaster": "auto",
        "ControlPath": f"{folder}/%C",
        "ControlPersist": "60",
    }
    options = "".join(f"    {option} {_quoted(value)}\n" for option, value in given.items())
    include = way.data.get("ssh_config_file") or "~/.ssh/config"
    return f"Host {way.name}\n{options}\nInclude {include}\n"


def _quoted(value: object) -> str:
    text = str(value)
    return f'"{text}"' if " " in text else text


def _wanted(
    found: Mapping[str, dict[str, Any]], limit: tuple[str, ...]
) -> list[tuple[str, dict[str, Any]]]:
    for name in limit:
        if name not in found:
            raise CannotLook(f"--limit {name}: the hosts are {', '.join(found)}")
    for name, data in found.items():
        if name.startswith("@") and name != LOCAL:
            raise CannotLook(f"{name}: only {LOCAL} and SSH hosts can be verified")
        if data.get("ssh_password"):
            raise CannotLook(
                f"{name}: OpenSSH takes no password from the inventory: give ssh_key, or a key in "
                "the agent"
            )
    return [(name, data) for name, data in found.items() if not limit or name in limit]


def _looked_at(way: Way, config: Path) -> str:
    """Give testinfra's name of a host that can be looked at.

    Raises `CannotLook` with what is in the way and what to do about it.
    """
    look = (
        "if [ $(id -u) = 0 ]; then as=; echo root; "
        "elif sudo -n true 2>/dev/null; then as='sudo -n'; echo sudo; "
        f"else echo none; exit 0; fi; $as test -e {MADE_BY_DEPLOY} && echo made"
    )
    found = subprocess.run(
        way.command(config, look),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    if found.returncode == UNREACHED and not way.local:
        last = (found.stderr.strip().splitlines() or ["no answer"])[-1]
        raise CannotLook(
            f"{way.name} cannot be reached: {last}\nlook at ssh_hostname, ssh_port, ssh_user and "
            f"ssh_key in the inventory; by hand: ssh {way.data.get('ssh_hostname', way.name)}"
        )
    words = found.stdout.split()
    if "none" in words:
        raise CannotLook(
            f"{way.name}: the user is not root and may not use sudo without a password: connect as "
            "root (ssh_user), or allow sudo"
        )
    if "made" not in words:
        raise CannotLook(
            f"{way.name} is not provisioned ({MADE_BY_DEPLOY} is not there): run "
            "`pyinfra inventory deploy.py` first"
        )
    return way.spec(sudo="sudo" in words)


def _quiet(command: list[str]) -> None:
    subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, check=False)
