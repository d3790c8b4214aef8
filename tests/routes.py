"""Who may call which of LiteLLM's routes: nobody, a wrong key, an ordinary key; and why."""

import re
from collections.abc import Iterable
from http import HTTPStatus
from typing import Any
from urllib.parse import urlencode

from tests.gateway import Answer, Gateway, Request, request

Schema = dict[str, Any]
DAYS = {"start_date": "2026-01-01", "end_date": "2026-01-02"}
DEEPEST = 6
# Of LiteLLM's routes, that an ordinary key is refused.
MOST_REFUSE = 350
# … and of all together.
MANY = 500
# No answer yet, and nobody was let in: it is asked again. LiteLLM refuses so while its database is
# too busy to look a key up, and when its MCP part, which the first request for it loads, takes
# longer than the 30 s it gives it (`_stream_mcp_asgi_response`): on an emulated processor it does.
BUSY = (HTTPStatus.SERVICE_UNAVAILABLE, HTTPStatus.GATEWAY_TIMEOUT)

# Route, with `none` in the place of its parameters → why anybody may call it.
PUBLIC = {
    r"/|/test": "says that something runs here",
    r"/health/(liveliness|liveness|readiness)": "health probes have no key",
    r"(/mcp)?/(openapi\.json|routes|redoc|docs.*|swagger.*)": "LiteLLM's own API, the same everywhere",
    r"/mcp/enabled": "says that LiteLLM can do MCP",
    r"(/litellm)?/\.well-known/.*": "how a client logs in",
    r"/(v1/)?public/.*": "LiteLLM's own price list and providers; nothing is published in the hubs",
    r"/claude-code/marketplace\.json": "a list of plugins, empty",
    r"/get/ui_(theme_)?settings|/sso/get/ui_settings|/get_(logo_url|image|favicon)": "the login page",
    r"/ui.*|/fallback/login|/sso/key/generate|/_next.*|/litellm-asset-prefix/.*": "the login page",
    r"(/none)?/register": "always gives the same made-up OAuth client, and keeps nothing",
    r"/config/yaml": "a mock that greets, whatever it is sent",
    r"/sso/cli/start": "begins a login that the admin has to finish in the browser",
    r"/api/event_logging/batch": "takes telemetry of clients and drops it",
}
# Routes that refuse before they look at a key, or look for something else than a key.
REFUSING = {
    r"(/none)?/(authorize|token|revoke|callback).*": "a step of an OAuth login that was never begun",
    r"/moyai/connect/exchange|/onboarding/.*": "wants a code that was given out before",
    r"/login|/v\d/login.*|/sso/.*": "wants the password, or a single sign-on that is not set up",
    r"(/toolset)?/(none|mcp)/mcp": "there is no such server; one that exists wants a key",
    r"/langfuse/.*": "wants the key in Langfuse's own header",
    r"/liteadmin/slack/connect/.*": "wants a token that was given out before",
    r"/(v1/)?(realtime|live/sessions)": "no such route but for WebSockets",
    r"/v1/(logs|traces)|/health/drain|/robots\.txt|/v1/mcp/registry\.json|/v1/skills/none/archive": "switched off",
}
# Routes that let an ordinary virtual key in: what it is for, and what it may know of itself. All
# others refuse it (401 or 403).
_MODEL_ROUTES = (
    "chat/.*|completions|embeddings|moderations|rerank|audio/.*|images/.*|responses.*|messages.*"
    "|models.*|batches.*|files.*|fine_tuning/.*|assistants.*|threads.*|vector_stores.*|videos.*"
    "|containers.*|interactions.*|realtime.*|live/.*|ocr|rag/.*|search.*|skills.*|systemone"
    "|decisions|deployments/.*|vector_store/(list|info)"
)
ORDINARY = {
    rf"/(v1/|v1beta/|v2/|openai/(v1/)?|cursor/(v1/)?|engines/none/)?({_MODEL_ROUTES})": "models",
    r"/[\w.]+/none": "a provider's own API, with the models that the key may use",
    r"/(bespoke|laya)/v1/systemone|/(comprehendmedical|transcribe)(/none)?": "the same",
    r"/(v1/)?a2a/none.*|/v1/agents(/none)?": "agents that the key may use: none",
    r"/mcp(/proxy|/sse.*)?|/mcp-rest/.*|/v1/mcp/.*": "MCP servers that the key may use, and its own logins",
    r"/(v1/|v2/)?model(_group)?/info|/key/(info|health)|/utils/.*|/cost/predict-cache": "about models "
    "and itself",
    r"/health": "asks the models that the key may use, and so wakes engines: give keys `models`",
    r"/health/services": "says which alerts are set up: none",
    r"/(v2/)?user/info|/(user|team|organization)/(daily/activity.*|available|spend/by_user)": "what "
    "itself, or its team, has spent",
    r"/team/(info|metadata_schema|permissions_list|none/members/me)|/project/(info|list)": "its team",
    r"/get/(latest_release_info|user_banner)|/telemetry/ui_events.*": "the web interface",
    r"/claude-code/plugins(/none)?|/guardrails/submissions(/none)?": "lists, empty",
    r"/auto_router/(session|test_routing)": "its own turns, and a dry run",
    r"/lens.*|/v1/traces.*": "switched off",
}
# Routes that look at what is sent before they look at who sends it. What is sent here names nothing
# that exists; with what does, they refuse (tests/host/test_litellm.py).
_LATER = "team, model or user that is not there"
LATER = {
    r"/team/(member_(add|delete|update)|permissions_update|none/member/none/reset_.*)": _LATER,
    r"/management/v1/teams/none/members/.*": _LATER,
    r"/model/(update|delete|none/update)": _LATER,
    r"/guardrails/register|/v1/mcp/server/register|/introspect": "wants a team, or a token",
    r"/health/test_connection": "wants a model of its own team",
}


