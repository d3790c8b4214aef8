"""A client of the gateway that runs inside its container, where Python and the master key are.

It reads requests as JSON from standard input and prints the answers as JSON. No key leaves the
container: requests name keys, and what is said of them is said by name. `{master}` is the master
key, `{ui_password}` the web interface's password, and whatever `keep` saved from an answer can be
named in later requests, of later calls too. `keep_session` does so with the key of a web session.
"""

import base64
import http.client
import json
import os
import sys
import urllib.parse
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

# On the container's memory disk, readable for the gateway's own user.
STORE = Path("/tmp/gatehouse-verify.json")  # noqa: S108
SECRETS = Path("/run/secrets")
AGENT = "gatehouse-verify"


def main() -> None:
    """Ask everything, in order or at once, and print what was answered."""
    task = json.load(sys.stdin)
    if task.get("forget"):
        STORE.unlink(missing_ok=True)
    known = json.loads(STORE.read_text()) if STORE.exists() else {}
    for name in ("master_key", "ui_password"):
        known[name.removesuffix("_key")] = (SECRETS / name).read_text()
    if task.get("at_once"):
        with ThreadPoolExecutor(task["at_once"]) as pool:
            answers = list(pool.map(lambda each: ask(each, known), task["requests"]))
    else:
        answers = [ask(each, known) for each in task["requests"]]
    kept = {name: value for name, value in known.items() if name not in {"master", "ui_password"}}
    if kept:
        with os.fdopen(os.open(STORE, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
            json.dump(kept, file)
    print(json.dumps([hidden(answer, known) for answer in answers]))  # noqa: T201


def ask(request: dict[str, Any], known: dict[str, str]) -> dict[str, Any]:
    """Send one request; status 0 means that there was no answer."""
    headers = {"User-Agent": AGENT, **shown(request.get("headers", {}), known)}
    content = None
    if request.get("key"):
        headers["Authorization"] = f"Bearer {shown(request['key'], known)}"
    if "form" in request:
        headers["Content-Type"] = "application/x-www-form-urlencoded"
        content = urllib.parse.urlencode(shown(request["form"], known))
    elif "body" in request:
        headers["Content-Type"] = "application/json"
        content = json.dumps(shown(request["body"], known))
    connection = http.client.HTTPConnection("127.0.0.1", 4000, timeout=request.get("timeout", 60))
    try:
        connection.request(request["method"], shown(request["path"], known), content, headers)
        answer = connection.getresponse()
        # A stream that is not an answer's but an endless one is not read to its end.
        text = answer.read(request.get("bytes", 4_000_000)).decode(errors="replace")
    except (OSError, http.client.HTTPException) as error:
        return {"status": 0, "headers": {}, "text": repr(error)}
    finally:
        connection.close()
    for field, name in request.get("keep", {}).items():
        known[name] = str(json.loads(text).get(field, "none"))
    found = {name.lower(): value for name, value in answer.getheaders()}
    if name := request.get("keep_session"):
        keep_session(name, found.get("set-cookie", ""), known)
    return {"status": answer.status, "headers": found, "text": text}


def keep_session(name: str, cookie: str, known: dict[str, str]) -> None:
    """Keep the web interface's cookie, a JWT, as `NAME_cookie`, and the key inside it as `NAME`."""
    token = cookie.partition("token=")[2].partition(";")[0]
    payload = token.split(".")[1] if token.count(".") == 2 else ""
    if payload:
        known[f"{name}_cookie"] = token
        known[name] = json.loads(base64.urlsafe_b64decode(payload + "=="))["key"]


def shown(value: Any, known: dict[str, str]) -> Any:  # noqa: ANN401 - any JSON
    """Put the values in the place of `{name}`."""
    if isinstance(value, dict):
        return {key: shown(each, known) for key, each in value.items()}
    if isinstance(value, list):
        return [shown(each, known) for each in value]
    if isinstance(value, str):
        for name, secret in known.items():
            value = value.replace(f"{{{name}}}", secret)
    return value


def hidden(value: Any, known: dict[str, str]) -> Any:  # noqa: ANN401 - the same
    """Put `{name}` in the place of the values."""
    if isinstance(value, dict):
        return {key: hidden(each, known) for key, each in value.items()}
    if isinstance(value, str):
        for name, secret in known.items():
            if len(secret) > 8:
                value = value.replace(secret, f"{{{name}}}")
    return value


if __name__ == "__main__":
    main()
