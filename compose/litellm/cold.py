"""Loading is not down: what a caller gets while the engine behind a model wakes up.

LiteLLM loads `guard` from the folder of its configuration. The host keeps a file NAME.awake for
each engine that serves, and NAME.json with more; reading them is all that this does on the way.
"""

import asyncio
import json
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from litellm.integrations.custom_logger import CustomLogger

CONFIGURATION = Path("/etc/gatehouse/engines.json")
STATES = Path("/run/gatehouse/engines")
HOST = "host.docker.internal"
KNOCK_SECONDS = 1.0
# Kept with the request: which engine was asked for, and whether it slept then.
NOTE = "gatehouse_engine"
RAISED = "gatehouse_timeout"
HEALTH_CHECK = "litellm-internal-health-check"


class AsleepError(Exception):
    """A health check came to an engine that sleeps."""

    status_code = 503


@dataclass(frozen=True)
class Engine:
    """The engine behind a model, and what its callers get while it sleeps."""

    engine: str
    port: int
    on_cold: str
    wait_seconds: float
    fallback: str | None


class ColdGuard(CustomLogger):
    """Answers from the fallback while an engine loads, or gives it the time that it needs."""

    def __init__(self, models: dict[str, Engine], states: Path = STATES) -> None:
        """Hold the engines by the names of their models, and where their states are."""
        super().__init__()
        self._models = models
        self._by_port = {each.port: each for each in models.values()}
        self._states = states

    async def async_pre_call_hook(
        self,
        user_api_key_dict: object,  # noqa: ARG002 - LiteLLM's signature
        cache: object,  # noqa: ARG002
        data: dict[str, Any],
        call_type: str,  # noqa: ARG002
    ) -> dict[str, Any] | None:
        """Look at what the client asked for, before a server is chosen."""
        asked = data.get("model")
        engine = self._models.get(asked) if isinstance(asked, str) else None
        if engine is None:
            return None
        note = {"model": asked, "name": engine.engine, "found": "awake"}
        metadata(data)[NOTE] = note
        if self._awake(engine):
            return None
        note["found"] = "asleep"
        if engine.on_cold == "fallback" and await _may_use(engine.fallback, data):
            note["found"] = "fallback"
            await knock(engine, self._states)
            data["model"] = engine.fallback
        return data

    async def async_pre_call_deployment_hook(
        self,
        kwargs: dict[str, Any],
        call_type: Any,
    ) -> dict[str, Any] | None:
        """Look at the request on its way to one server, after routing and after each fallback."""
        engine = self._behind(kwargs.get("api_base"))
        if engine is None:
            return None
        known = metadata(kwargs)
        awake = self._awake(engine)
        if HEALTH_CHECK in (known.get("tags") or ()):
            if not awake:
                raise AsleepError(f"{engine.engine} is asleep; a health check does not wake it")
            # Nor does it keep it awake: the host has seen that it answers.
            kind = getattr(call_type, "value", call_type)
            answer = {"acompletion": "awake", "aembedding": [0.0]}.get(kind)
            return {**kwargs, "mock_response": answer} if answer else None
        if awake:
            return None
        timeout = kwargs.get("timeout")
        # The Messages API comes by twice, the second time with what the first time gave.
        if not isinstance(timeout, int | float) or known.get(RAISED) == timeout:
            return None
        known[RAISED] = timeout + engine.wait_seconds
        return {**kwargs, "timeout": known[RAISED]}

    async def async_post_call_response_headers_hook(
        self,
        data: dict[str, Any],
        user_api_key_dict: object,  # noqa: ARG002 - LiteLLM's signature
        response: object,
        request_headers: object = None,  # noqa: ARG002
        litellm_call_info: object = None,  # noqa: ARG002
    ) -> dict[str, str] | None:
        """Tell the client in headers what became of the engine that it asked for."""
        if response is None:
            return None
        return self._headers(metadata(data), fell_back=_fell_back(response))

    async def async_post_call_success_deployment_hook(
        self, request_data: dict[str, Any], response: Any, call_type: object
    ) -> None:
        """Tell it for rankings too, for which LiteLLM (1.108.7) does not ask the hook above.

        It takes these for the server's own: `llm_provider-` comes before their names.
        """
        if getattr(call_type, "value", call_type) != "arerank":
            return
        fell_back = bool(request_data.get("fallback_depth"))
        headers = self._headers(metadata(request_data), fell_back=fell_back)
        hidden = getattr(response, "_hidden_params", None)
        if headers and isinstance(hidden, dict):
            hidden["additional_headers"] = {**(hidden.get("additional_headers") or {}), **headers}

    def _headers(self, known: dict[str, Any], *, fell_back: bool) -> dict[str, str] | None:
        note = known.get(NOTE)
        if not isinstance(note, dict):
            return None
        headers = {"x-gatehouse-model": str(note["model"])}
        if note["found"] == "fallback" or fell_back:
            headers["x-gatehouse-engine"] = "fallback"
        elif (self._states / f"{note['name']}.awake").exists():
            headers["x-gatehouse-engine"] = "awake" if note["found"] == "awake" else "woken"
        return headers

    def _awake(self, engine: Engine) -> bool:
        return (self._states / f"{engine.engine}.awake").exists()

    def _behind(self, api_base: object) -> Engine | None:
        """Give the engine at an address: known by its port, whatever the request is called."""
        if not isinstance(api_base, str):
            return None
        with suppress(ValueError):
            address = urlsplit(api_base)
            return self._by_port.get(address.port or 0) if address.hostname == HOST else None
        return None


async def knock(engine: Engine, states: Path) -> None:
    """Have the engine loaded for the next request: one connection to its port starts it."""
    with suppress(OSError, ValueError, KeyError, TypeError):
        if json.loads((states / f"{engine.engine}.json").read_text())["state"] == "loading":
            return
    with suppress(OSError, TimeoutError):
        async with asyncio.timeout(KNOCK_SECONDS):
            _, writer = await asyncio.open_connection(HOST, engine.port)
            # It stays in the socket's queue although it is closed.
            writer.close()


def _fell_back(response: object) -> bool:
    """Tell whether LiteLLM's router took the answer from a fallback."""
    hidden = getattr(response, "_hidden_params", None)
    if hidden is None and isinstance(response, dict):
        hidden = response.get("_hidden_params")
    headers = hidden.get("additional_headers") if isinstance(hidden, dict) else None
    return bool(headers and int(headers.get("x-litellm-attempted-fallbacks") or 0))


async def _may_use(fallback: str | None, data: dict[str, Any]) -> bool:
    """Ask LiteLLM's router what it asks before each fallback: the key's models and its budget."""
    if fallback is None:
        return False
    # Set by the proxy after it has loaded this file.
    from litellm.proxy.proxy_server import llm_router  # noqa: PLC0415

    for name in ("fallback_access_check", "fallback_budget_check"):
        check = getattr(llm_router, name, None)
        if check and not await check(model=fallback, request_kwargs=data, llm_router=llm_router):
            return False
    return True


def metadata(data: dict[str, Any]) -> dict[str, Any]:
    """Give what LiteLLM keeps with a request; where it does depends on the API."""
    key = "litellm_metadata" if isinstance(data.get("litellm_metadata"), dict) else "metadata"
    if not isinstance(data.get(key), dict):
        data[key] = {}
    found: dict[str, Any] = data[key]
    return found


def configured(path: Path = CONFIGURATION) -> dict[str, Engine]:
    """Read the engines by the names of their models."""
    if not path.exists():
        return {}
    return {name: Engine(**each) for name, each in json.loads(path.read_text())["models"].items()}


guard = ColdGuard(configured())
