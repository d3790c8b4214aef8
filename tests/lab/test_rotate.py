"""`gatehouse secrets rotate` on a real gateway: one restart, the old value refused, and a way back."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import groupby

import jsonschema
import pytest

from gatehouse.lab.common import ROOT
from gatehouse.lab.workstation import Workstation
from tests.deploying import deploy
from tests.lab.conftest import containers, failing
from tests.waiting import wait_for

SECRETS = "/etc/gatehouse/secrets"
ROTATED = ("master_key", "postgres_password", "redis_password", "ui_password")
KEY = "sk-rotation-test-0123456789"
SECONDS = 180
# Asks the gateway five times a second with a virtual key, until it is told to stop.
CLIENT = f"""
import json, pathlib, time, urllib.error, urllib.request
body = json.dumps({{"model": "chat-selftest-builtin", "messages": [{{"role": "user", "content": "?"}}]}})
headers = {{"Authorization": "Bearer {KEY}", "Content-Type": "application/json"}}
with open("/root/client.log", "w", buffering=1) as log:
    while not pathlib.Path("/root/client.stop").exists():
        request = urllib.request.Request(
            "http://127.0.0.1:4000/v1/chat/completions", body.encode(), headers)
        try:
            print(urllib.request.urlopen(request, timeout=10).status, file=log)
        except urllib.error.HTTPError as error:
            print(error.code, file=log)
        except OSError:
            print("gone", file=log)
        time.sleep(0.2)
"""
# Fails once where a rotation restarts Redis, as a full disk or a broken engine would.
BROKEN_DOCKER = """#!/bin/sh
if [ "$1 $2" = "restart gatehouse-redis-1" ] && [ ! -e /root/broken ]; then
    touch /root/broken; echo "no space left on device" >&2; exit 1
fi
exec /usr/bin/docker "$@"
"""


def sums(workstation: Workstation) -> dict[str, str]:
    """Give the hash of each secret of the host."""
    found = workstation.exec(f"cd {SECRETS} && sha256sum *_key *_password").stdout
    return {line.split()[1]: line.split()[0] for line in found.splitlines()}


def logged(workstation: Workstation) -> list[dict[str, object]]:
    """Give the audit log's entries."""
    output = workstation.exec("gatehouse log --json -n 100").stdout
    entries: list[dict[str, object]] = json.loads(output)["entries"]
    return entries


def api(workstation: Workstation, path: str, body: dict[str, object]) -> None:
    """Tell the gateway something with the master key."""
    workstation.exec(
        f"curl -sSf -o /dev/null -H @- -H 'Content-Type: application/json' -d '{json.dumps(body)}' "
        f"http://127.0.0.1:4000{path}",
        text=f"Authorization: Bearer {workstation.exec(f'cat {SECRETS}/master_key').stdout}",
    )


@contextmanager
def client(workstation: Workstation) -> Iterator[list[str]]:
    """Have a client ask all the time; the list is filled with the statuses at the end."""
    api(workstation, "/key/generate", {"key": KEY, "key_alias": "rotation-test", "duration": "1h"})
    seen: list[str] = []
    workstation.exec(
        "cat >/root/client.py; rm -f /root/client.stop; : >/root/client.log", text=CLIENT
    )
    workstation.exec("systemd-run --quiet --collect --unit client python3 /root/client.py")
    try:
        yield seen
    finally:
        workstation.exec("touch /root/client.stop")
        wait_for(
            lambda: workstation.exec("systemctl is-active client", check=False).returncode != 0,
            30,
            "the client's end",
        )
        seen += workstation.exec("cat /root/client.log").stdout.split()
        api(workstation, "/key/delete", {"keys": [KEY]})


def test_rotation_restarts_once_and_the_old_values_are_refused(workstation: Workstation) -> None:
    """All four secrets change, clients see one gap, keys go on, and a deploy finds nothing to do."""
    before, running = sums(workstation), containers(workstation)
    with client(workstation) as seen:
        wait_for(lambda: "200" in workstation.exec("cat /root/client.log").stdout, 30, "an answer")
        output = workstation.exec("gatehouse secrets rotate all --yes").stdout
        count = len(workstation.exec("cat /root/client.log").stdout.split())
        wait_for(
            lambda: len(workstation.exec("cat /root/client.log").stdout.split()) > count + 3,
            30,
            "answers after the rotation",
        )
    for name in ("master", "redis", "postgres", "ui"):
        assert f"{name}: the new one is accepted, the old one refused" in output
    after = sums(workstation)
    assert {name for name in before if before[name] != after[name]} == set(ROTATED)
    served = [answered for answered, _ in groupby(seen, lambda status: status == "200")]
    assert served == [True, False, True], [(k, len(list(g))) for k, g in groupby(seen)]
    assert containers(workstation) == running
    assert failing(workstation) == []
    assert deploy(workstation).changed == []
    last = logged(workstation)[-1]
    assert (last["action"], last["result"]) == ("secrets rotate master redis postgres ui", "ok")


