"""What LiteLLM's callbacks know of models: the release's litellm/engines.json."""

import json
from typing import Any

from gatehouse.render.machine import Machine
from gatehouse.settings import Model, Settings
from gatehouse.settings.models import offered, resolved

# Files of compose/litellm that LiteLLM loads as callbacks, in the order in which it asks them.
CALLBACKS = ("toolchoice", "stream", "cold")


def engines_json(settings: Settings, machine: Machine) -> str:
    """Give engines.json: by each public name of a model with an engine, what its callers get."""
    names = offered(settings.all_models, settings.models_enable, machine.provider_keys)
    aliases = resolved(settings.models_aliases, names)
    ports = {engine.name: engine.port for engine in settings.active_engines}
    public = names | {alias: names[name] for alias, name in aliases.items()}
    models: dict[str, dict[str, Any]] = {
        name: {
            "engine": model.engine,
            "port": ports[model.engine],
            "on_cold": model.on_cold,
            "wait_seconds": model.cold_wait_seconds,
            "fallback": _fallback(settings, name, public),
        }
        for name, model in public.items()
        if model.engine in ports
    }
    found = {
        "models": models,
        "tool_choice_auto": [name for name, model in public.items() if model.tool_choice_auto],
        "stream_guard": [
            name for name, model in public.items() if model.name in settings.litellm_stream_guard
        ],
    }
    return json.dumps(found, indent=2) + "\n"


def _fallback(settings: Settings, name: str, public: dict[str, Model]) -> str | None:
    """Give the first fallback that can be asked while the engine of `name` sleeps."""
    wanted = settings.models_fallbacks
    model = public[name]
    # An alias without fallbacks of its own takes those of its model.
    for target in wanted.get(name, wanted.get(model.name, [])):
        if target in public and public[target].engine != model.engine:
            return target
    return None
