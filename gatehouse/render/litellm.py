"""The proxy's configuration."""

from collections.abc import Mapping
from typing import Any

from gatehouse.render import mcp
from gatehouse.render.callbacks import CALLBACKS
from gatehouse.render.machine import Machine
from gatehouse.render.template import template
from gatehouse.settings import Engine, Model, Settings
from gatehouse.settings.models import offered, resolved

_HEADERS = {"chat": "extra_headers", "embedding": "extra_headers", "rerank": "headers"}


def config(settings: Settings, machine: Machine) -> str:
    """Give LiteLLM's config.yaml; secrets appear in it as references to the environment only."""
    workers = machine.workers(settings)
    names = offered(settings.all_models, settings.models_enable, machine.provider_keys)
    aliases = resolved(settings.models_aliases, names)
    in_file = [model for model in names.values() if _in_file(settings, model)]
    return template(
        "litellm/config.yaml",
        settings=settings,
        workers=workers,
        pool_per_worker=max(1, settings.litellm_pool_connections // workers),
        model_list=[entry(model, _engines(settings)) for model in in_file],
        aliases=aliases,
        fallbacks=_fallbacks(settings.models_fallbacks, names, aliases),
        context_fallbacks=_fallbacks(settings.models_context_fallbacks, names, aliases),
        retry_policies=_retry_policies(names, aliases),
        callbacks=[
            *(f"{name}.guard" for name in CALLBACKS),
            "dynamic_rate_limiter_v3",
            *(["prometheus"] if settings.metrics_litellm else []),
        ],
        mcp_servers=mcp.servers(settings, machine.provider_keys),
    )


def seed(settings: Settings, machine: Machine) -> list[dict[str, Any]]:
    """Give the models that a deploy adds to the database, where the database is the truth."""
    names = offered(settings.all_models, settings.models_enable, machine.provider_keys)
    engines = _engines(settings)
    return [entry(model, engines) for model in names.values() if not _in_file(settings, model)]


def _engines(settings: Settings) -> dict[str, Engine]:
    return {engine.name: engine for engine in settings.all_engines}


def _engine_base(engine: Engine, model: Model) -> str:
    """Give the address of an engine as LiteLLM wants it: what it adds depends on the provider."""
    base = f"http://host.docker.internal:{engine.port}"
    # Rerankers of this provider get /rerank added, and Ollama its own paths.
    plain = model.kind == "rerank" or engine.kind == "ollama"
    return base if plain else f"{base}/v1"


def _in_file(settings: Settings, model: Model) -> bool:
    """Tell whether it stays in the file: self-tests do not depend on who edits the database."""
    return settings.litellm_config_source == "file" or model.mock_response is not None


def entry(model: Model, engines: Mapping[str, Engine]) -> dict[str, Any]:
    """Give one entry of LiteLLM's model_list; `engines` are the host's, by name."""
    engine = engines.get(model.engine or "")
    params = {
        "model": model.backend,
        "api_base": _engine_base(engine, model) if engine else model.api_base,
        "api_key": f"os.environ/{model.api_key}" if model.api_key else "none",
        "timeout": model.timeout_seconds,
        # LiteLLM gives streams the general timeout where this is not said too.
        "stream_timeout": model.timeout_seconds,
        "rpm": model.rpm,
        "max_retries": model.retries,
        "num_retries": model.retries,
        "max_tokens": model.max_tokens if model.kind == "chat" else None,
        "keep_alive": model.keep_alive,
        "keepalive_seconds": model.comment_seconds,
        "mock_response": model.mock_response,
        # A connection for each request: an idle one would keep the engine awake.
        # Rerankers read `headers`, all others `extra_headers`.
        **({_HEADERS[model.kind]: {"Connection": "close"}} if engine else {}),
    }
    info = {
        "mode": model.kind,
        # Without these LiteLLM looks the model up in its price list at each pre-call check and
        # logs an error for a local one.
        "max_tokens": model.max_tokens or model.context_tokens,
        "max_input_tokens": model.context_tokens,
        "max_output_tokens": model.max_tokens,
        "supports_function_calling": model.tools or None,
        "supports_vision": model.vision or None,
    }
    return {
        "model_name": model.name,
        "litellm_params": _without_none(params),
        "model_info": _without_none(info),
    }


def _retry_policies(names: dict[str, Model], aliases: dict[str, str]) -> dict[str, dict[str, int]]:
    """Give what is not tried again: an engine that was refused is so a second later, too.

    Its fallback takes over at once; a connection that broke is tried again.
    """
    served = {name for name, model in names.items() if model.engine}
    groups = [*served, *(alias for alias, model in aliases.items() if model in served)]
    return {group: {"ServiceUnavailableErrorRetries": 0} for group in sorted(groups)}


def _without_none(values: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in values.items() if value is not None}


def _fallbacks(
    wanted: dict[str, list[str]], names: dict[str, Model], aliases: dict[str, str]
) -> list[dict[str, list[str]]]:
    """Give LiteLLM's list of one-key mappings: offered models, none its own fallback."""
    found = []
    # LiteLLM looks only under the name that the client asked for, so an alias without fallbacks of
    # its own takes those of its model.
    inherited = {
        alias: wanted[model]
        for alias, model in aliases.items()
        if model in wanted and alias not in wanted
    }
    for source, targets in (wanted | inherited).items():
        primary = aliases.get(source, source)
        reachable = [
            target
            for target in targets
            if (target in names or target in aliases) and aliases.get(target, target) != primary
        ]
        if reachable and (source in names or source in aliases):
            found.append({source: reachable})
    return found
