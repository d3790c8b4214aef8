"""What a restore leaves that was killed, or cut off with the power: the state from before serves.

A unit waits beside each restore for the lock of this host: the kernel takes it from whoever dies.
"""

import json
import math
import os
import subprocess
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

import click
from pydantic import SecretStr

from gatehouse import audit
from gatehouse.settings import Settings
from gatehouse.tool import dump, here, lock, rotation, stack
from gatehouse.tool.errors import CannotLookError, ProblemError

# While a restore is at work: the secrets that it replaces, path → value from before and its own.
UNFINISHED = here.SECRETS / ".restore"
UNIT = "gatehouse-restore-back"
ACTION = "way back of a restore"
RECOVER = "sudo gatehouse restore --recover"
_START_SECONDS = 300
# So often it is tried in one go, by the unit and at a boot; the unit is started again for a while.
_ATTEMPTS = 3
_AGAIN_SECONDS = 20.0
_RESTARTS = (
    *("--property=Restart=on-failure", "--property=RestartSec=60"),
    *("--property=StartLimitBurst=3", "--property=StartLimitIntervalSec=86400"),
)
_FLUSH = 'REDISCLI_AUTH="$(cat /run/secrets/redis_password)" redis-cli --no-auth-warning flushall'


def begin(changes: Mapping[Path, tuple[SecretStr | None, SecretStr]]) -> None:
    """Write down how to go back, and have somebody wait who does; the caller has the lock.

    `changes`: the secrets that are replaced, path → value from before and the restore's own.
    """
    values = {
        str(path): [old and old.get_secret_value(), new.get_secret_value()]
        for path, (old, new) in changes.items()
    }
    rotation.write(UNFINISHED, SecretStr(json.dumps(values)))
    # Where it cannot be started, the next boot still looks, and a check fails.
    words = ["systemd-run", "--quiet", "--collect", *_RESTARTS, f"--unit={UNIT}"]
    subprocess.run([*words, sys.executable, "-I", "-m", __name__], capture_output=True, check=False)


def end() -> None:
    """Forget how to go back: it is done, one way or the other."""
    UNFINISHED.unlink(missing_ok=True)


def refuse() -> None:
    """Raise `CannotLookError` where an earlier restore is unfinished; the caller has the lock."""
    if UNFINISHED.exists():
        raise CannotLookError(
            "a restore was broken off, and the state from before it does not serve again, nothing "
            f"was touched: {RECOVER}"
        )


def put_back(settings: Settings, *, aside: bool) -> str | None:
    """Have the state from before a restore serve again; raises `ProblemError`.

    The caller has the lock. Where no restore is unfinished, nothing is touched. `aside`: since then
    somebody may have used what the restore put in force; that database stays, under the name that
    is given back, and so do secrets that are newer than the restore.
    """
    if not UNFINISHED.exists():
        return None
    with rotation.endings_ignored():
        stack.stop("litellm")
        _wait_for_stores(settings)
        kept = dump.put_back(aside=aside)
        dump.drop(f"litellm{dump.LOADING}")
        for name, (old, new) in json.loads(UNFINISHED.read_text()).items():
            _secret_back(Path(name), old, new)
        try:
            serve(settings)
        except ProblemError:
            # Docker 26 loses count of a port when a container is stopped that it is starting after
            # a boot: no start works any more until the daemon is another one.
            subprocess.run(["systemctl", "restart", "docker"], check=False, capture_output=True)
            _wait_for_stores(settings)
            serve(settings)
        end()
    return kept


def _secret_back(path: Path, old: str | None, new: str) -> None:
    """Put a secret back, unless its value is none of the restore's."""
    if not path.exists() or path.read_text().strip() != new:
        return
    if old is None:
        path.unlink()
    else:
        rotation.write(path, SecretStr(old))


def _wait_for_stores(settings: Settings) -> None:
    """Wait for Postgres and Redis: after a boot they may still be starting, as everything is."""
    for service, seconds in (
        ("postgres", settings.postgres_start_timeout_seconds),
        ("redis", settings.redis_start_timeout_seconds),
    ):
        stack.wait_healthy(service, max(_START_SECONDS, seconds))


def serve(settings: Settings) -> None:
    """Forget what was cached of another time, and have LiteLLM serve; raises `ProblemError`."""
    stack.docker("exec", stack.container("redis"), "sh", "-c", _FLUSH)
    stack.docker("start", stack.container("litellm"))
    stack.wait_healthy("litellm", settings.litellm_start_timeout_seconds)


def main() -> None:
    """Wait until no restore is at work, and go back from one that did not end."""
    for attempt in range(_ATTEMPTS):
        if attempt:
            time.sleep(_AGAIN_SECONDS)
        with lock.held(ACTION, patience_seconds=math.inf):
            if not UNFINISHED.exists():
                return
            try:
                kept = put_back(here.settings(), aside=True)
            except (click.ClickException, OSError) as error:
                words = error.message if isinstance(error, click.ClickException) else str(error)
                click.echo(f"the way back failed: {words}", err=True)
            else:
                _record("ok", aside=kept)
                return
    _record("failed")
    sys.exit(f"the way back failed {_ATTEMPTS} times: {RECOVER}")


def _record(outcome: audit.Outcome, **details: str | None) -> None:
    # A disk that is full is no reason to leave the gateway down.
    with suppress(OSError):
        audit.record("way back", outcome, reason="a restore was broken off", **details)


if __name__ == "__main__":
    os.umask(0o077)
    main()
