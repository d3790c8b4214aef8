"""An MCP server behind a running gateway: who is granted it, who is not."""

import json
import uuid
from collections.abc import Iterator
from typing import Any

import pytest

from gatehouse.lab.workstation import Workstation
from tests.deploying import deploy
from tests.gateway import CONTAINER, Gateway
from tests.lab.conftest import UPSTREAM, wanted
from tests.waiting import wait_for

PORT = 9300
NAME, KEY, TOKEN = "wiki", "WIKI_MCP_TOKEN", "canary-0c96d1f0a3"
SETTINGS: dict[str, object] = {
    "mcp_servers": [
        {
            "name": NAME,
            "url": f"http://host.docker.internal:{PORT}/mcp",
            "auth_type": "bearer_token",
            "auth_key": KEY,
            "allowed_tools": ["add"],
            "access_groups": ["sums"],
        }
    ]
}
HELLO = {
    "jsonrpc": "2.0",
    "id": 1,
    "method": "initialize",
    "params": {
        "protocolVersion": "2025-06-18",
        "capabilities": {},
        "clientInfo": {"name": "test", "version": "1"},
    },
}
ACCEPT = {"Accept": "application/json, text/event-stream"}
# A real server with two tools, for those who have its token.
SERVER = f"""
import uvicorn
from mcp.server import MCPServer
from mcp.server.transport_security import TransportSecuritySettings

server = MCPServer("sums")

@server.tool()
def add(a: int, b: int) -> int:
    "Add two numbers."
    return a + b

@server.tool()
def erase() -> str:
    "Not for everybody."
    return "erased"

anyone = TransportSecuritySettings(enable_dns_rebinding_protection=False)
app = server.streamable_http_app(transport_security=anyone)

async def guarded(scope, receive, send):
    headers = dict(scope.get("headers") or [])
    if scope["type"] == "http" and headers.get(b"authorization") != b"Bearer {TOKEN}":
        await send({{"type": "http.response.start", "status": 401, "headers": []}})
        await send({{"type": "http.response.body", "body": b"no token"}})
        return
    await app(scope, receive, send)

uvicorn.run(guarded, host="172.30.40.1", port={PORT}, log_level="warning")
"""
# A real client, inside the gateway's container, with a key that tests/agent.py keeps there.
CLIENT = """
import asyncio, json, sys
import httpx2
from mcp.client.client import Client
from mcp.client.streamable_http import streamable_http_client

async def main(name, tool):
    key = json.load(open("/tmp/gatehouse-verify.json"))[name]
    web = httpx2.AsyncClient(headers={"Authorization": "Bearer " + key}, timeout=30)
    async with Client(streamable_http_client("http://127.0.0.1:4000/mcp", http_client=web)) as client:
        tools = [each.name for each in (await client.list_tools()).tools]
        found = {"tools": tools}
        if tool:
            try:
                result = await client.call_tool(tool, {"a": 2, "b": 3})
                found |= {"error": result.is_error, "text": result.content[0].text}
            except Exception as error:
                found |= {"error": True, "text": str(error)}
        print(json.dumps(found))

asyncio.run(main(*sys.argv[1:]))
"""


@pytest.fixture(scope="module")
def _server(workstation: Workstation) -> Iterator[None]:
    """Have an MCP server on the host and a gateway that knows it, and afterwards neither."""
    deploy(workstation, settings=SETTINGS, environment={KEY: TOKEN})
    image = wanted(workstation).litellm_image
    workstation.exec("cat >/usr/local/bin/mcp_server.py", text=SERVER)
    workstation.exec(
        "docker run --detach --rm --name mcp-server --network host --entrypoint python3 "
        f"--volume /usr/local/bin/mcp_server.py:/server.py:ro {image} /server.py"
    )
    try:
        wait_for(
            lambda: workstation.exec(f"curl -s {UPSTREAM}:{PORT}/mcp", check=False).stdout,
            60,
            "the MCP server",
        )
        yield
    finally:
        workstation.exec("docker rm --force mcp-server", check=False)
        workstation.exec(f"rm -f /etc/gatehouse/secrets/providers/{KEY}")
        deploy(workstation)


@pytest.fixture
def key(gateway: Gateway, _server: None) -> Iterator[Any]:
    """Give a maker of virtual keys by what they are granted."""

    def make(name: str, **grant: list[str]) -> str:
        body: dict[str, object] = {"key_alias": f"{name}-{uuid.uuid4()}"}
        if grant:
            body["object_permission"] = grant
        answer = gateway.ask("POST", "/key/generate", body, keep={"key": name})
        assert answer.status == 200, answer.text
        return name

    yield make
    gateway.forget()


def use(workstation: Workstation, key: str, tool: str = "") -> dict[str, Any]:
    """List the tools that a key has, and call one."""
    run = workstation.exec(
        f"docker exec -i {CONTAINER} python3 - {key} '{tool}'", text=CLIENT, check=False
    )
    assert run.returncode == 0, run.stderr[-2000:]
    found: dict[str, Any] = json.loads(run.stdout.splitlines()[-1])
    return found


def test_server_wants_its_token(workstation: Workstation, key: Any) -> None:  # noqa: ANN401
    """Without the gateway nobody gets in."""
    assert workstation.exec(f"curl -s {UPSTREAM}:{PORT}/mcp").stdout == "no token"


@pytest.mark.parametrize("grant", [{"mcp_servers": [NAME]}, {"mcp_access_groups": ["sums"]}])
def test_granted_key_calls_the_tool(
    workstation: Workstation,
    key: Any,  # noqa: ANN401
    grant: dict[str, list[str]],
) -> None:
    """By the server's name or its group; a tool that is not allowed is not there."""
    name = key("granted", **grant)
    found = use(workstation, name, f"{NAME}-add")
    assert found == {"tools": [f"{NAME}-add"], "error": False, "text": "5"}
    assert use(workstation, name, f"{NAME}-erase")["error"]


def test_other_key_is_refused(gateway: Gateway, key: Any) -> None:  # noqa: ANN401
    """A key that was granted nothing gets no session, at the front door as at the server's own."""
    name = key("other")
    for path in ("/mcp", f"/mcp/{NAME}"):
        answer = gateway.ask("POST", path, HELLO, f"{{{name}}}", headers=ACCEPT)
        assert answer.status == 403, (path, answer.status, answer.text)
        assert "mcp" in answer.text.lower(), answer.text


def test_other_key_is_told_why(gateway: Gateway, key: Any) -> None:  # noqa: ANN401
    """The plain API says that the server is not the key's."""
    name = key("other")
    body = {"server_id": NAME, "name": "add", "arguments": {"a": 2, "b": 3}}
    answer = gateway.ask("POST", "/mcp-rest/tools/call", body, f"{{{name}}}")
    assert answer.status == 403, answer.text


def test_nobody_is_refused(gateway: Gateway, key: Any) -> None:  # noqa: ANN401
    """Without a key there is no way in."""
    for method, path in (
        ("POST", "/mcp"),
        ("POST", f"/mcp/{NAME}"),
        ("GET", "/mcp-rest/tools/list"),
    ):
        assert gateway.ask(method, path, HELLO, "", headers=ACCEPT).status == 401, path


def test_token_is_nowhere_to_be_read(workstation: Workstation, key: Any) -> None:  # noqa: ANN401
    """Neither the configuration nor the container's description holds the secret."""
    for command in (
        "cat /opt/gatehouse/current/litellm/config.yaml",
        f"docker inspect {CONTAINER}",
        f"docker logs {CONTAINER} 2>&1",
    ):
        assert TOKEN not in workstation.exec(command).stdout
