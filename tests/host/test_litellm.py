"""LiteLLM: who may do what, and that it answers. What the tests make, they remove."""

import uuid
from collections.abc import Iterator

import pytest

from gatehouse.settings import Settings
from tests import routes
from tests.gateway import Answer, Gateway, Request, question, request
from tests.waiting import wait_for

REFUSED = (401, 403)
PREFIX = "gatehouse-verify"
# Beyond the batch: the writer's own time, on a busy machine.
WRITE_SECONDS = 60
# For how long a worker believes what it knows of a key, and time for a busy machine.
AGREE_SECONDS = 30

LOOKING = (
    *("/key/list", "/user/list", "/team/list", "/credentials", "/budget/list", "/settings"),
    *("/global/spend", "/spend/logs", "/cache/ping", "/get/config/callbacks", "/debug/report"),
    *("/health/readiness/details", "/config/list?config_type=general_settings"),
)
CHANGING = {
    "/key/generate": {"key_alias": f"{PREFIX}-refused"},
    "/key/update": {"key": "none", "rpm_limit": 1000},
    "/key/delete": {"keys": ["none"]},
    "/user/new": {"user_id": f"{PREFIX}-refused"},
    "/team/new": {"team_alias": f"{PREFIX}-refused"},
    "/model/new": {
        "model_name": "none",
        "litellm_params": {"model": "openai/none"},
        "model_info": {},
    },
    "/config/update": {"general_settings": {}},
    "/cache/flushall": {},
}


@pytest.fixture(scope="module")
def key(gateway: Gateway) -> Iterator[str]:
    """Make a virtual key as anybody gets one, and give its name; it is deleted in the end."""
    made = gateway.ask("POST", "/key/generate", {"key_alias": alias()}, keep={"key": "virtual"})
    assert made.status == 200, made.text
    yield "{virtual}"
    gateway.ask("POST", "/key/delete", {"keys": ["{virtual}"]})


def alias() -> str:
    """Give a name that nothing has."""
    return f"{PREFIX}-{uuid.uuid4().hex[:12]}"


def content(answer: Answer) -> str:
    """Give the text of a chat answer."""
    assert answer.status == 200, answer.text
    return str(answer.json()["choices"][0]["message"]["content"])


def test_key_has_the_default_limits(gateway: Gateway, key: str, settings: Settings) -> None:
    """A new key may do as much a minute as the settings say."""
    info = gateway.ask("GET", "/key/info", key=key).json()["info"]
    assert info["rpm_limit"] == settings.keys_rpm
    assert info["tpm_limit"] == settings.keys_tpm


def settled(gateway: Gateway, asked: Request, status: int) -> bool:
    """Tell whether every worker answers so: they tell each other of changed keys through Redis."""
    return wait_for(
        lambda: {each.status for each in gateway.all(*[asked] * 12)} == {status},
        AGREE_SECONDS,
        f"{asked['path']} to answer {status} everywhere",
    )


def test_key_works_until_it_is_blocked_and_deleted(gateway: Gateway) -> None:
    """A blocked key is refused, works again when it is let in, and is gone when deleted."""
    key = "{doomed}"
    models = request("GET", "/v1/models", key=key)
    made = gateway.ask("POST", "/key/generate", {"key_alias": alias()}, keep={"key": "doomed"})
    assert made.status == 200, made.text
    assert settled(gateway, models, 200)
    assert gateway.ask("POST", "/key/block", {"key": key}).status == 200
    assert settled(gateway, models, 401)
    assert gateway.ask("POST", "/key/unblock", {"key": key}).status == 200
    assert settled(gateway, models, 200)
    assert gateway.ask("POST", "/key/delete", {"keys": [key]}).status == 200
    assert settled(gateway, models, 401)


def test_limit_of_a_key_is_enforced(gateway: Gateway) -> None:
    """Who asks more often than the key allows is told to wait."""
    made = request(
        "POST", "/key/generate", {"key_alias": alias(), "rpm_limit": 2}, keep={"key": "limited"}
    )
    asked = [request("POST", "/v1/chat/completions", _selftest(), "{limited}")] * 5
    gone = request("POST", "/key/delete", {"keys": ["{limited}"]})
    _, *seen, _ = gateway.all(made, *asked, gone)
    assert [each.status for each in seen].count(429) >= 2
    assert seen[0].status == 200


