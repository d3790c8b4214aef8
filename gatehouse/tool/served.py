"""Which models the gateway offers, and who answers for each: the gateway, an engine, a cloud."""

import subprocess
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal
from urllib.parse import urlsplit

from gatehouse.engines.errors import EngineError
from gatehouse.engines.host import Host
from gatehouse.engines.state import AWAKE
from gatehouse.settings import Settings
from gatehouse.settings.models import Mode
from gatehouse.tool.engine_facts import engines
from gatehouse.tool.errors import ProblemError
from gatehouse.tool.here import Gateway

# Who answers: the gateway itself, an engine of this host, a server that the operator runs next to
# it, or a provider somewhere else, who may want money.
By = Literal["builtin", "engine", "server", "cloud"]
_HERE = {"host.docker.internal", "localhost"}


@dataclass(frozen=True)
class Served:
    """One model that clients can ask for; `context_tokens` is what LiteLLM was told."""

    name: str
    kind: Mode
    by: By
    engine: str | None
    backend: str
    context_tokens: int | None
    info: dict[str, Any]


def served(gateway: Gateway, found: Settings) -> dict[str, Served]:
    """Ask LiteLLM which models it has; those that were added in its web interface too.

    Raises what `Gateway.ask` raises.
    """
    known = {model.name: model for model in found.all_models}
    models: dict[str, Served] = {}
    for entry in gateway.get("/v1/model/info")["data"]:
        name, info = str(entry["model_name"]), dict(entry.get("model_info") or {})
        parameters = dict(entry.get("litellm_params") or {})
        model = known.get(name)
        engine = model.engine if model else None
        # An alias is told with the parameters of its model, under its own name.
        models[name] = Served(
            name=name,
            kind=_kind(info.get("mode")),
            by="engine" if engine else _by(parameters),
            engine=engine,
            backend=str(parameters.get("model") or (model.backend if model else "")),
            context_tokens=_number(info.get("max_input_tokens")),
            info=info,
        )
    aliases = set(found.models_aliases)
    return {name: model for name, model in models.items() if name not in aliases}


def awake(found: Settings) -> set[str]:
    """Give the engines that answer without being woken."""
    if not found.active_engines:
        return set()
    try:
        return {row["name"] for row in engines(Host()) if row["state"] == AWAKE}
    except EngineError as error:
        raise ProblemError(f"what the engines do cannot be told: {error}") from error


def wake(name: str) -> None:
    """Load an engine and wait until it answers; raises `ProblemError`."""
    host = Host()
    try:
        engine = host.config.engine(name)
        seconds = engine.load_seconds + engine.drain_seconds + 60
        subprocess.run(
            ["systemctl", "start", engine.service],
            check=True,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            timeout=seconds,
        )
        state = host.states.get(name)
    except (EngineError, OSError, subprocess.SubprocessError) as error:
        raise ProblemError(f"the engine {name} does not start: {error}") from error
    if state is None or state.state != AWAKE:
        reason = (state and state.reason) or f"see `gatehouse engine logs {name}`"
        raise ProblemError(f"the engine {name} does not answer: {reason}")


def at_hand(models: Iterable[Served], engines_awake: set[str]) -> list[Served]:
    """Give those that answer without waking anything and without costing money."""
    return [
        model
        for model in models
        if model.by in ("builtin", "server") or (model.engine and model.engine in engines_awake)
    ]


def _by(parameters: dict[str, Any]) -> By:
    if parameters.get("mock_response") is not None:
        return "builtin"
    host = urlsplit(str(parameters.get("api_base") or "")).hostname or ""
    return "server" if host in _HERE else "cloud"


def _kind(mode: object) -> Mode:
    """Read LiteLLM's mode; it knows more of them, and none where nobody said one."""
    return mode if mode in ("embedding", "rerank") else "chat"


def _number(value: object) -> int | None:
    return int(value) if isinstance(value, int | float) else None
