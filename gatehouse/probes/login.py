"""Log in to the web interface as a person does, and end the session again.

Arguments: LiteLLM's address, the admin's name. The password is read here and goes to LiteLLM only.
"""

import base64
import hashlib
import http.client
import json
import subprocess
import sys
from pathlib import Path
from urllib.parse import urlencode, urlsplit

from gatehouse.probes.common import tell

SECRETS = Path("/etc/gatehouse/secrets")
TIMEOUT = 20.0
# The session is a key with a life of a day: it would stay in the table of keys.
FORGET = """
PGPASSWORD=$(cat /run/secrets/postgres_password)
export PGPASSWORD
exec psql -h 127.0.0.1 -U litellm -d litellm -AtXq \
-v token="$1" -f -"""
STATEMENT = "DELETE FROM \"LiteLLM_VerificationToken\" WHERE token = :'token'\n"


def login() -> str:
    """Give what came of it: `a session`, or what LiteLLM answered."""
    password = (SECRETS / "ui_password").read_text().strip()
    form = urlencode({"username": sys.argv[2], "password": password})
    connection = http.client.HTTPConnection(urlsplit(sys.argv[1]).netloc, timeout=TIMEOUT)
    headers = {"Content-Type": "application/x-www-form-urlencoded"}
    connection.request("POST", "/login", form, headers)
    answer = connection.getresponse()
    text = answer.read().decode(errors="replace")
    cookie = answer.headers.get("Set-Cookie", "")
    if not cookie.startswith("token="):
        return f"LiteLLM answered {answer.status}: {text[:200]}"
    payload = cookie.removeprefix("token=").split(";")[0].split(".")[1]
    session = json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))["key"]
    token = hashlib.sha256(session.encode()).hexdigest()
    subprocess.run(
        ["docker", "exec", "-i", "gatehouse-postgres-1", "sh", "-c", FORGET, "sh", token],
        input=STATEMENT,
        capture_output=True,
        text=True,
        timeout=20,
        check=True,
    )
    return "a session"


def main() -> None:
    """Try it."""
    tell({"login": login})


if __name__ == "__main__":
    main()
