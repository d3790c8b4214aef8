"""New values for the host's own secrets: switched, proven, or put back.

The old value stays beside the new one as `NAME.old` until the new one is proven. So a rotation that
was killed, or a power cut, leaves what the next call needs to go back.
"""

import base64
import grp
import hashlib
import hmac
import os
import secrets
import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

from pydantic import SecretStr

from gatehouse.settings import Settings
from gatehouse.tool import stack
from gatehouse.tool.doors import DOORS
from gatehouse.tool.errors import CannotLookError, ProblemError
from gatehouse.tool.here import SECRETS
from gatehouse.tool.lock import alone

LOCK = Path("/run/gatehouse/secrets.lock")
_GROUP = "gatehouse-secrets"
_BYTES = 32
_ITERATIONS = 4096
_SERVICE_SECONDS = 120
_ENDINGS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

Say = Callable[[str], None]


@dataclass(frozen=True)
class Secret:
    """A secret that can be rotated: its file, how it begins, and who besides LiteLLM reads it."""

    file: str
    prefix: str = ""
    service: str | None = None


ROTATED = {
    "master": Secret("master_key", prefix="sk-"),
    "redis": Secret("redis_password", service="redis"),
    "postgres": Secret("postgres_password", service="postgres"),
    "ui": Secret("ui_password"),
}


class BrokenOffError(ProblemError):
    """It did not work, and the old values are in force again."""


def rotate(names: Sequence[str], settings: Settings, say: Say) -> None:
    """Give each secret a new value and prove that it is the only one that counts.

    `names` are keys of `ROTATED`. LiteLLM is stopped and started once, whatever is rotated.
    Raises `BrokenOffError` when the old values had to be put back, `CannotLookError` when nothing
    was begun, and `ProblemError` when not even the old ones could be.
    """
    with alone(LOCK, "rotation"):
        _put_back(settings, say)
        _presuppose(names, settings)
        try:
            with endings_raise():
                say("making new values")
                for name in names:
                    _stage(ROTATED[name])
                _switch(names, settings, say)
                _prove(names, settings, say)
        except BaseException as error:
            say("it did not work: putting the old values back")
            _put_back(settings, lambda _: None)
            if isinstance(error, KeyboardInterrupt | SystemExit):
                raise BrokenOffError("stopped; the old values are in force") from None
            reason = error.format_message() if isinstance(error, ProblemError) else str(error)
            raise BrokenOffError(f"the old values are in force again. {reason}") from error
        for name in names:
            _old(ROTATED[name]).unlink()


def recover(settings: Settings, say: Say) -> list[str]:
    """Put back what a rotation that was killed has left; gives the names of what it found."""
    with alone(LOCK, "rotation"):
        return _put_back(settings, say)


def unfinished() -> list[str]:
    """Give the secrets that a rotation left with two values."""
    return [name for name, each in ROTATED.items() if _old(each).exists()]


def write(path: Path, value: SecretStr) -> None:
    """Write a secret in one step, for root and the containers' group; `path` ends up with it."""
    new = path.with_name(f"{path.name}.new")
    new.unlink(missing_ok=True)
    handle = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o400)
    with os.fdopen(handle, "w") as file:
        os.fchown(handle, 0, grp.getgrnam(_GROUP).gr_gid)
        os.fchmod(handle, 0o440)
        file.write(value.get_secret_value())
        file.flush()
        os.fsync(handle)
    new.replace(path)


def verifier(value: SecretStr, salt: bytes) -> str:
    """Give what Postgres keeps of a password (RFC 5803), so that the password is not sent to it."""
    word = value.get_secret_value().encode()
    salted = hashlib.pbkdf2_hmac("sha256", word, salt, _ITERATIONS)
    client = hmac.digest(salted, b"Client Key", "sha256")
    server = hmac.digest(salted, b"Server Key", "sha256")
    parts = (base64.b64encode(each).decode() for each in (salt, _sha256(client), server))
    shown_salt, stored, server_key = parts
    return f"SCRAM-SHA-256${_ITERATIONS}:{shown_salt}${stored}:{server_key}"


def _sha256(data: bytes) -> bytes:
    return hashlib.sha256(data).digest()


def _path(secret: Secret) -> Path:
    return SECRETS / secret.file