def _selftest() -> dict[str, object]:
    return question("chat-selftest-builtin", f"Are you there? {uuid.uuid4()}")


@pytest.mark.parametrize("path", LOOKING)
def test_looking_at_others_needs_the_master_key(gateway: Gateway, key: str, path: str) -> None:
    """The master key sees how the gateway is used and configured; a virtual key does not."""
    virtual, master = gateway.all(request("GET", path, key=key), request("GET", path))
    assert virtual.status in REFUSED, virtual.text[:200]
    assert master.status == 200, master.text[:200]


@pytest.mark.parametrize("path", CHANGING)
def test_virtual_key_may_change_nothing(gateway: Gateway, key: str, path: str) -> None:
    """A virtual key makes no keys, users or models, and changes no configuration."""
    refused = gateway.ask("POST", path, CHANGING[path], key)
    assert refused.status in REFUSED, refused.text[:200]


def test_team_has_its_members_and_its_keys(gateway: Gateway) -> None:
    """Users belong to teams, and a team's key works until its team is deleted."""
    user, had = alias(), _users(gateway)
    seen = gateway.all(
        request("POST", "/team/new", {"team_alias": alias()}, keep={"team_id": "team"}),
        request("POST", "/user/new", {"user_id": user, "auto_create_key": False}),
        request(
            "POST",
            "/team/member_add",
            {"team_id": "{team}", "member": {"role": "user", "user_id": user}},
        ),
        request(
            "POST",
            "/key/generate",
            {"team_id": "{team}", "user_id": user, "key_alias": alias()},
            keep={"key": "teams"},
        ),
        request("GET", "/v1/models", key="{teams}"),
        request("GET", "/team/info?team_id={team}"),
        request("POST", "/team/delete", {"team_ids": ["{team}"]}),
        request("POST", "/user/delete", {"user_ids": [user]}),
    )
    _forget_users(gateway, had)
    assert [each.status for each in seen] == [200] * 8
    assert settled(gateway, request("GET", "/v1/models", key="{teams}"), 401)
    members = [one["user_id"] for one in seen[5].json()["team_info"]["members_with_roles"]]
    assert user in members


def _users(gateway: Gateway) -> set[str]:
    found = gateway.ask("GET", "/user/list?page_size=100").json()["users"]
    return {each["user_id"] for each in found}


def _forget_users(gateway: Gateway, had: set[str]) -> None:
    """Remove the admin's own user where these tests were the first that needed it."""
    new = [user for user in _users(gateway) - had if user == "default_user_id"]
    if new:
        gateway.ask("POST", "/user/delete", {"user_ids": new})


def test_web_interface_takes_its_password_only(gateway: Gateway, settings: Settings) -> None:
    """The admin logs in with the password from the host and gets a session; others do not."""
    had, user = _users(gateway), settings.litellm_admin_user
    form = {"username": user, "password": "{ui_password}"}
    seen = gateway.all(
        request("GET", "/ui/", key="", bytes=300),
        request("POST", "/login", key="", form={**form, "password": "not-the-password"}),
        request("POST", "/login", key="", form={**form, "username": "somebody"}),
        request("POST", "/login", key="", form={**form, "password": "{master}"}),
        request("POST", "/login", key="", form=form, keep_session="session"),
        request("GET", "/user/list", key="{session}"),
        request("POST", "/key/delete", {"keys": ["{session}"]}),
    )
    _forget_users(gateway, had)
    page, *wrong, right, inside, deleted = seen
    assert (page.status, "<html" in page.text) == (200, True)
    assert [each.status for each in wrong] == [401, 401, 401]
    assert not [each for each in wrong if "set-cookie" in each.headers]
    assert right.status == 303
    assert right.headers["set-cookie"].startswith("token={session_cookie};")
    assert (inside.status, deleted.status) == (200, 200)
    assert settled(gateway, request("GET", "/user/list", key="{session}"), 401)


