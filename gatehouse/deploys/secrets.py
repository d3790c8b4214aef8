"""Secrets: made on the host once, never read back, never overwritten."""

import hashlib
import shlex

from pydantic import SecretStr
from pyinfra import host, logger
from pyinfra.api import FunctionCommand, StringCommand, operation
from pyinfra.api.deploy import deploy as pyinfra_deploy
from pyinfra.api.host import Host
from pyinfra.api.state import State

from gatehouse.deploys import Commands
from gatehouse.deploys.facts import Paths, Run
from gatehouse.deploys.gateway import Gateway
from gatehouse.render.tree import SECRETS

DIRECTORY = "/etc/gatehouse/secrets"
PROVIDERS = f"{DIRECTORY}/providers"
GROUP = "gatehouse-secrets"
# LiteLLM wants its keys to look like its own.
_PREFIX = {"master_key": "sk-", "salt_key": "sk-salt-"}
# A new one of these would lock the gateway out of the data that exists, or garble it.
_BOUND_TO_DATA = ("salt_key", "postgres_password")
BACKUPS = "/var/lib/gatehouse/backup/repository"


@pyinfra_deploy("Secrets")
def deploy(gateway: Gateway) -> None:
    """Make what is missing, and take over the provider keys that the operator gives."""
    made(name="Make the host's own secrets", held=sorted(gateway.found.provider_keys))
    provided(name="Take over provider keys", keys=gateway.provider_keys)


@operation()
def made(held: list[str]) -> Commands:
    """Ensure that each secret exists, readable for root and for the containers' group only.

    `held`: provider keys that the host has from an earlier deploy; they are for the same readers.
    """
    paths = [f"{DIRECTORY}/{name}" for name in SECRETS]
    paths += [f"{PROVIDERS}/{name}" for name in held]
    found = host.get_fact(Paths, paths=[PROVIDERS, *paths])
    missing = [name for name in SECRETS if f"{DIRECTORY}/{name}" not in found]
    if "backup_password" in missing and _there(f"[ -e {BACKUPS}/config ]"):
        message = (
            f"backup_password is gone from {DIRECTORY}, but the backups that it opens are in "
            f"{BACKUPS}: put it back from where you keep it, or move that folder away to begin "
            "anew"
        )
        yield FunctionCommand(_refuse, [message], {})
        return
    lost = [name for name in missing if name in _BOUND_TO_DATA]
    if lost and _there("docker volume inspect gatehouse_postgres-data >/dev/null 2>&1"):
        message = (
            f"{' and '.join(lost)} are gone from {DIRECTORY}, but the database that was made "
            "with them is there: put them back from a backup, or remove the database with "
            "`docker volume rm gatehouse_postgres-data` to begin anew"
        )
        yield FunctionCommand(_refuse, [message], {})
        return
    wrong = [
        path
        for path in paths
        if path in found
        and (found[path].mode, found[path].owner, found[path].group) != ("440", "root", GROUP)
    ]
    for name in missing:
        path = shlex.quote(f"{DIRECTORY}/{name}")
        # On disk before anything is made with it: a power cut must not leave an empty file.
        # `mv -n` never overwrites; the value stands in no command line and in no variable of ours.
        yield StringCommand(
            f"umask 077 && {{ printf %s {_PREFIX.get(name, '')}; "
            f"head -c 32 /dev/urandom | od -An -v -tx1 | tr -d ' \\n'; }} >{path}.new && "
            f"chown root:{GROUP} {path}.new && chmod 440 {path}.new && sync {path}.new && "
            f"mv -n {path}.new {path}"
        )
    for path in wrong:
        yield StringCommand(f"chown root:{GROUP} {path} && chmod 440 {path}")
    directory = found.get(PROVIDERS)
    directory_right = directory and (directory.mode, directory.owner, directory.group) == (
        "750",
        "root",
        GROUP,
    )
    if not directory_right:
        yield StringCommand(f"install -d -o root -g {GROUP} -m 750 {PROVIDERS}")
    if directory_right and not missing and not wrong:
        host.noop("the secrets are there")


def _there(question: str) -> bool:
    """Say whether a command of the host succeeds."""
    return bool(host.get_fact(Run, command=f"{question} && echo there")["out"] == "there")


def _refuse(state: State, host: Host, message: str) -> bool:  # noqa: ARG001 - pyinfra's call
    # An exception would reach the operator as a traceback.
    logger.error(f"{host.print_prefix}{message}")
    return False


@operation()
def provided(keys: dict[str, SecretStr]) -> Commands:
    """Ensure that the host holds the provider keys that the operator gives; others stay."""
    found = host.get_fact(Paths, paths=[f"{PROVIDERS}/{name}" for name in keys] or [PROVIDERS])
    right = True
    for name, key in keys.items():
        path = f"{PROVIDERS}/{name}"
        value = key.get_secret_value()
        stat = found.get(path)
        digest = hashlib.sha256(value.encode()).hexdigest()
        if stat and (stat.sha256, stat.mode, stat.group) == (digest, "440", GROUP):
            continue
        right = False
        # On standard input: a command line can be read by every user of the host.
        yield StringCommand(
            f"umask 077 && head -c {len(value.encode())} >{path}.new && "
            f"chown root:{GROUP} {path}.new && chmod 440 {path}.new && mv {path}.new {path}",
            _stdin=value,
        )
    if right:
        host.noop("no new provider key")
