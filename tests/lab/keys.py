"""What the tests of keys do on a host: call the command, and ask with a value that stays there."""

import json
import subprocess
from typing import Any

import jsonschema

from gatehouse.lab.common import ROOT
from gatehouse.lab.workstation import Workstation
from tests.gateway import question
from tests.waiting import wait_for

SELFTEST = "chat-selftest-builtin"
PYTHON = "/opt/gatehouse/venv/bin/python"
# As the command itself, but ended as by SIGKILL before this change of LiteLLM (counted from zero).
_CUT_SHORT = """
import os, sys
from gatehouse.tool import here, keys
left, post = [int(sys.argv[1])], here.Gateway.post
def cut(self, path, body):
    if not left[0]:
        os._exit(137)
    left[0] -= 1
    return post(self, path, body)
here.Gateway.post = cut
keys.keys(sys.argv[2:])
"""


def keys(workstation: Workstation, *words: str, code: int = 0) -> subprocess.CompletedProcess[str]:
    """Call `gatehouse keys`, and expect an exit code."""
    done = workstation.exec(["gatehouse", "keys", *words], check=False)
    assert done.returncode == code, done.stdout + done.stderr
    return done


def cut_short(workstation: Workstation, step: int, *words: str) -> None:
    """Call `gatehouse keys`, and kill it at its step."""
    done = workstation.exec([PYTHON, "-I", "-c", _CUT_SHORT, str(step), *words], check=False)
    assert done.returncode == 137, done.stdout + done.stderr


def document(output: str, schema: str) -> dict[str, Any]:
    """Give a document that holds what its schema says."""
    found: dict[str, Any] = json.loads(output)
    jsonschema.validate(found, json.loads((ROOT / f"docs/schemas/{schema}.json").read_text()))
    return found


def ask(workstation: Workstation, file: str, model: str | None = None, times: int = 1) -> list[str]:
    """Ask with the key in a file on the host, for the models or for a chat; gives the statuses."""
    one = "curl -s -o /dev/null -w '%{http_code}\\n' -H @<(printf 'Authorization: Bearer '; cat "
    one += f"{file}) -H 'Content-Type: application/json' http://127.0.0.1:4000"
    if model is None:
        return workstation.exec(f"for i in $(seq {times}); do {one}/v1/models; done").stdout.split()
    body = json.dumps(question(model, "Question $i of $RANDOM$RANDOM$RANDOM")).replace('"', '\\"')
    chat = f'{one}/v1/chat/completions -d "{body}"'
    return workstation.exec(f"for i in $(seq {times}); do {chat}; done").stdout.split()


def refused(workstation: Workstation, file: str, seconds: float) -> bool:
    """Wait until every worker refuses the key in a file."""
    return wait_for(
        lambda: set(ask(workstation, file, times=8)) == {"401"},
        seconds,
        f"the key in {file} to be refused by all",
    )
