"""Putting a snapshot in force: loaded whole first, then switched, proven, or put back."""

import os
import subprocess
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from pydantic import SecretStr

from gatehouse.checks import every
from gatehouse.settings import Settings
from gatehouse.tool import (
    backup_make,
    checking,
    dump,
    here,
    restore_back,
    rotation,
    scratch,
    stack,
    upgrade,
)
from gatehouse.tool.backup_make import Say
from gatehouse.tool.doors import DOORS
from gatehouse.tool.errors import CannotLookError, ProblemError
from gatehouse.tool.restic import Repository
from gatehouse.tool.unpack import unpack

# The new database stands beside the old one for a while.
TIMES = 3
SALT = "salt_key"
# What people and clients know the gateway by. What its parts tell each other stays the host's own.
KNOWN = ("master_key", "ui_password")
_PROVIDERS = "providers"
_KEYS = Path("/etc/gatehouse/keys")
_DECLARED = Path("/var/lib/gatehouse/state/declared.json")
_COMPONENTS = ("secrets", "postgres", "redis", "litellm")
_SETTLE_SECONDS = 60
_POLL_SECONDS = 3


@dataclass(frozen=True)
class Plan:
    """What is to come back: a snapshot with the rows that were noted in it.

    `all_secrets`: not the salt key only. `folders`: the values of delivered keys, and what was ever
    declared, as a host that is new needs them. `migrate`: another LiteLLM made it than runs now.
    """

    snapshot: str
    rows: Mapping[str, int]
    all_secrets: bool
    folders: bool
    migrate: bool


@dataclass
class Done:
    """What came back."""

    rows: dict[str, int]
    data_seconds: float
    downtime_seconds: float
    secrets: list[str]
    saved: str | None


def carry_out(
    settings: Settings, source: Repository, plan: Plan, say: Say, save: Callable[[], str] | None
) -> Done:
    """Put a snapshot in force, and prove it; raises `ProblemError` with the old state in force.

    `save` saves the present state, when nobody adds to it any more; gives its snapshot.
    """
    restore_back.refuse()
    # What one that was killed when it was done has left.
    dump.forget()
    data = time.monotonic()
    with dump.beside() as database:
        say("loading the snapshot beside the database")
        found = unpack(source, plan.snapshot, database)
        if plan.migrate:
            upgrade.refuse_newer(database)
        secrets = _secrets(found, plan)
        files = _files(found, plan)
        restore_back.begin({path: (_value(path), value) for path, value in secrets.items()})
        begin = time.monotonic()
        try:
            say("stopping litellm: open answers are finished first")
            stack.stop("litellm")
            saving = time.monotonic()
            saved = save() if save else None
            data += time.monotonic() - saving
            say("switching to the database that was loaded")
            _switch(secrets)
            data = time.monotonic() - data
            if plan.migrate:
                _migrate(settings, say)
            say("starting litellm")
            restore_back.serve(settings)
            rows = _prove(settings, plan, say)
            restore_back.end()
        except BaseException as error:
            say("it did not work: putting the state from before back")
            restore_back.put_back(settings, aside=False)
            reason = backup_make.words(error)
            raise ProblemError(f"the state from before serves again. {reason}") from error
        downtime = round(time.monotonic() - begin, 1)
        dump.forget()
        for path, content in files.items():
            _write(path, content)
    names = [str(path.relative_to(here.SECRETS)) for path in secrets]
    return Done(rows, round(data, 1), downtime, names, saved)


def _secrets(found: Mapping[Path, bytes], plan: Plan) -> dict[Path, SecretStr]:
    """Give the secrets of the snapshot that are to come back and differ: path → value."""
    wanted = {}
    for path, content in found.items():
        if not path.is_relative_to(here.SECRETS):
            continue
        name = str(path.relative_to(here.SECRETS))
        known = name in KNOWN or name.startswith(f"{_PROVIDERS}/")
        value = SecretStr(content.decode().strip())
        if (name == SALT or (plan.all_secrets and known)) and _value(path) != value:
            wanted[path] = value
    return wanted


def _files(found: Mapping[Path, bytes], plan: Plan) -> dict[Path, bytes]:
    """Give what else a host that is new needs: path → content."""
    if not plan.folders:
        return {}
    return {
        path: content
        for path, content in found.items()
        if path.parent == _KEYS or path == _DECLARED
    }


def _switch(secrets: Mapping[Path, SecretStr]) -> None:
    """Put the data in force; LiteLLM is stopped and stays so."""
    # The present one stays beside it until the new one has proved itself.
    dump.swap(keep=True)
    for path, value in secrets.items():
        rotation.write(path, value)


def _migrate(settings: Settings, say: Say) -> None:
    """Bring the schema up to date, as a deploy does; raises `ProblemError`."""
    say("bringing the database's schema up to date")
    name = stack.container("litellm-migrate")
    seconds = settings.litellm_start_timeout_seconds
    try:
        done = subprocess.run(
            ["docker", "start", "--attach", name],
            capture_output=True,
            check=False,
            timeout=seconds,
        )
    except subprocess.TimeoutExpired:
        raise ProblemError(f"litellm-migrate is not done after {seconds} s") from None
    if done.returncode:
        raise ProblemError(
            f"litellm-migrate failed; its last lines:\n{stack.tail('litellm-migrate')}"
        )


def _prove(settings: Settings, plan: Plan, say: Say) -> dict[str, int]:
    """See that every row is there, that doors open and credentials too, and that checks hold."""
    say("counting rows, opening doors and stored credentials")
    rows = dump.counts()
    lost = [
        f"{rows.get(n, 0)} {n} of {count}"
        for n, count in plan.rows.items()
        if rows.get(n, 0) < count
    ]
    if lost:
        raise ProblemError(f"rows are missing: {', '.join(lost)}")
    for door, name in (("master", "master_key"), ("ui", "ui_password")):
        if not DOORS[door](settings, here.secret(name)):
            raise ProblemError(f"the {door} secret is refused")
    scratch.opened(settings, here.secret(SALT))
    checks = [
        each for each in every(settings) if each.component in _COMPONENTS and not each.thorough
    ]
    deadline = time.monotonic() + _SETTLE_SECONDS
    while True:
        found, _ = checking.look(checks)
        failing = [f"{each.name}: {each.found}" for each in found.checks if each.state == "failure"]
        if not failing:
            return rows
        if time.monotonic() > deadline:
            raise ProblemError(f"checks fail: {'; '.join(failing)}")
        time.sleep(_POLL_SECONDS)


def _value(path: Path) -> SecretStr | None:
    try:
        return SecretStr(path.read_text().strip())
    except FileNotFoundError:
        return None
    except OSError as error:
        raise CannotLookError(f"{path} cannot be read: {error.strerror}") from None


def _write(path: Path, content: bytes) -> None:
    """Write a file in one step, with the folder's group where others may read."""
    new = path.with_name(f".{path.name}.restored")
    new.unlink(missing_ok=True)
    mode = 0o640 if path == _DECLARED else 0o600
    handle = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, mode)
    with os.fdopen(handle, "wb") as file:
        os.fchown(handle, 0, path.parent.stat().st_gid)
        os.fchmod(handle, mode)
        file.write(content)
    new.replace(path)
