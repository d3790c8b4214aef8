"""Which of LiteLLM's routes answer without a key, and why that is right."""

import re
from collections.abc import Iterable
from http import HTTPStatus

from tests.gateway import Answer, Gateway, Request, request

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


def open_to(gateway: Gateway, routes: Iterable[tuple[str, str]], key: str) -> list[str]:
    """Ask every route (method, path) with this key, and give what is wrong with the answers."""
    asked = requests(sorted(routes), key)
    answers = gateway.all(*asked, at_once=4)
    # A gateway whose database is too busy to look a key up refuses: it is asked again.
    busy = [
        n for n, answer in enumerate(answers) if answer.status == HTTPStatus.SERVICE_UNAVAILABLE
    ]
    for number, answer in zip(busy, gateway.all(*(asked[n] for n in busy)), strict=True):
        answers[number] = answer
    return list(filter(None, map(wrong, asked, answers)))


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
