"""LiteLLM's callbacks: what they are told, and what they make of a request."""

import asyncio
import json
import sys
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from gatehouse.render import Machine
from gatehouse.render.callbacks import CALLBACKS, engines_json
from gatehouse.render.template import plain
from tests.given import MACHINE, PROVIDER_KEY, problems, proxy, rendered, settings

WITH_KEY = Machine(MACHINE.cores, MACHINE.memory_mib, frozenset({PROVIDER_KEY}))
HERMES = "chat-hermes-3-llama-3.1-8b"
CLOUD = "qwen3-coder-480b-cloud"
HOST = "http://host.docker.internal"


@pytest.fixture(scope="module")
def stub() -> Iterator[None]:
    """Have what the files import of LiteLLM, without its start of several seconds."""
    names = {
        "litellm": {},
        "litellm.integrations": {},
        "litellm.integrations.custom_logger": {"CustomLogger": type("CustomLogger", (), {})},
        "litellm.types": {},
        "litellm.types.integrations": {},
        "litellm.types.integrations.custom_logger": {
            "HEADROOM_INTERCEPTION_PREFIX": "_headroom",
            "as_converted_stream": lambda kwargs, _: {**kwargs, "stream": False, "made": True},
        },
        "litellm.proxy": {},
        "litellm.proxy.proxy_server": {"llm_router": types.SimpleNamespace()},
    }
    before = {name: sys.modules.get(name) for name in names}
    for name, content in names.items():
        sys.modules[name] = types.ModuleType(name)
        vars(sys.modules[name]).update(content)
    yield
    for name, module in before.items():
        if module is None:
            del sys.modules[name]
        else:
            sys.modules[name] = module


def loaded(name: str) -> Any:  # noqa: ANN401 - a module
    """Load one callback file as LiteLLM does."""
    module = types.ModuleType(f"callback_{name}")
    sys.modules[module.__name__] = module
    exec(compile(plain(f"litellm/{name}.py"), f"{name}.py", "exec"), vars(module))  # noqa: S102
    return module


@pytest.fixture
def cold(stub: None, tmp_path: Path) -> Any:  # noqa: ANN401 - a module
    """Give the module with two engines whose states are in a folder of the test."""
    module = loaded("cold")
    module.knocks = []
    first = module.Engine("first", 9001, "fallback", 60, CLOUD)
    second = module.Engine("second", 9002, "wait", 60, CLOUD)
    module.guard = module.ColdGuard({"a": first, "b": second}, tmp_path)

    async def knock(engine: Any, _: Path) -> None:  # noqa: ANN401
        module.knocks.append(engine.port)

    module.knock = knock
    return module


def asked(cold: Any, model: str) -> dict[str, Any]:  # noqa: ANN401
    """Give the request for a model as the hook leaves it."""
    data: dict[str, Any] = {"model": model, "metadata": {}}
    asyncio.run(cold.guard.async_pre_call_hook(None, None, data, "acompletion"))
    return data


def sent(guard: Any, call_type: str = "acompletion", **kwargs: object) -> dict[str, Any]:  # noqa: ANN401
    """Give a request on its way to a server as the hook leaves it."""
    changed = asyncio.run(guard.async_pre_call_deployment_hook(kwargs, call_type))
    return kwargs if changed is None else changed


def headers(cold: Any, data: dict[str, Any], **hidden: object) -> dict[str, str]:  # noqa: ANN401
    """Give the headers of the answer to a request."""
    response = types.SimpleNamespace(_hidden_params={"additional_headers": hidden})
    found = asyncio.run(cold.guard.async_post_call_response_headers_hook(data, None, response))
    return found or {}


def test_sleeping_engine_is_answered_for_by_the_fallback(cold: Any) -> None:  # noqa: ANN401
    """The request goes to the fallback, and the engine is started for the next one."""
    data = asked(cold, "a")
    assert data["model"] == CLOUD
    assert cold.knocks == [9001]
    assert headers(cold, data) == {"x-gatehouse-model": "a", "x-gatehouse-engine": "fallback"}