def filled(path: str) -> str:
    """Put a name that nothing has in the place of the path's parameters."""
    return re.sub(r"\{[^}]*\}", "none", path)


def requests(routes: Iterable[tuple[str, str]], key: str) -> list[Request]:
    """Give a request for each route (method, path); its answer's beginning is enough."""
    return [
        request(
            method,
            filled(path),
            None if method in {"GET", "HEAD", "OPTIONS"} else {},
            key,
            bytes=300,
        )
        for method, path in routes
    ]


def every(gateway: Gateway) -> set[tuple[str, str]]:
    """Give every route (method, path) that LiteLLM describes or lists."""
    described = gateway.ask("GET", "/openapi.json").json()["paths"]
    listed = gateway.ask("GET", "/routes").json()["routes"]
    found = {(method.upper(), path) for path, methods in described.items() for method in methods}
    found |= {(method, each["path"]) for each in listed for method in each["methods"] or ()}
    assert len(found) > MANY, "this is not the whole list"
    return found


def unused(routes: Iterable[tuple[str, str]]) -> list[str]:
    """Give the patterns of what an ordinary key may that no route is called by any more."""
    paths = {filled(path) for _, path in routes}
    patterns = [*ORDINARY, *LATER]
    return [each for each in patterns if not any(re.fullmatch(each, path) for path in paths)]


def open_to(gateway: Gateway, routes: Iterable[tuple[str, str]], key: str) -> list[str]:
    """Ask every route (method, path) with this key, and give what is wrong with the answers."""
    asked = requests(sorted(routes), key)
    answers = gateway.all(*asked, at_once=4)
    busy = [n for n, answer in enumerate(answers) if answer.status in BUSY]
    for number, answer in zip(busy, gateway.all(*(asked[n] for n in busy)), strict=True):
        answers[number] = answer
    return list(filter(None, map(wrong, asked, answers)))


def refusing(
    gateway: Gateway, routes: Iterable[tuple[str, str]], schema: Schema, key: str
) -> list[str]:
    """Ask every route that should refuse an ordinary key, with a body as the route wants it.

    Gives what let it in.
    """
    may = [*PUBLIC, *REFUSING, *ORDINARY, *LATER]
    asked = [
        request(method, filled(path) + query, body, key, bytes=300)
        for method, path in sorted(routes)
        if not _any(may, filled(path))
        for body, query in [sent(schema, method, path)]
    ]
    assert len(asked) > MOST_REFUSE, "too many routes are left out"
    return [
        f"{each['method']} {each['path']} answered {answer.status}: {answer.text[:120]}"
        for each, answer in zip(asked, gateway.all(*asked, at_once=4), strict=True)
        if answer.status not in {HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN}
    ]


def sent(schema: Schema, method: str, path: str) -> tuple[object, str]:
    """Make the smallest body and query that a route takes, by LiteLLM's own description of it."""
    described = schema["paths"].get(path, {}).get(method.lower(), {})
    content = described.get("requestBody", {}).get("content", {}).get("application/json", {})
    none = None if method in {"GET", "HEAD", "OPTIONS"} else {}
    body = value(schema, content["schema"]) if "schema" in content else none
    wanted = [each for each in described.get("parameters", []) if each["in"] == "query"]
    named = {each["name"] for each in wanted}
    pairs = {each["name"]: value(schema, each["schema"]) for each in wanted if each.get("required")}
    pairs |= {name: day for name, day in DAYS.items() if name in named}
    return body, f"?{urlencode(pairs)}" if pairs else ""


def value(schema: Schema, wanted: Schema, depth: int = 0) -> object:
    """Make a value of a JSON schema: required parts only, and words that mean nothing."""
    while "$ref" in wanted:
        found: Any = schema
        for part in wanted["$ref"].split("/")[1:]:
            found = found[part]
        wanted = found
    if several := wanted.get("anyOf") or wanted.get("oneOf") or wanted.get("allOf"):
        return value(schema, several[0], depth)
    if "enum" in wanted or "const" in wanted:
        return wanted.get("const", wanted.get("enum", [None])[0])
    if wanted.get("type") == "object" or "properties" in wanted:
        required = wanted.get("required", []) if depth < DEEPEST else []
        parts = wanted.get("properties", {})
        return {name: value(schema, parts[name], depth + 1) for name in required if name in parts}
    if wanted.get("type") == "array":
        return [value(schema, wanted.get("items", {}), depth + 1)]
    return {"integer": 1, "number": 1, "boolean": False}.get(wanted.get("type", ""), "none")


def wrong(asked: Request, answer: Answer) -> str | None:
    """Say what is wrong with an answer that was given to somebody without a key."""
    path = asked["path"].partition("?")[0]
    if _any(PUBLIC, path) or answer.status in {HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN}:
        return None
    if _any(REFUSING, path) and answer.status >= HTTPStatus.BAD_REQUEST:
        return None
    return f"{asked['method']} {path} answered {answer.status}: {answer.text[:120]}"


def _any(patterns: Iterable[str], path: str) -> bool:
    return any(re.fullmatch(pattern, path) for pattern in patterns)
