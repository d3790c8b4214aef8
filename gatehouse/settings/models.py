"""The models that clients can ask for."""

import re
from collections.abc import Mapping
from typing import Annotated, Literal, Self
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from gatehouse.settings.field import Component, setting

TYPES = ("chat", "code", "vision", "embed", "rerank")
_WORD = r"[a-z0-9]+(?:[.-][a-z0-9]+)*"
MODEL_NAME = re.compile(rf"(?:{'|'.join(TYPES)})-{_WORD}|{_WORD}-(?:cloud|local)")
ALIAS_NAME = re.compile(_WORD)
# Longer than a warm answer takes to begin: after a comment its status can only be 200.
_COMMENT_SECONDS = 15
KEY_NAME = r"^[A-Z][A-Z0-9_]{2,63}$"

Mode = Literal["chat", "embedding", "rerank"]

_LOOPBACK = re.compile(r"^https?://(localhost|127\.\d+\.\d+\.\d+|\[::1\]|0\.0\.0\.0)(?=[:/]|$)")
_NEEDS_ADDRESS = {"hosted_vllm", "infinity", "openai_like", "ollama", "ollama_chat"}


def model_name(name: str) -> str:
    """Give the name back; raises `ValueError` when it breaks the naming convention."""
    if not MODEL_NAME.fullmatch(name):
        raise ValueError(
            "breaks the naming convention: [type]-[name]-[engine] with a type of chat, code, "
            "vision, embed or rerank (chat-mistral-7b-ollama), or [name]-cloud or [name]-local, "
            "in lower case"
        )
    return name


def reachable(url: str | None) -> str | None:
    """Give the URL back; raises `ValueError` when a container cannot use it."""
    if url and (found := _LOOPBACK.match(url)):
        raise ValueError(
            f"{found[1]} is the container itself: write http://host.docker.internal:PORT for a "
            "server on the host"
        )
    if url and "@" in urlsplit(url).netloc:
        raise ValueError("holds a user name or password: give it as a provider key (api_key)")
    return url


