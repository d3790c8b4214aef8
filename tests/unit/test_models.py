"""Models: their names, who stands behind them, and who answers when they cannot."""

import pytest

from gatehouse.settings.models import Model, offered, resolved
from tests.given import PROVIDER_KEY, model, problems, settings

HERMES = "chat-hermes-3-llama-3.1-8b"
QWEN = "chat-qwen2.5-0.5b-vllm"
MISTRAL = "chat-mistral-7b-ollama"
CLOUD = "qwen3-coder-480b-cloud"


@pytest.mark.parametrize(
    "name",
    [
        "chat-mistral-8b-ollama",
        "chat-qwen2.5-1.5b-vllm",
        "code-x",
        "vision-qwen3-vl-8b-ollama",
        "embed-arctic-m-v2",
        "rerank-bge-v3",
        "qwen3-coder-30b-cloud",
        "phi-local",
    ],
)
def test_name_by_the_convention_is_accepted(name: str) -> None:
    """[type]-[name]-[engine], [name]-cloud and [name]-local are names."""
    assert not problems(models_extra=[model(name, backend="openai/x")])


@pytest.mark.parametrize(
    "name",
    [
        "gpt-4o",
        "Chat-mistral-ollama",
        "chat-",
        "chat",
        "chat--x",
        "chat_mistral_ollama",
        "chat-mistral ollama",
        "chat-mistral-ollama-",
        "-cloud",
        "cloud",
        "chat-mistral/7b",
        "chat-mistral:7b",
        "qwen-Cloud",
        "",
    ],
)
def test_name_against_the_convention_is_refused(name: str) -> None:
    """Another name is refused with the convention."""
    assert "[type]-[name]-[engine]" in problems(models_extra=[model(name)])["models_extra/0/name"]


def test_name_of_two_models_is_refused() -> None:
    """An own model may not take the name of a shipped one."""
    assert "defined 2 times" in problems(models_extra=[model(HERMES)])["models_extra"]


@pytest.mark.parametrize(
    "url",
    [
        "http://localhost:8000/v1",
        "http://localhost",
        "https://127.0.0.1:8000",
        "http://127.1.2.3/v1",
        "http://[::1]:8000",
        "http://0.0.0.0:8000",
    ],
)
def test_address_on_loopback_is_refused(url: str) -> None:
    """Loopback is the container itself: the message says what to write."""
    message = problems(models_extra=[model(api_base=url)])["models_extra/0/api_base"]
    assert "http://host.docker.internal:PORT" in message


@pytest.mark.parametrize("url", ["http://localhost.example.org:1", "http://127.example.org"])
def test_address_that_only_looks_like_loopback_is_accepted(url: str) -> None:
    """A name that begins like a loopback address is a name."""
    assert not problems(models_extra=[model(api_base=url)])


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"api_base": "host.docker.internal:8000"}, "match pattern"),
        ({"api_base": None}, "give api_base"),
        ({"backend": "mine"}, "match pattern"),
        ({"backend": "ollama/mine"}, "ollama_chat/"),
        ({"keep_alive": "5m"}, "keep_alive is Ollama's"),
        ({"backend": "ollama_chat/mine", "keep_alive": "forever"}, "match pattern"),
        ({"api_key": "sk-1234"}, "match pattern"),
        ({"rmp": 60}, "did you mean 'rpm'?"),
        ({"rpm": "60"}, "valid integer"),
        ({"tools": 1}, "valid boolean"),
    ],
)
def test_unfit_model_is_refused(fields: dict[str, object], message: str) -> None:
    """Each mistake in an entry is named with its place."""
    found = problems(models_extra=[model(**fields)])
    assert all(key.startswith("models_extra/0") for key in found)
    assert message in "\n".join(found.values())


@pytest.mark.parametrize(
    "fields",
    [
        {"api_key": "sk-hidden"},
        {"api_base": "http://ada:hidden@model.example"},
        {"api_base": "http://:hidden@model.example"},
        {"api_base": "hidden@model.example"},
    ],
)
def test_secret_in_a_model_is_refused_unseen(fields: dict[str, object]) -> None:
    """A key or password that stands in the settings by mistake is not repeated."""
    found = problems(models_extra=[model(**fields)])
    assert list(found) == [f"models_extra/0/{next(iter(fields))}"]
    assert "hidden" not in str(found)


def test_problem_of_a_whole_model_does_not_repeat_it() -> None:
    """A mistake between two fields is a sentence, not the model again."""
    message = problems(models_extra=[model(api_base=None)])["models_extra/0"]
    assert message.endswith("give api_base or engine")


def test_model_without_a_name_is_refused() -> None:
    """What is missing in an entry is named."""
    assert problems(models_extra=[{"backend": "openai/x"}])["models_extra/0/name"] == "is missing"


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("embed-x", "embedding"),
        ("rerank-x", "rerank"),
        ("chat-x", "chat"),
        ("vision-x", "chat"),
        ("x-cloud", "chat"),
    ],
)
def test_kind_follows_the_name(name: str, kind: str) -> None:
    """What a model does is read from its name's type, unless `mode` says it."""
    assert Model(**model(name)).kind == kind
    assert Model(**model(name, mode="rerank")).kind == "rerank"


