"""Who is let in with a secret: asked at the door itself, with nothing in a command line.

Each function tells whether this value opens it now, and raises `CannotLookError` when nobody
answers.
"""

import socket
from collections.abc import Callable

from pydantic import SecretStr

from gatehouse.settings import Settings
from gatehouse.tool import stack
from gatehouse.tool.errors import CannotLookError, ProblemError
from gatehouse.tool.here import Gateway

_SECONDS = 5.0
_OK = 200
_REFUSED = (400, 401, 403)
# The password arrives on standard input. Loopback inside the container needs none (initdb's
# default), so it is asked at the container's own address.
_LOGIN = """IFS= read -r PGPASSWORD; export PGPASSWORD
exec psql -X -h "$(hostname -i | cut -d ' ' -f 1)" -U litellm -d litellm -Atc 'select 1' 2>&1"""


def master(settings: Settings, value: SecretStr) -> bool:
    """Tell whether it is the gateway's master key."""
    return _http(Gateway(settings, value), "GET", "/health/readiness/details", "/v1/models")


def ui(settings: Settings, value: SecretStr) -> bool:
    """Tell whether the web interface lets the admin in with it."""
    body = {"username": settings.litellm_admin_user, "password": value.get_secret_value()}
    return _http(Gateway(settings), "POST", "/v2/login", json=body)


def redis(settings: Settings, value: SecretStr) -> bool:
    """Tell whether it is Redis' password."""
    word = value.get_secret_value().encode()
    message = b"*3\r\n$4\r\nAUTH\r\n$7\r\ndefault\r\n$%d\r\n%s\r\n" % (len(word), word)
    try:
        with socket.create_connection(
            (_address(settings), settings.redis_port), _SECONDS
        ) as connection:
            connection.sendall(message)
            answer = connection.recv(256)
    except OSError as error:
        raise CannotLookError(f"Redis does not answer: {error}") from None
    if not answer.startswith((b"+OK", b"-WRONGPASS")):
        raise CannotLookError(f"Redis answered {answer.decode(errors='replace').strip()!r}")
    return answer.startswith(b"+OK")


def postgres(settings: Settings, value: SecretStr) -> bool:  # noqa: ARG001 - every door's signature
    """Tell whether it is the database's password."""
    arguments = ["exec", "-i", stack.container("postgres"), "sh", "-c", _LOGIN]
    try:
        return stack.docker(*arguments, text=f"{value.get_secret_value()}\n").strip() == "1"
    except ProblemError as error:
        if "password authentication failed" in error.message:
            return False
        raise CannotLookError(f"the database does not answer: {error.message}") from None


DOORS: dict[str, Callable[[Settings, SecretStr], bool]] = {
    "master": master,
    "redis": redis,
    "postgres": postgres,
    "ui": ui,
}


def _address(settings: Settings) -> str:
    address = settings.network_bind_address
    return "127.0.0.1" if address.is_unspecified else str(address)


def _http(gateway: Gateway, method: str, *paths: str, **options: object) -> bool:
    path = paths[-1]
    status = gateway.raw(method, path, **options).status_code
    if status != _OK and status not in _REFUSED:
        raise CannotLookError(f"the gateway answered {status} to {path}: gatehouse doctor")
    return status == _OK