def test_values_show_nowhere(workstation: Workstation) -> None:
    """Neither the output nor the log of a rotation holds a value, and no old one is left."""
    values = workstation.exec(f"cat {SECRETS}/*_key {SECRETS}/*_password").stdout
    assert len(values) > 300
    shown = workstation.exec(
        f"cat {SECRETS}/*_key {SECRETS}/*_password | grep -oE '[0-9a-f]{{64}}' >/tmp/values; "
        "{ gatehouse secrets list; gatehouse secrets list --json; cat /var/lib/gatehouse/audit.jsonl; "
        "journalctl -b --no-pager; } | grep -cF -f /tmp/values; rm /tmp/values"
    )
    assert shown.stdout.strip() == "0"
    left = workstation.exec(f"ls {SECRETS}/*.old {SECRETS}/*.new", check=False)
    assert left.stdout == ""


def test_failed_rotation_goes_back(workstation: Workstation) -> None:
    """Where the stack does not come up with the new values, the old ones serve again."""
    before = sums(workstation)
    workstation.exec("mkdir -p /root/bin; rm -f /root/broken")
    workstation.exec("cat >/root/bin/docker; chmod +x /root/bin/docker", text=BROKEN_DOCKER)
    try:
        command = "PATH=/root/bin:$PATH gatehouse secrets rotate redis --yes"
        failed = workstation.exec(command, check=False)
    finally:
        workstation.exec("rm -r /root/bin /root/broken")
    assert failed.returncode == 1
    assert "the old values are in force again" in failed.stderr
    assert "no space left on device" in failed.stderr
    assert sums(workstation) == before
    assert failing(workstation) == []
    last = logged(workstation)[-1]
    assert (last["action"], last["result"]) == ("secrets rotate redis", "failed")
    assert "no space left" in json.dumps(last)


def test_killed_rotation_is_noticed_and_healed(workstation: Workstation) -> None:
    """After a SIGKILL in the middle, it is said what is unfinished, and `recover` brings it back."""
    before = sums(workstation)
    workstation.exec(
        "systemd-run --quiet --collect --unit rotation gatehouse secrets rotate ui --yes"
    )
    stopped = "docker inspect -f '{{.State.Running}}' gatehouse-litellm-1"
    wait_for(lambda: "false" in workstation.exec(stopped).stdout, 60, "the proxy's stop")
    workstation.exec("systemctl kill --signal KILL rotation")
    assert sums(workstation) != before
    listed = workstation.exec("gatehouse secrets list", check=False)
    assert listed.returncode == 1
    assert "gatehouse secrets recover" in listed.stderr
    status = json.loads(workstation.exec("gatehouse status --json", check=False).stdout)
    states = {each["name"]: each["state"] for each in status["checks"]}
    assert states["secrets: no rotation was broken off"] == "failure"
    assert "in force" in workstation.exec("gatehouse secrets recover").stdout
    assert sums(workstation) == before
    assert failing(workstation) == []
    assert "no rotation was broken off" in workstation.exec("gatehouse secrets recover").stdout


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        ("rotate salt --yes", 1, "encrypted with"),
        ("rotate mastr --yes", 2, "did you mean 'master'"),
        ("rotate all", 2, "say --yes"),
        ("set NO_SUCH_KEY", 2, "OLLAMA_API_KEY"),
        ("set OLLAMA_API_KEY", 2, "nothing came on standard input"),
    ],
)
def test_wrong_use_says_what_is_right(
    workstation: Workstation, arguments: str, code: int, words: str
) -> None:
    """Nothing is touched, and the message names what to do."""
    before = sums(workstation)
    found = workstation.exec(f"gatehouse secrets {arguments}", check=False)
    assert (found.returncode, words in found.stderr) == (code, True), found.stderr
    assert sums(workstation) == before


def test_only_root_may(workstation: Workstation) -> None:
    """A user without rights is told to use sudo."""
    for command in ("secrets list", "secrets rotate ui --yes", "secrets recover"):
        found = workstation.ssh(f"gatehouse {command}", user="operator", check=False)
        assert found.returncode == 2
        assert f"sudo gatehouse {command.split(' --')[0]}" in found.stderr


@pytest.mark.parametrize(
    ("command", "name"), [("secrets list", "secrets-list"), ("log", "log"), ("open", "open")]
)
def test_json_is_as_its_schema_says(workstation: Workstation, command: str, name: str) -> None:
    """What programs read is what docs/schemas/ promises."""
    schema = json.loads((ROOT / f"docs/schemas/{name}.json").read_text())
    document = json.loads(workstation.exec(f"gatehouse {command} --json").stdout)
    jsonschema.validate(document, schema)
    assert all(document.values()) or name == "secrets-list"
