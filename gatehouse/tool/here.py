"""The gateway of this host, for commands: its settings, its address, its master key."""

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click
import httpx
from pydantic import SecretStr

from gatehouse.settings import Invalid, Settings, validate
from gatehouse.tool.errors import CannotLookError, ProblemError

SETTINGS = Path("/etc/gatehouse/settings.json")
SECRETS = Path("/etc/gatehouse/secrets")
_SECONDS = 30.0
_BAD = 400


def settings() -> Settings:
    """Read what this host was deployed with; raises `CannotLookError`."""
    try:
        return validate(json.loads(SETTINGS.read_text()))
    except FileNotFoundError:
        raise CannotLookError(
            f"{SETTINGS} is missing: this host is no gateway yet (pyinfra inventory deploy.py), or "
            "you mean another one (gatehouse --host NAME …)"
        ) from None
    except PermissionError:
        raise CannotLookError(
            f"{SETTINGS} may be read by root and the group gatehouse only: use sudo"
        ) from None
    except (Invalid, ValueError) as error:
        raise CannotLookError(
            f"{SETTINGS} is of another version of Gatehouse, deploy again (pyinfra inventory "
            f"deploy.py):\n{error}"
        ) from None


def be_root(command: str) -> None:
    """Refuse where the caller is not root; `command` is what to put behind sudo."""
    if os.geteuid():
        raise CannotLookError(f"only root may do this: sudo gatehouse {command}")


def secret(name: str) -> SecretStr:
    """Read a secret of the host; raises `CannotLookError`."""
    try:
        return SecretStr((SECRETS / name).read_text().strip())
    except PermissionError:
        raise CannotLookError(f"the secret {name} may be read by root only: use sudo") from None
    except FileNotFoundError:
        raise CannotLookError(
            f"{SECRETS / name} is missing: deploy again: pyinfra inventory deploy.py"
        ) from None


class Gateway:
    """LiteLLM's API, asked with the master key or with the key that is given."""

    def __init__(self, found: Settings, key: SecretStr | None = None) -> None:
        """Hold the address; opens no connection yet."""
        address = found.network_bind_address
        host = "127.0.0.1" if address.is_unspecified else str(address)
        self.url = f"http://{host}:{found.litellm_port}"
        key = key or secret("master_key")
        self._client = httpx.Client(
            base_url=self.url,
            headers={"Authorization": f"Bearer {key.get_secret_value()}"},
            timeout=_SECONDS,
            # A proxy of the environment has no business between the host and itself.
            trust_env=False,
        )

    def get(self, path: str, **parameters: Any) -> Any:  # noqa: ANN401 - what LiteLLM answers
        """Ask; `parameters` without those that are None. Raises as `ask` does."""
        given = {name: value for name, value in parameters.items() if value is not None}
        return self.ask("GET", path, params=given)

    def post(self, path: str, body: dict[str, Any]) -> Any:  # noqa: ANN401 - the same
        """Tell; raises as `ask` does."""
        return self.ask("POST", path, json=body)

    def ask(self, method: str, path: str, **options: Any) -> Any:  # noqa: ANN401 - the same
        """Give the answer's JSON.

        Raises `CannotLookError` when nobody answers, `ProblemError` with LiteLLM's own words when
        it refuses; `ProblemError.status` is then its status.
        """
        answer = self.raw(method, path, **options)
        if answer.status_code >= _BAD:
            raise GatewayError(path, answer.status_code, words(answer))
        return answer.json()

    def raw(self, method: str, path: str, **options: Any) -> httpx.Response:  # noqa: ANN401 - httpx's
        """Give the answer, whatever its status; raises `CannotLookError` when nobody answers."""
        with self._reached(path):
            return self._client.request(method, path, **options)

    @contextmanager
    def stream(self, path: str, body: dict[str, Any], **options: Any) -> Iterator[httpx.Response]:  # noqa: ANN401 - httpx's
        """Give an answer while it arrives, whatever its status; raises as `raw` does."""
        with self._reached(path), self._client.stream("POST", path, json=body, **options) as answer:
            yield answer

    @contextmanager
    def _reached(self, path: str) -> Iterator[None]:
        try:
            yield
        except httpx.TimeoutException:
            raise CannotLookError(
                f"the gateway at {self.url} does not answer {path} in time: gatehouse doctor"
            ) from None
        except httpx.TransportError as error:
            raise CannotLookError(
                f"the gateway at {self.url} cannot be reached ({error}): gatehouse doctor"
            ) from None


class GatewayError(ProblemError):
    """LiteLLM refused; `status` is the HTTP status that it gave."""

    def __init__(self, path: str, status: int, words: str) -> None:
        """Say what was asked and what it said."""
        super().__init__(f"LiteLLM answered {status} to {path}: {words}")
        self.status = status


def words(answer: httpx.Response) -> str:
    """Give what LiteLLM says is wrong, in one line."""
    try:
        body = answer.json()
    except ValueError:
        return answer.text[:300]
    found = body.get("error", body.get("detail", body)) if isinstance(body, dict) else body
    if isinstance(found, dict):
        found = found.get("message", found.get("error", found))
    return " ".join(str(found).split())[:500]


def confirm(question: str, *, yes: bool) -> None:
    """Ask before a change; without a terminal `--yes` must have been given."""
    if yes:
        return
    if not os.isatty(0):
        raise CannotLookError(f"{question} Nobody can be asked here: say --yes")
    if not click.confirm(question, err=True):
        raise ProblemError("nothing was changed")
