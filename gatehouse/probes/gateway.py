"""LiteLLM, as a client sees it. Arguments: its address, and the self-test model.

The master key is read here and goes to LiteLLM only.
"""

import http.client
import json
import re
import sys
import time
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from gatehouse.probes.common import OK, tell

KEY = "/etc/gatehouse/secrets/master_key"
CONFIG = "/opt/gatehouse/current/litellm/config.yaml"
NAME = re.compile(r"^[- ]+model_name: (\S+)$", re.MULTILINE)
TIMEOUT = 8.0
# What NaCl makes of the shortest text is 40 bytes and more, in base64 without a separator.
CIPHERTEXT = re.compile(r"^(v2:gcm:.*|[A-Za-z0-9_+/-]{54,}={0,2})$")


class Client:
    """Asks LiteLLM."""

    def __init__(self, address: str, key: str) -> None:
        """Hold where it is and the key."""
        self._address = urlsplit(address).netloc
        self._key = key

    def ask(self, path: str, body: object = None, *, key: bool = True) -> tuple[int, str]:
        """Give status and text; raises `OSError`."""
        connection = http.client.HTTPConnection(self._address, timeout=TIMEOUT)
        headers = {"Content-Type": "application/json"}
        if key:
            headers["Authorization"] = f"Bearer {self._key}"
        try:
            if body is None:
                connection.request("GET", path, headers=headers)
            else:
                connection.request("POST", path, json.dumps(body), headers)
            answer = connection.getresponse()
            return answer.status, answer.read().decode(errors="replace")
        finally:
            connection.close()

    def get(self, path: str, body: object = None) -> Any:  # noqa: ANN401 - any JSON
        """Give the JSON of an answer; raises `OSError` with the status otherwise."""
        status, text = self.ask(path, body)
        if status != OK:
            raise OSError(f"{path} answered {status}: {text[:150]}")
        return json.loads(text)


def readiness(client: Client) -> dict[str, Any]:
    """Give what LiteLLM says of itself, also where it is not ready."""
    status, text = client.ask("/health/readiness", key=False)
    found = json.loads(text)
    seen = found if status == OK else found.get("detail", found)
    return {"status": status, **(seen if isinstance(seen, dict) else {"words": str(seen)})}


def completion(client: Client, model: str) -> dict[str, Any]:
    """Have the self-test model answer; no cache may answer for it."""
    begin = time.monotonic()
    body = {
        "model": model,
        "messages": [{"role": "user", "content": "Are you there?"}],
        "cache": {"no-cache": True, "no-store": True},
    }
    found = client.get("/v1/chat/completions", body)
    return {"object": found.get("object"), "seconds": round(time.monotonic() - begin, 3)}


def unreadable(client: Client) -> list[str]:
    """Give the models whose provider, name or address is ciphertext."""
    found = []
    for each in client.get("/model/info")["data"]:
        parameters = each.get("litellm_params") or {}
        for name in ("model", "custom_llm_provider", "api_base"):
            value = str(parameters.get(name) or "")
            if CIPHERTEXT.match(value.rpartition("/")[2] if name == "model" else value):
                found.append(f"{each.get('model_name')}: {name}")
    return found


def unlisted(client: Client) -> list[str]:
    """Give the models of the configuration that clients are not told of."""
    listed = {each["id"] for each in client.get("/v1/models")["data"]}
    return sorted(set(NAME.findall(Path(CONFIG).read_text())) - listed)


def page(client: Client) -> bool:
    """Tell whether the login page of the web interface is served."""
    status, text = client.ask("/ui/", key=False)
    return status == OK and "<html" in text.lower()


def main() -> None:
    """Ask everything at once."""
    client = Client(sys.argv[1], Path(KEY).read_text().strip())
    tell(
        {
            "completion": lambda: completion(client, sys.argv[2]),
            "liveness": lambda: client.ask("/health/liveliness", key=False)[0],
            "readiness": lambda: readiness(client),
            "unlisted": lambda: unlisted(client),
            "anonymous": lambda: client.ask("/v1/models", key=False)[0],
            "unreadable": lambda: unreadable(client),
            "page": lambda: page(client),
        },
        at_once=4,
    )


if __name__ == "__main__":
    main()
