"""What a restore leaves that was killed, or cut off with the power: the state from before serves.

A unit waits beside each restore for the lock of this host: the kernel takes it from whoever dies.
"""

import json
import math
import os
import subprocess
import sys
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

import click
from pydantic import SecretStr

from gatehouse import audit
from gatehouse.settings import Settings
from gatehouse.tool import dump, here, lock, rotation, stack
from gatehouse.tool.errors import ProblemError

# While a restore is at work: the secrets that it replaces, path → value from before.
UNFINISHED = here.SECRETS / ".restore"
UNIT = "gatehouse-restore-back"
_START_SECONDS = 300
_FLUSH = 'REDISCLI_AUTH="$(cat /run/secrets/redis_password)" redis-cli --no-auth-warning flushall'


def begin(old: Mapping[Path, SecretStr | None]) -> None:
    """Write down how to go back, and have somebody wait who does; the caller has the lock."""
    values = {str(path): value and value.get_secret_value() for path, value in old.items()}
    rotation.write(UNFINISHED, SecretStr(json.dumps(values)))
    # Where it cannot be started, the next boot and the next restore still look.
    words = ["systemd-run", "--quiet", "--collect", f"--unit={UNIT}"]
    subprocess.run([*words, sys.executable, "-I", "-m", __name__], capture_output=True, check=False)


def end() -> None:
    """Forget how to go back: it is done, one way or the other."""
    UNFINISHED.unlink(missing_ok=True)


def put_back(settings: Settings) -> None:
    """Have the state from before a restore serve again; raises `ProblemError`.

    The caller has the lock. Where no restore is unfinished, nothing is touched.
    """
    if not UNFINISHED.exists():
        return
    with rotation.endings_ignored():
        stack.docker("stop", stack.container("litellm"))
        _wait_for_stores(settings)
        dump.put_back()
        dump.drop(f"litellm{dump.LOADING}")
        for name, value in json.loads(UNFINISHED.read_text()).items():
            if value is None:
                Path(name).unlink(missing_ok=True)
            else:
                rotation.write(Path(name), SecretStr(value))
        try:
            serve(settings)
        except ProblemError:
            # Docker 26 loses count of a port when a container is stopped that it is starting after
            # a boot: no start works any more until the daemon is another one.
            subprocess.run(["systemctl", "restart", "docker"], check=False, capture_output=True)
            _wait_for_stores(settings)
            serve(settings)
        end()


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
    with lock.held("way back of a restore", patience_seconds=math.inf):
        if not UNFINISHED.exists():
            return
        reason = "a restore was broken off"
        try:
            put_back(here.settings())
        except click.ClickException as error:
            with suppress(OSError):
                audit.record("way back", "failed", reason=reason)
            sys.exit(error.message)
        with suppress(OSError):
            audit.record("way back", "ok", reason=reason)


if __name__ == "__main__":
    os.umask(0o077)
    main()
