"""MCP servers: what is accepted, and what LiteLLM is told of them."""

from typing import Any

import pytest

from gatehouse.render import Machine
from tests.given import MACHINE, problems, proxy, settings, variables

KEY = "WIKI_MCP_TOKEN"
WITH_KEY = Machine(MACHINE.cores, MACHINE.memory_mib, frozenset({KEY}))
SERVER: dict[str, Any] = {
    "name": "wiki",
    "url": "http://host.docker.internal:9300/mcp",
    "auth_type": "bearer_token",
    "auth_key": KEY,
}


def problem(**fields: object) -> str:
    """Give what is said of one server that differs from a good one in `fields`."""
    found = problems(mcp_servers=[{**SERVER, **fields}])
    return "\n".join(f"{key}: {message}" for key, message in found.items())


def test_server_is_rendered_in_full() -> None:
    """LiteLLM reads address, secret and tools; the secret is a name, and nothing is public."""
    server = SERVER | {"allowed_tools": ["search"], "access_groups": ["docs"], "description": "W"}
    assert proxy(WITH_KEY, mcp_servers=[server])["mcp_servers"] == {
        "wiki": {
            "transport": "http",
            "url": "http://host.docker.internal:9300/mcp",
            "auth_type": "bearer_token",
            "auth_value": f"os.environ/{KEY}",
            "allowed_tools": ["search"],
            "access_groups": ["docs"],
            "description": "W",
            "allow_all_keys": False,
            "available_on_public_internet": False,
        }
    }


def test_server_without_its_secret_is_not_offered() -> None:
    """Like a cloud model without its key."""
    assert "mcp_servers" not in proxy(mcp_servers=[SERVER])
    assert "mcp_servers" not in proxy(WITH_KEY, mcp_servers=[SERVER | {"enabled": False}])


def test_secret_is_taken_over_like_a_provider_key() -> None:
    """The deploy brings it to the host."""
    assert KEY in settings(mcp_servers=[SERVER]).provider_keys


def test_no_server_is_no_section() -> None:
    """The shipped settings have none."""
    assert "mcp_servers" not in proxy()


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"url": "http://localhost:9300/mcp"}, "host.docker.internal"),
        ({"url": "http://127.0.0.1/mcp"}, "host.docker.internal"),
        ({"url": "https://a.example/mcp?api_key=canary"}, "auth_key"),
        ({"url": "https://me:canary@a.example/mcp"}, "user name or password"),
        ({"url": None}, "give url"),
        ({"name": "my-wiki"}, "mcp_servers/0/name"),
        ({"auth_key": "canary-lower"}, "mcp_servers/0/auth_key"),
        ({"auth_key": None}, "go together"),
        ({"auth_type": "none"}, "go together"),
        ({"auth_type": "oauth3"}, "mcp_servers/0/auth_type"),
        ({"transport": "websocket"}, "mcp_servers/0/transport"),
        ({"allowed_tools": ["a"], "disallowed_tools": ["b"]}, "remove disallowed_tools"),
        ({"alowed_tools": ["a"]}, "not a field of an MCP server (did you mean 'allowed_tools'?)"),
        ({"command": ["npx", "x"]}, "no command"),
        ({"transport": "stdio"}, "give command, and no url"),
    ],
)
def test_mistake_is_explained(fields: dict[str, object], said: str) -> None:
    """Each mistake is named where it is, and no secret is repeated."""
    message = problem(**fields)
    assert said in message
    assert "canary" not in message


def test_names_are_unique() -> None:
    """A name is what a key is granted."""
    assert "defined 2 times" in problems(mcp_servers=[SERVER, SERVER])["mcp_servers"]


def test_command_needs_its_setting() -> None:
    """A server that is a command is refused with the reason, until it is allowed."""
    command = {"name": "files", "transport": "stdio", "command": ["npx", "files", "/srv"]}
    message = problems(mcp_servers=[command])["mcp_servers/files/transport"]
    assert "CVE-2026-42271" in message
    assert "mcp_stdio_allowed = True" in message
    change = {"mcp_servers": [command], "mcp_stdio_allowed": True}
    entry = proxy(**change)["mcp_servers"]["files"]
    assert (entry["command"], entry["args"]) == ("npx", ["files", "/srv"])
    assert "url" not in entry
    assert variables(**change)["GATEHOUSE_LITELLM_MCP_STDIO"] == "true"
    assert variables()["GATEHOUSE_LITELLM_MCP_STDIO"] == "false"