def test_fallback_is_for_keys_that_may_use_it(cold: Any) -> None:  # noqa: ANN401
    """Who may not call the fallback waits: no key gets more models than it has."""

    async def refuse(**_: object) -> bool:
        return False

    router = sys.modules["litellm.proxy.proxy_server"].llm_router
    for name in ("fallback_access_check", "fallback_budget_check"):
        setattr(router, name, refuse)
        assert asked(cold, "a")["model"] == "a"
        delattr(router, name)
    assert asked(cold, "a")["model"] == CLOUD


def test_awake_engine_is_asked_as_ever(cold: Any, tmp_path: Path) -> None:  # noqa: ANN401
    """Neither the model nor the time limit is changed."""
    (tmp_path / "first.awake").touch()
    data = asked(cold, "a")
    assert data["model"] == "a"
    assert sent(cold.guard, api_base=f"{HOST}:9001/v1", timeout=30)["timeout"] == 30
    assert headers(cold, data)["x-gatehouse-engine"] == "awake"
    fell_back = headers(cold, data, **{"x-litellm-attempted-fallbacks": 1})
    assert fell_back["x-gatehouse-engine"] == "fallback"


def test_waiting_request_gets_the_time_to_load(cold: Any, tmp_path: Path) -> None:  # noqa: ANN401
    """A model that waits keeps its name; the time limit grows, once for each attempt."""
    data = asked(cold, "b")
    assert data["model"] == "b"
    assert not cold.knocks
    request = {"api_base": f"{HOST}:9002", "metadata": {}}
    once = sent(cold.guard, **request, timeout=30)
    assert once["timeout"] == 90
    assert sent(cold.guard, **once)["timeout"] == 90
    assert sent(cold.guard, **request, timeout=30)["timeout"] == 90
    assert headers(cold, data) == {"x-gatehouse-model": "b"}
    (tmp_path / "second.awake").touch()
    assert headers(cold, data)["x-gatehouse-engine"] == "woken"


def test_health_check_neither_wakes_nor_keeps(cold: Any, tmp_path: Path) -> None:  # noqa: ANN401
    """It is refused while the engine sleeps, and answered without the engine while it is awake."""
    check = {"api_base": f"{HOST}:9001", "litellm_metadata": {"tags": [cold.HEALTH_CHECK]}}
    with pytest.raises(cold.AsleepError, match="first is asleep"):
        sent(cold.guard, **check)
    (tmp_path / "first.awake").touch()
    assert sent(cold.guard, **check)["mock_response"]


def test_other_servers_are_left_alone(cold: Any) -> None:  # noqa: ANN401
    """A model without an engine and a server at the same port elsewhere are not ours."""
    assert asked(cold, "c") == {"model": "c", "metadata": {}}
    elsewhere = {"api_base": "https://a.example:9001/v1", "timeout": 30}
    assert sent(cold.guard, **elsewhere) == elsewhere
    assert headers(cold, {"metadata": {}}) == {}


@pytest.mark.parametrize("name", ["model_group", "deployment_model_name"])
def test_required_tool_choice_becomes_auto(stub: None, name: str) -> None:
    """For the models listed, by alias or by name, as the first choice or as a fallback."""
    guard = loaded("toolchoice").ToolChoiceGuard(frozenset({"a"}))
    listed = {"tool_choice": "required", "metadata": {name: "a"}}
    assert sent(guard, **listed)["tool_choice"] == "auto"
    assert sent(guard, **listed | {"tool_choice": "none"})["tool_choice"] == "none"
    assert sent(guard, **listed | {"metadata": {name: "b"}})["tool_choice"] == "required"


