"""MCP servers: tools that the gateway offers to models."""

import re
from typing import Annotated, Literal, Self
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from gatehouse.settings.field import Component, setting
from gatehouse.settings.models import KEY_NAME, reachable

# LiteLLM puts the name before each tool's, with a dash in between.
_NAME = r"^[a-z][a-z0-9_]{0,31}$"
_SECRET_IN_URL = re.compile(r"(^|&)[^=&]*(key|token|secret|password)[^=&]*=", re.IGNORECASE)

AuthType = Literal["none", "api_key", "bearer_token", "basic", "authorization", "token"]


def _without_secret(url: str | None) -> str | None:
    if url and _SECRET_IN_URL.search(urlsplit(url).query):
        raise ValueError("holds a secret: give its name as auth_key instead")
    return url


class McpServer(BaseModel):
    """One entry of `mcp_servers`: a server of tools, and which of them are offered to whom."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    name: Annotated[
        str,
        Field(
            description="Lower case letters, digits and underscores; keys are granted it by this "
            "name, and its tools are called name-tool.",
            pattern=_NAME,
        ),
    ]
    enabled: Annotated[bool, Field(description="False: listed, but not offered.")] = True
    transport: Annotated[
        Literal["http", "sse", "stdio"],
        Field(description="http is the protocol's streamable HTTP; stdio starts a command."),
    ] = "http"
    url: Annotated[
        str | None,
        Field(description="Address as the container sees it.", pattern=r"^https?://\S+$"),
        AfterValidator(reachable),
        AfterValidator(_without_secret),
    ] = None
    command: Annotated[
        list[str] | None,
        Field(description="For stdio: the command and its arguments, in the container."),
    ] = None
    auth_type: Annotated[
        AuthType, Field(description="How the gateway shows its secret to the server.")
    ] = "none"
    auth_key: Annotated[
        str | None,
        Field(
            description="Name of the secret it needs (never the secret itself), given like a "
            "provider key; without that secret it is not offered.",
            pattern=KEY_NAME,
        ),
    ] = None
    allowed_tools: Annotated[
        list[str] | None, Field(description="Only these of its tools. None: all.", min_length=1)
    ] = None
    disallowed_tools: Annotated[
        list[str] | None, Field(description="All of its tools but these.", min_length=1)
    ] = None
    access_groups: Annotated[
        list[str], Field(description="Names under which several servers are granted together.")
    ] = []
    description: Annotated[str | None, Field(description="What people are shown.")] = None

    @model_validator(mode="after")
    def _complete(self) -> Self:
        if self.transport == "stdio":
            if not self.command or self.url:
                raise ValueError("stdio starts a command: give command, and no url")
        elif not self.url or self.command:
            raise ValueError(f"{self.transport} is reached at an address: give url, and no command")
        if (self.auth_type == "none") != (self.auth_key is None):
            raise ValueError("auth_type and auth_key go together: give both or neither")
        if self.allowed_tools and self.disallowed_tools:
            raise ValueError("allowed_tools leaves out all others: remove disallowed_tools")
        return self


class McpSettings(Component):
    """MCP servers, offered to the keys that are granted them and to nobody else."""

    mcp_servers: Annotated[
        list[McpServer], setting("MCP servers whose tools keys can be granted: docs/mcp.md.")
    ]
    mcp_stdio_allowed: Annotated[
        bool,
        setting(
            "Allow MCP servers that are commands. They run inside the gateway's container, where "
            "its keys are (CVE-2026-42271): an MCP server of its own is safer."
        ),
    ]
