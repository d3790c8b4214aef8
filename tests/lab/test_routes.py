"""The matrix of routes: what an ordinary key may not, and that every rule is still about something."""

from collections.abc import Iterator

import pytest

from tests import routes
from tests.gateway import Gateway

ALIAS = "lab-routes"


@pytest.fixture(scope="module")
def key(gateway: Gateway) -> Iterator[str]:
    """Make an ordinary key, as anybody gets one, and give its name."""
    made = gateway.ask("POST", "/key/generate", {"key_alias": ALIAS}, keep={"key": "ordinary"})
    assert made.status == 200, made.text
    yield "{ordinary}"
    gateway.ask("POST", "/key/delete", {"keys": ["{ordinary}"]})
    gateway.forget()


def test_ordinary_key_is_refused_where_it_has_no_business(gateway: Gateway, key: str) -> None:
    """A route that is for nobody but the admin refuses a key, also with a body as it wants it."""
    schema = gateway.ask("GET", "/openapi.json", bytes=50_000_000).json()
    assert routes.refusing(gateway, routes.every(gateway), schema, key) == []


def test_every_rule_is_about_a_route(gateway: Gateway) -> None:
    """No exception is left of a route that LiteLLM does not have any more."""
    assert routes.unused(routes.every(gateway)) == []


def test_ordinary_key_reaches_nothing_through_the_gateway(gateway: Gateway, key: str) -> None:
    """It can neither name an address to be asked nor have one tried (CVE-2024-6587 and the like)."""
    elsewhere = {"api_base": "http://172.30.40.1:9/v1"}
    body = {"model": "chat-selftest-builtin", "messages": [], **elsewhere}
    answer = gateway.ask("POST", "/v1/chat/completions", body, key)
    assert answer.status == 401
    assert "api_base is not allowed" in answer.text
    tried = {"litellm_params": {"model": "openai/x", "api_key": "x", **elsewhere}, "mode": "chat"}
    answer = gateway.ask("POST", "/health/test_connection", tried, key)
    assert answer.status == 403
