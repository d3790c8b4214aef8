"""The gateway as its clients see it: with their own libraries, through an SSH tunnel."""

from collections.abc import Iterator

import litellm
import psycopg
import pytest

from gatehouse.lab.tunnel import tunnel
from gatehouse.lab.workstation import Workstation

NEW_KEY = """
import json, urllib.request as u
master = open("/run/secrets/master_key").read()
request = u.Request("http://127.0.0.1:4000/key/generate",
    b'{"duration": "10m", "key_alias": "client-library"}',
    {"Authorization": "Bearer " + master, "Content-Type": "application/json"})
print(json.load(u.urlopen(request, timeout=60))["key"])
"""


@pytest.fixture(scope="module")
def key(workstation: Workstation) -> Iterator[str]:
    """A virtual key; one that only ended by itself would be told as ended."""
    inside = ["docker", "exec", "-i", "gatehouse-litellm-1", "python3", "-"]
    yield workstation.exec(inside, text=NEW_KEY).stdout.strip()
    workstation.exec("gatehouse keys revoke client-library --yes")


def test_litellm_client_gets_completions_and_embeddings(workstation: Workstation, key: str) -> None:
    """LiteLLM's own client library gets an answer, a stream and an embedding from the gateway."""
    question = [{"role": "user", "content": "Are you there?"}]
    with tunnel(workstation, 4000) as port:
        way = {"api_base": f"http://127.0.0.1:{port}/v1", "api_key": key}
        model = "openai/chat-selftest-builtin"
        answer = litellm.completion(model=model, messages=question, **way)
        stream = litellm.completion(model=model, messages=question, stream=True, **way)
        streamed = "".join(part.choices[0].delta.content or "" for part in stream)
        vector = litellm.embedding(model="openai/embed-selftest-builtin", input=["a text"], **way)
    assert "self-test model" in answer.choices[0].message.content
    assert streamed == answer.choices[0].message.content
    assert vector.data[0]["embedding"] == [0.25, -0.5, 0.75, 1.0]


def test_litellm_client_with_another_key_is_refused(workstation: Workstation) -> None:
    """A key that nobody made is refused, and the client says so."""
    with tunnel(workstation, 4000) as port, pytest.raises(litellm.AuthenticationError):
        litellm.completion(
            model="openai/chat-selftest-builtin",
            messages=[{"role": "user", "content": "Are you there?"}],
            api_base=f"http://127.0.0.1:{port}/v1",
            api_key="sk-nobody-made-this",
            max_retries=0,
        )


def test_postgres_opens_on_loopback_with_its_password_only(workstation: Workstation) -> None:
    """A database client on the workstation's loopback needs the password, and then finds the keys."""
    password = workstation.exec("cat /etc/gatehouse/secrets/postgres_password").stdout
    where = {"host": "127.0.0.1", "user": "litellm", "dbname": "litellm", "connect_timeout": 30}
    with tunnel(workstation, 5434) as port:
        with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
            psycopg.connect(port=port, password="not-the-password", **where)
        with psycopg.connect(port=port, password=password, **where) as connection:
            found = connection.execute('SELECT count(*) FROM "LiteLLM_VerificationToken"')
            assert found.fetchone() is not None