def test_models_are_listed_with_their_aliases(
    gateway: Gateway, key: str, settings: Settings
) -> None:
    """A client is told the models and aliases that are offered, and no others."""
    found = {each["id"] for each in gateway.ask("GET", "/v1/models", key=key).json()["data"]}
    known = {model.name for model in settings.all_models} | settings.models_aliases.keys()
    always = {model.name for model in settings.all_models if model.mock_response is not None}
    assert always | {"chat-default", "embeddings-default"} <= found
    if settings.litellm_config_source == "file":
        assert found <= known


def test_chat_default_answers(gateway: Gateway, key: str) -> None:
    """Whoever asks chat-default gets an answer."""
    body = question("chat-default", f"Answer in one word. {uuid.uuid4()}", max_tokens=16)
    assert content(gateway.ask("POST", "/v1/chat/completions", body, key, timeout=300))


def test_chat_default_streams(gateway: Gateway, key: str) -> None:
    """A stream comes in several pieces and has an end."""
    body = question("chat-default", f"Count to five. {uuid.uuid4()}", max_tokens=32, stream=True)
    answer = gateway.ask("POST", "/v1/chat/completions", body, key, timeout=300)
    assert answer.headers["content-type"].startswith("text/event-stream")
    *events, done = [line for line in answer.text.splitlines() if line.startswith("data: ")]
    assert done == "data: [DONE]"
    assert len(events) > 2


def test_embeddings_default_gives_a_vector(gateway: Gateway, key: str) -> None:
    """Whoever asks embeddings-default gets numbers."""
    body = {"model": "embeddings-default", "input": f"a text {uuid.uuid4()}"}
    answer = gateway.ask("POST", "/v1/embeddings", body, key, timeout=300)
    assert answer.status == 200, answer.text
    assert all(isinstance(number, float) for number in answer.json()["data"][0]["embedding"])


def test_same_question_is_answered_from_the_cache(
    gateway: Gateway, key: str, settings: Settings
) -> None:
    """The second answer to a question is the first, and says under which key it was found."""
    if not settings.redis_cache_ttl_seconds:
        pytest.skip("the cache is switched off (redis_cache_ttl_seconds = 0)")
    ask = request("POST", "/v1/chat/completions", _selftest(), key)
    first = gateway.all(ask)[0]

    def cached() -> Answer | None:
        second = gateway.all(ask)[0]
        return second if second.headers.get("x-litellm-cache-key") else None

    second = wait_for(cached, 20, "an answer from the cache")
    assert "x-litellm-cache-key" not in first.headers
    assert second.json()["id"] == first.json()["id"]
    assert content(second) == content(first)


def test_unknown_model_is_refused_by_name(gateway: Gateway, key: str) -> None:
    """A model that is not offered gives an error that names it."""
    answer = gateway.ask("POST", "/v1/chat/completions", question("no-such-model", "x"), key)
    assert answer.status in {400, 404}
    assert "no-such-model" in answer.text


def test_every_route_wants_a_key(gateway: Gateway) -> None:
    """Without a key, and with a wrong one, no route answers, but for those with a reason."""
    every = routes.every(gateway)
    wrong = []
    for key in ("", "sk-none-00000000000000000000"):
        wrong += routes.open_to(gateway, every, key)
    assert not wrong, "\n".join(wrong)


def test_spend_is_logged_without_the_prompt(gateway: Gateway, key: str, settings: Settings) -> None:
    """Each answer is accounted for after the next batch; what was said is kept only if wished."""
    answer = gateway.ask("POST", "/v1/chat/completions", _selftest(), key)
    wanted = answer.json()["id"]

    def row() -> dict[str, object] | None:
        found = gateway.ask("GET", f"/spend/logs?request_id={wanted}")
        return found.json()[0] if found.status == 200 and found.json() else None

    deadline = settings.litellm_batch_write_seconds + WRITE_SECONDS
    logged = wait_for(row, deadline, "the row in the spend log")
    assert logged["model_group"] == "chat-selftest-builtin"
    assert logged["total_tokens"] == answer.json()["usage"]["total_tokens"]
    if not settings.litellm_store_prompts:
        assert (logged["messages"], logged["response"]) in [({}, {}), ("{}", "{}"), (None, None)]
