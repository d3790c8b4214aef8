"""MCP servers, as the proxy's configuration names them."""

from typing import Any

from gatehouse.settings import Settings
from gatehouse.settings.mcp import McpServer


def servers(settings: Settings, keys: frozenset[str]) -> dict[str, dict[str, Any]]:
    """Give LiteLLM's `mcp_servers`; secrets are references to the environment.

    `keys`: names of the secrets that the host holds. A server that needs another is left out.
    """
    return {
        server.name: _entry(server)
        for server in settings.mcp_servers
        if server.enabled and (server.auth_key is None or server.auth_key in keys)
    }


def _entry(server: McpServer) -> dict[str, Any]:
    found: dict[str, Any] = {"transport": server.transport}
    if server.command:
        found |= {"command": server.command[0], "args": server.command[1:]}
    else:
        found["url"] = server.url
    if server.auth_key:
        found |= {"auth_type": server.auth_type, "auth_value": f"os.environ/{server.auth_key}"}
    optional = {
        "allowed_tools": server.allowed_tools,
        "disallowed_tools": server.disallowed_tools,
        "access_groups": server.access_groups,
        "description": server.description,
    }
    found |= {key: value for key, value in optional.items() if value}
    # Nobody has it who was not granted it, and nobody from outside is offered it.
    return found | {"allow_all_keys": False, "available_on_public_internet": False}
