"""What a saved database is tried with: a server to throw away, and the saved salt key.

Neither has a network, and neither outlives its time, even when who started it was killed.
"""

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from pydantic import SecretStr

from gatehouse.settings import Settings
from gatehouse.tool import dump, stack
from gatehouse.tool.errors import ProblemError

# Its container is named as if it were a service of the stack, which it is not.
SERVER = "drill"
_MOST_SECONDS = 12 * 3600
_START_SECONDS = 120
_POLL_SECONDS = 0.5
_LOCKED_IN = (
    *("--network", "none", "--read-only", "--cap-drop", "ALL", "--init"),
    *("--security-opt", "no-new-privileges:true", "--pids-limit", "200"),
)
# LiteLLM's way (proxy/common_utils/encrypt_decrypt_utils.py): the key is the salt key's SHA-256;
# what has a mark is AES-GCM, all else a SecretBox of NaCl.
_OPEN = """
import base64, hashlib, json, sys
given = json.load(sys.stdin)
key = hashlib.sha256(given["salt"].encode()).digest()
opened = 0
for value in given["values"]:
    try:
        if value.startswith("v2:gcm:"):
            from cryptography.hazmat.primitives.ciphers.aead import AESGCM
            sealed = base64.urlsafe_b64decode(value[7:])
            AESGCM(key).decrypt(sealed[:12], sealed[12:], None)
        else:
            from nacl.secret import SecretBox
            SecretBox(key).decrypt(base64.urlsafe_b64decode(value))
        opened += 1
    except Exception:
        pass
print(opened)
"""
_STORED = """
SELECT coalesce(json_agg(value), '[]') FROM (
    SELECT each.value FROM "LiteLLM_CredentialsTable",
        LATERAL jsonb_each_text(credential_values::jsonb) AS each WHERE each.value <> ''
    UNION ALL
    SELECT litellm_params ->> 'api_key' FROM "LiteLLM_ProxyModelTable"
        WHERE litellm_params ->> 'api_key' <> ''
) AS stored"""


@contextmanager
def server(settings: Settings) -> Iterator[str]:
    """Give a database server of the gateway's own image, by what `dump` calls it.

    Raises `ProblemError` when it does not start.
    """
    name = stack.container(SERVER)
    remove()
    try:
        stack.docker(
            *("run", "--detach", "--rm", "--name", name, *_LOCKED_IN),
            *("--user", settings.postgres_user, "--shm-size", "256m"),
            *("--memory", f"{settings.postgres_memory_mib}m", "--log-driver", "local"),
            *("--tmpfs", "/var/run/postgresql:mode=1777,size=1m,noexec,nosuid,nodev"),
            *("--tmpfs", "/tmp:mode=1777,size=64m,noexec,nosuid,nodev"),  # noqa: S108 - in there
            # Nobody reaches it but through its socket, from inside.
            *("--env", "POSTGRES_HOST_AUTH_METHOD=trust", "--env", "POSTGRES_USER=litellm"),
            *("--entrypoint", "timeout", _image("postgres")),
            *(str(_MOST_SECONDS), "docker-entrypoint.sh", "postgres"),
        )
        _wait(name)
        yield SERVER
    finally:
        remove()


def remove() -> None:
    """Remove the server with its data, where there is one."""
    with suppress(ProblemError):
        stack.docker("rm", "--force", "--volumes", stack.container(SERVER))


def opened(
    settings: Settings, salt: SecretStr, database: str = "litellm", *, server: str = "postgres"
) -> int:
    """Give how many stored credentials the salt key opens; `ProblemError` where it does not.

    It is done in LiteLLM's image; the salt key goes there on standard input.
    """
    values = json.loads(dump.ask(_STORED, database, server=server))
    if not values:
        return 0
    said = stack.docker(
        *("run", "--rm", "--interactive", *_LOCKED_IN, "--memory", "512m"),
        *("--user", settings.litellm_user, "--entrypoint", "python3", _image("litellm")),
        *("-c", _OPEN),
        text=json.dumps({"salt": salt.get_secret_value(), "values": values}),
    )
    if int(said) != len(values):
        raise ProblemError(
            f"{len(values) - int(said)} of {len(values)} stored credentials are not opened by the "
            "salt key: they were stored with another one"
        )
    return len(values)


def _image(service: str) -> str:
    """Give the image that a service runs, by its id: it is on the host."""
    return stack.docker("inspect", "-f", "{{.Image}}", stack.container(service)).strip()


def _wait(name: str) -> None:
    deadline = time.monotonic() + _START_SECONDS
    while True:
        try:
            # Over TCP: while it is being made, the server listens on its socket only.
            stack.docker("exec", name, "pg_isready", "-q", "-h", "127.0.0.1", "-U", "litellm")
        except ProblemError as error:
            if time.monotonic() > deadline:
                raise ProblemError(f"the scratch database does not start: {error}") from None
            time.sleep(_POLL_SECONDS)
        else:
            return
