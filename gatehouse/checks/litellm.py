"""LiteLLM."""

from gatehouse.checks.check import Check, Result, equals
from gatehouse.checks.service import healthy
from gatehouse.settings import Settings

# Asked inside the container, which has Python and the key; only the answer leaves it.
_ASK = """docker exec gatehouse-litellm-1 python3 -c '
import json, urllib.request as u
key = open("/run/secrets/master_key").read()
def ask(path, body=None):
    request = u.Request("http://127.0.0.1:4000" + path, json.dumps(body).encode() if body else None,
        {{"Authorization": "Bearer " + key, "Content-Type": "application/json"}})
    return json.load(u.urlopen(request, timeout=60))
{question}
'"""


def _ask(question: str) -> str:
    return _ASK.format(question=question)


def _anonymous(_: int, output: str) -> Result:
    return Result(output.strip() == "401", output.strip())


def checks(settings: Settings) -> list[Check]:
    """Give the checks of the gateway, as a client sees it."""
    address = settings.network_bind_address
    host = "127.0.0.1" if address.is_unspecified else str(address)
    url = f"http://{host}:{settings.litellm_port}"
    probe = (
        "python3 -c 'import sys, urllib.request as u, urllib.error as e\n"
        "try: print(u.urlopen(sys.argv[1], timeout=20).status)\n"
        "except e.HTTPError as error: print(error.code)' "
    )
    inside = "docker exec gatehouse-litellm-1 "
    migrations = (
        "docker ps -aq --filter label=com.docker.compose.project=gatehouse "
        "--filter label=com.docker.compose.service=litellm-migrate | "
        "xargs -r docker inspect -f '{{.State.Status}} {{.State.ExitCode}}'"
    )
    logs = "cd /opt/gatehouse/current && docker compose logs --tail 50 litellm"
    return [
        Check(
            name="litellm: migrations done",
            component="litellm",
            expected="exited 0",
            command=migrations,
            judge=equals("exited 0"),
            fix="cd /opt/gatehouse/current && docker compose logs litellm-migrate",
        ),
        healthy("litellm"),
        Check(
            name="litellm: connected to its database",
            component="litellm",
            expected="connected",
            command=_ask('print(ask("/health/readiness")["db"])'),
            judge=equals("connected"),
            fix=logs,
        ),
        Check(
            name="litellm: refuses a client without a key",
            component="litellm",
            expected="401",
            command=f"{inside}{probe} http://127.0.0.1:4000/v1/models",
            judge=_anonymous,
            fix=logs,
        ),
        Check(
            name="litellm: answers through the self-test model",
            component="litellm",
            expected="an answer",
            command=_ask(
                'body = {"model": "chat-selftest-builtin", "messages": [{"role": "user", '
                '"content": "Are you there?"}]}\n'
                'print(ask("/v1/chat/completions", body)["object"])'
            ),
            judge=equals("chat.completion"),
            fix=f"{logs}; the address is {url}",
        ),
    ]