class Model(BaseModel):
    """One entry of `models`: a backend that LiteLLM can reach, and how it is to be treated."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    name: Annotated[
        str,
        AfterValidator(model_name),
        Field(description="[type]-[name]-[engine], or [name]-cloud or [name]-local."),
    ]
    backend: Annotated[
        str,
        Field(
            description="LiteLLM's provider and the model's name there: hosted_vllm/qwen.",
            pattern=r"^[a-z0-9_]+/\S+$",
        ),
    ]
    enabled: Annotated[bool, Field(description="False: listed, but not offered.")] = True
    api_base: Annotated[
        str | None,
        # In this order: pydantic applies no pattern to None behind a validator.
        Field(description="Base URL as the container sees it.", pattern=r"^https?://\S+$"),
        AfterValidator(reachable),
    ] = None
    api_key: Annotated[
        str | None,
        Field(
            description="Name of the provider key it needs (never the key itself); without that "
            "key it is not offered.",
            pattern=KEY_NAME,
        ),
    ] = None
    mode: Annotated[Mode | None, Field(description="None: from the name's type, else chat.")] = None
    timeout_seconds: Annotated[
        int | None, Field(description="Longest time for one request to it.", ge=1, le=6000)
    ] = None
    rpm: Annotated[int | None, Field(description="Requests a minute.", ge=1, le=1000000)] = None
    retries: Annotated[
        int | None, Field(description="Retries of a failed request to it.", ge=0, le=10)
    ] = None
    max_tokens: Annotated[int | None, Field(description="Longest answer.", ge=1, le=10000000)] = (
        None
    )
    context_tokens: Annotated[
        int | None, Field(description="Longest question.", ge=1, le=100000000)
    ] = None
    engine: Annotated[
        str | None,
        Field(
            description="Name of the engine on this host that serves it: api_base follows from it, "
            "and the engine is on when the model is.",
        ),
    ] = None
    on_cold: Annotated[
        Literal["wait", "fallback"],
        Field(
            description="While its engine sleeps or loads: wait for it, or let the first fallback "
            "answer now while it loads for the next request.",
        ),
    ] = "wait"
    cold_wait_seconds: Annotated[
        int,
        Field(
            description="How much longer than timeout_seconds a request to a cold engine may take.",
            ge=1,
            le=3600,
        ),
    ] = 120
    keepalive_seconds: Annotated[
        int | None,
        Field(
            description="A stream that has nothing to say yet gets a comment this often, so that "
            "nobody in between hangs up. None: 15 for a chat model with an engine, else no "
            "comments; 0: none.",
            ge=0,
            le=300,
        ),
    ] = None
    tool_choice_auto: Annotated[
        bool,
        Field(description="Turn `tool_choice: required`, which it fails at, into `auto`."),
    ] = False
    keep_alive: Annotated[
        str | None,
        Field(
            description="How long Ollama keeps it loaded; only ollama_chat/ passes it on.",
            pattern=r"^\d+[smh]$",
        ),
    ] = None
    tools: Annotated[bool, Field(description="Understands tool calls.")] = False
    vision: Annotated[bool, Field(description="Understands images.")] = False
    mock_response: Annotated[
        str | list[float] | None,
        Field(description="Answer given by the gateway itself, without any backend."),
    ] = None

    @model_validator(mode="after")
    def _provider(self) -> Self:
        provider = self.backend.split("/", 1)[0]
        if provider == "ollama" and self.kind == "chat":
            raise ValueError("ollama/ ignores keep_alive for chat: write ollama_chat/ instead")
        if self.keep_alive and provider not in {"ollama", "ollama_chat"}:
            raise ValueError(f"keep_alive is Ollama's, and the backend is {provider}/: remove it")
        if self.engine and self.api_base:
            raise ValueError("an engine's address follows from its port: remove api_base")
        addressed = self.api_base or self.engine or self.mock_response is not None
        if provider in _NEEDS_ADDRESS and not addressed:
            raise ValueError(f"{provider}/ has no address of its own: give api_base or engine")
        if self.on_cold == "fallback" and not self.engine:
            raise ValueError(
                'only an engine can be cold: remove on_cold = "fallback", or give engine'
            )
        return self

    @property
    def comment_seconds(self) -> int | None:
        """How often a silent stream gets a comment; 0 and None are never."""
        loads = self.engine is not None and self.kind == "chat"
        return (
            _COMMENT_SECONDS if self.keepalive_seconds is None and loads else self.keepalive_seconds
        )

    @property
    def kind(self) -> Mode:
        """What the model does, as LiteLLM names it."""
        if self.mode is not None:
            return self.mode
        by_type: dict[str, Mode] = {"embed": "embedding", "rerank": "rerank"}
        return by_type.get(self.name.split("-", 1)[0], "chat")


class ModelsSettings(Component):
    """Models, the aliases that clients use, and who answers when one cannot."""

    models: Annotated[
        list[Model], setting("The models that Gatehouse ships, switched on or off.", min_length=1)
    ]
    models_extra: Annotated[
        list[Model], setting("Your own models, in the same form; kept apart from the shipped ones.")
    ]
    models_enable: Annotated[
        list[str], setting("Names of shipped models to switch on.", example=["embed-arctic-l-v2"])
    ]
    models_dir: Annotated[
        str,
        setting("Folder on the host with the engines' model files.", pattern=r"^/[\w./-]+$"),
    ]
    models_hub_url: Annotated[
        str,
        setting(
            "Model hub, or a mirror of it, that `gatehouse models pull` gets files from.",
            pattern=r"^https?://[\w.:/-]+$",
        ),
    ]
    models_pull: Annotated[
        bool,
        setting("Let a deploy pull the model files that are missing (they can be very large)."),
    ]
    models_aliases: Annotated[
        dict[str, list[str]],
        setting("Alias → candidates; the first one that is offered answers to the alias."),
    ]
    models_fallbacks: Annotated[
        dict[str, list[str]],
        setting("Model or alias → models that answer instead, in order, when it fails."),
    ]
    models_context_fallbacks: Annotated[
        dict[str, list[str]],
        setting("Model or alias → models that answer when the question is too long for it."),
    ]


def offered(
    models: list[Model], enable: list[str], provider_keys: frozenset[str]
) -> dict[str, Model]:
    """Give the models that clients can ask for, by name, in the order of the settings.

    A model is offered when it is enabled (by its entry or by name in `enable`) and the provider
    key it needs, if any, is among `provider_keys`.
    """
    return {
        model.name: model
        for model in models
        if (model.enabled or model.name in enable)
        and (model.api_key is None or model.api_key in provider_keys)
    }


def resolved(aliases: Mapping[str, list[str]], names: Mapping[str, Model]) -> dict[str, str]:
    """Give each alias the first of its candidates that is offered; the others are left out."""
    chosen = {
        alias: next((name for name in candidates if name in names), None)
        for alias, candidates in aliases.items()
    }
    return {alias: name for alias, name in chosen.items() if name is not None}