def test_offered_is_what_is_enabled_and_has_its_key() -> None:
    """A model is offered when it is on and the key that it needs is there."""
    s = settings()
    built_in = ["chat-selftest-builtin", "embed-selftest-builtin", "chat-selftest-failing"]
    assert list(offered(s.models, [], frozenset())) == built_in
    assert list(offered(s.models, [HERMES], frozenset())) == [*built_in, HERMES]
    assert CLOUD in offered(s.models, [], frozenset({PROVIDER_KEY}))


def test_alias_means_its_first_candidate_that_is_offered() -> None:
    """An alias goes down its list, and is left out when nobody on it is offered."""
    s = settings()
    nothing = offered(s.models, [], frozenset())
    assert resolved({"a": [HERMES, "chat-selftest-builtin"], "b": [HERMES]}, nothing) == {
        "a": "chat-selftest-builtin"
    }
    both = offered(s.models, [HERMES, MISTRAL], frozenset())
    assert resolved({"a": [MISTRAL, HERMES]}, both) == {"a": MISTRAL}


@pytest.mark.parametrize(
    ("changes", "key"),
    [
        ({"models_fallbacks": {HERMES: ["qwen3-coder-cloud"]}}, f"models_fallbacks/{HERMES}"),
        ({"models_fallbacks": {"chat-hermes": [CLOUD]}}, "models_fallbacks/chat-hermes"),
        (
            {"models_context_fallbacks": {HERMES: ["qwen3-coder-cloud"]}},
            f"models_context_fallbacks/{HERMES}",
        ),
        ({"models_aliases": {"chat-default": ["chat-hermes"]}}, "models_aliases/chat-default"),
        ({"models_enable": ["embed-arctic"]}, "models_enable"),
    ],
)
def test_reference_to_a_missing_model_is_refused(changes: dict[str, object], key: str) -> None:
    """Whatever names a model that does not exist is refused by its place."""
    assert "no " in problems(**changes)[key]
    assert "model" in problems(**changes)[key]


def test_missing_model_suggests_the_closest() -> None:
    """A misspelt model name is answered with the one that was meant."""
    message = problems(models_enable=["chat-hermes-3-lama-3.1-8b"])["models_enable"]
    assert f"did you mean '{HERMES}'?" in message


def test_reference_to_an_invalid_model_is_no_second_problem() -> None:
    """A model with a mistake in it still exists."""
    found = problems(models_extra=[model(rpm=0)], models_enable=["chat-mine-vllm"])
    assert list(found) == ["models_extra/0/rpm"]


def test_alias_with_the_name_of_a_model_is_refused() -> None:
    """One name means one thing."""
    found = problems(models_aliases={HERMES: [QWEN], "chat-default": [QWEN]} | _NO_ALIASES)
    assert "a model has this name" in found[f"models_aliases/{HERMES}"]


_NO_ALIASES: dict[str, list[str]] = {"deepseek-coder": [], "kimi-k2-coding": []}


def test_alias_in_capitals_is_refused() -> None:
    """Aliases are written like models."""
    found = problems(models_aliases=_NO_ALIASES | {"chat-default": [], "GPT": [QWEN]})
    assert "lower case" in found["models_aliases/GPT"]


@pytest.mark.parametrize(
    ("fallbacks", "reported"),
    [
        ({HERMES: [HERMES]}, HERMES),
        ({HERMES: [QWEN], QWEN: [HERMES]}, HERMES),
        ({HERMES: [QWEN], QWEN: [MISTRAL], MISTRAL: [CLOUD, HERMES]}, HERMES),
        ({HERMES: ["chat-default"]}, HERMES),
        ({"chat-default": ["chat-default"]}, "chat-default"),
        ({"chat-default": [CLOUD], CLOUD: ["chat-default"]}, "chat-default"),
    ],
    ids=["self", "direct", "long", "through an alias", "alias itself", "alias and back"],
)
@pytest.mark.parametrize("key", ["models_fallbacks", "models_context_fallbacks"])
def test_cycle_of_fallbacks_is_refused_once(
    key: str, fallbacks: dict[str, list[str]], reported: str
) -> None:
    """Nobody ends up as the own fallback; the message shows the way round, once."""
    found = problems(**{key: fallbacks})
    assert list(found) == [f"{key}/{reported}"]
    assert "→" in found[f"{key}/{reported}"]


def test_two_ways_to_one_model_are_no_cycle() -> None:
    """A fallback that is reached twice is fine."""
    assert not problems(models_fallbacks={HERMES: [QWEN, MISTRAL], QWEN: [CLOUD], MISTRAL: [CLOUD]})