def test_stream_is_asked_in_one_piece(stub: None) -> None:
    """For the models listed, and for chats only."""
    guard = loaded("stream").StreamGuard(frozenset({"a"}))
    listed = {"stream": True, "metadata": {"model_group": "a"}}
    assert sent(guard, **listed)["stream"] is False
    assert sent(guard, "anthropic_messages", **listed)["stream"] is True
    assert sent(guard, **listed | {"metadata": {"model_group": "b"}})["stream"] is True
    assert "made" not in sent(guard, **listed | {"stream": False})


def test_callbacks_are_configured_and_shipped() -> None:
    """LiteLLM is told of each file, which stands beside its configuration."""
    configured = proxy()["litellm_settings"]["callbacks"]
    assert configured == [*(f"{name}.guard" for name in CALLBACKS), "dynamic_rate_limiter_v3"]
    release = rendered().release
    for path in ("engines.json", *(f"{name}.py" for name in CALLBACKS)):
        assert f"/litellm/{path}:/etc/gatehouse/{path}:ro" in plain("litellm.yaml")
        assert f"litellm/{path}" in release


def described(machine: Machine = WITH_KEY, **changes: object) -> dict[str, Any]:
    """Give engines.json."""
    found: dict[str, Any] = json.loads(engines_json(settings(**changes), machine))
    return found


def own(**fields: object) -> dict[str, object]:
    """Give settings with one shipped model changed, which is on."""
    models = [
        each.model_dump(exclude_defaults=True) | (fields if each.name == HERMES else {})
        for each in settings().models
    ]
    return {"models": models, "models_enable": [HERMES]}


def test_alias_has_the_engine_of_its_model() -> None:
    """A client asks for the alias, and the engine is its model's."""
    found = described(**own(on_cold="fallback", cold_wait_seconds=77))["models"]
    assert found.keys() == {HERMES, "chat-default"}
    assert found[HERMES]["wait_seconds"] == 77
    for entry in found.values():
        assert (entry["engine"], entry["fallback"], entry["on_cold"]) == (HERMES, CLOUD, "fallback")


def test_fallback_needs_to_be_offered_and_elsewhere() -> None:
    """Without the cloud there is none; a model on the same engine is none either."""
    assert described(MACHINE, models_enable=[HERMES])["models"][HERMES]["fallback"] is None
    mistral, vision = "chat-mistral-7b-ollama", "vision-qwen3-vl-4b-ollama"
    found = described(models_enable=[mistral, vision], models_fallbacks={mistral: [vision, CLOUD]})[
        "models"
    ]
    assert found[mistral]["engine"] == found[vision]["engine"]
    assert found[mistral]["fallback"] == CLOUD


def test_model_that_is_off_has_no_engine() -> None:
    """A fresh host has none to guard."""
    assert described() == {"models": {}, "tool_choice_auto": [], "stream_guard": []}


def test_lists_name_the_aliases_too() -> None:
    """What goes for a model goes for the alias that clients ask for."""
    found = described(**own(tool_choice_auto=True), litellm_stream_guard=[HERMES])
    assert found["tool_choice_auto"] == found["stream_guard"] == [HERMES, "chat-default"]


def test_stream_guard_needs_a_version_that_can_do_it() -> None:
    """LiteLLM before 1.108 cannot make a stream of a whole answer; without the guard it may serve."""
    old = "ghcr.io/berriai/litellm-non_root:v1.106.11"
    found = problems(litellm_image=old, litellm_stream_guard=["chat-selftest-builtin"])
    assert "needs LiteLLM 1.108" in found["litellm_stream_guard"]
    assert not problems(litellm_image=old)
    assert not problems(litellm_stream_guard=["chat-selftest-builtin"])


def test_stream_guard_starts_on_a_version_that_cannot_do_it(
    stub: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What only newer versions have is imported when a stream is guarded, not before."""
    monkeypatch.delattr(
        sys.modules["litellm.types.integrations.custom_logger"], "as_converted_stream"
    )
    guard = loaded("stream").StreamGuard(frozenset())
    listed = {"stream": True, "metadata": {"model_group": "a"}}
    assert sent(guard, **listed)["stream"] is True