def _old(secret: Secret) -> Path:
    return SECRETS / f"{secret.file}.old"


def _read(path: Path) -> SecretStr:
    try:
        return SecretStr(path.read_text())
    except FileNotFoundError:
        raise CannotLookError(
            f"{path} is missing: deploy again: pyinfra inventory deploy.py"
        ) from None


def _presuppose(names: Sequence[str], settings: Settings) -> None:
    """Refuse to begin on a gateway that does not work: nobody could say what broke it."""
    for service in ("postgres", "redis", "litellm"):
        if (seen := stack.health(service)) != "healthy":
            raise CannotLookError(f"{service} is {seen}, nothing was touched: gatehouse doctor")
    for name in names:
        if not DOORS[name](settings, _read(_path(ROTATED[name]))):
            raise CannotLookError(
                f"the present {name} secret does not work, nothing was touched: deploy again "
                "(pyinfra inventory deploy.py)"
            )


def _stage(secret: Secret) -> None:
    old = _read(_path(secret))
    write(_old(secret), old)
    write(_path(secret), SecretStr(secret.prefix + secrets.token_hex(_BYTES)))


def _switch(names: Sequence[str], settings: Settings, say: Say) -> None:
    """Have everybody who reads one of them read it anew; LiteLLM goes first and comes last."""
    say("stopping litellm: open answers are finished first")
    stack.docker("stop", stack.container("litellm"))
    for name in names:
        if service := ROTATED[name].service:
            say(f"restarting {service}")
            if name == "postgres":
                _alter(_read(_path(ROTATED[name])))
            stack.docker("restart", stack.container(service))
            stack.wait_healthy(service, _SERVICE_SECONDS)
    say("starting litellm")
    stack.docker("start", stack.container("litellm"))
    stack.wait_healthy("litellm", settings.litellm_start_timeout_seconds)


def _alter(value: SecretStr) -> None:
    """Give the database's user its password, through the socket inside the container."""
    stack.wait_healthy("postgres", _SERVICE_SECONDS)
    statement = f"ALTER ROLE litellm PASSWORD '{verifier(value, os.urandom(16))}'"
    stack.docker(
        *("exec", "-i", stack.container("postgres")),
        *("psql", "-X", "-q", "-v", "ON_ERROR_STOP=1", "-U", "litellm", "-d", "litellm"),
        text=statement,
    )


def _prove(names: Sequence[str], settings: Settings, say: Say) -> None:
    for name in names:
        secret, opens = ROTATED[name], DOORS[name]
        if not opens(settings, _read(_path(secret))):
            raise ProblemError(f"the new {name} secret is refused")
        if opens(settings, _read(_old(secret))):
            raise ProblemError(f"the old {name} secret is still accepted")
        say(f"{name}: the new one is accepted, the old one refused")


def _put_back(settings: Settings, say: Say) -> list[str]:
    """Put every old value back that is still there; gives the names of the secrets.

    It can itself be killed at any point and begun again.
    """
    names = unfinished()
    if not names:
        return []
    say("an earlier rotation was broken off: putting the old values back")
    with endings_ignored():
        for name in names:
            write(_path(ROTATED[name]), _read(_old(ROTATED[name])))
        for service in {ROTATED[name].service for name in names} - {None}:
            assert service  # noqa: S101 - None was taken out
            stack.docker("start", stack.container(service))
        _switch(names, settings, say)
        for name in names:
            if not DOORS[name](settings, _read(_path(ROTATED[name]))):
                raise ProblemError(f"the old {name} secret is refused, too: gatehouse doctor")
        for name in names:
            _old(ROTATED[name]).unlink()
    return names


@contextmanager
def endings_raise() -> Iterator[None]:
    """Turn a cut connection or a `kill` into an exception, so that the old values come back."""

    def stop(number: int, _frame: FrameType | None) -> None:
        raise SystemExit(128 + number)

    before = {each: signal.signal(each, stop) for each in _ENDINGS}
    try:
        yield
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)


@contextmanager
def endings_ignored() -> Iterator[None]:
    """Finish what puts an old state back, whoever wants it ended."""
    before = {each: signal.signal(each, signal.SIG_IGN) for each in _ENDINGS}
    try:
        yield
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)
