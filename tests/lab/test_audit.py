"""`gatehouse audit` on a real host: the score, and what is planted is found by value."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import jsonschema

from gatehouse.lab.common import ROOT
from gatehouse.lab.workstation import Workstation
from tests.given import run

SETTINGS = "/etc/gatehouse/settings.json"
# Below Docker's floor the audit says so: the lab's engine is the distribution's.
OLD_ENGINE = ["1.2.2"]
# What listens without a unit of ours is nobody's business; what does with one is.
PLANT = """
cd /etc/gatehouse/secrets
cat master_key >/opt/forgotten && chmod 644 /opt/forgotten
( printf 'X='; cat salt_key ) >/run/planted.env
systemd-run --quiet --unit planted-environment -p EnvironmentFile=/run/planted.env sleep infinity
systemd-run --quiet --unit planted-words python3 -I -c '
import os; os.execv("/bin/sleep", ["sleep " + open("/etc/gatehouse/secrets/ui_password").read().strip(), "infinity"])'
systemd-run --quiet --unit gatehouse-planted python3 -I -m http.server 8555
image=$(docker inspect -f '{{.Config.Image}}' gatehouse-redis-1)
docker run -d --name planted --privileged --network host --pid host --user 0 --env-file /run/planted.env \
    --label com.docker.compose.project=gatehouse --label com.docker.compose.service=planted \
    -v /var/run/docker.sock:/var/run/docker.sock --entrypoint sh "$image" -c 'echo "$X"; sleep 600'
rm /run/planted.env
usermod -aG docker operator
# In the journal one is a message, and the other in the command line of who wrote another one.
logger -t planted <redis_password
systemd-run --quiet --wait --unit planted-journal python3 -I -c '
import os; os.execv("/bin/sh", ["sh", "-c", "echo hello; sleep 1", open("/etc/gatehouse/secrets/postgres_password").read().strip()])'
docker run -d --name silent --log-driver none --entrypoint sleep "$image" 600
mkdir -p /run/planted /var/lib/systemd/coredump
cat redis_password >/run/planted/file
touch /var/lib/systemd/coredump/core.litellm.65534.b.1.2.zst
chmod 666 /etc/docker/daemon.json
"""
CLEAN = """
docker rm -fv planted silent
rm -rf /run/planted /var/lib/systemd/coredump/core.litellm.*
journalctl --quiet --rotate --vacuum-size=1K
systemctl stop planted-environment planted-words gatehouse-planted
systemctl reset-failed planted-words gatehouse-planted
rm -f /opt/forgotten /run/planted.env
gpasswd -d operator docker
chmod 644 /etc/docker/daemon.json
"""
# 5.26 and 4.1 are of the privileged root; 4.10 of its environment; G.2 of the host's own sockets.
FOUND = {
    *("1.1.2", "3.17", "4.1", "4.6", "4.10", "5.4", "5.5", "5.6", "5.10", "5.11", "5.12", "5.13"),
    *("5.16", "5.26", "5.29", "5.32", "G.1", "G.2", "G.3", "G.4", "G.5"),
    "secrets: visible nowhere else",
}


def audit(workstation: Workstation) -> dict[str, Any]:
    """Give the document of an audit; it is as its schema says, and no secret is in it."""
    done = workstation.exec("gatehouse audit --json", check=False)
    assert done.stdout, done.stderr
    document: dict[str, Any] = json.loads(done.stdout)
    jsonschema.validate(document, json.loads((ROOT / "docs/schemas/audit.json").read_text()))
    assert done.returncode == bool(document["failed"] or document["problems"])
    return document


def failed(document: dict[str, Any]) -> dict[str, str]:
    """Give what does not hold: id → what was found."""
    return {each["id"]: each["found"] for each in document["items"] if each["verdict"] == "fail"}


@contextmanager
def with_exceptions(workstation: Workstation, **changes: str) -> Iterator[None]:
    """Let a host except other items, too."""
    edit = (
        "import json, sys; p = '/etc/gatehouse/settings.json'; d = json.load(open(p)); "
        "d['audit_exceptions'] |= json.loads(sys.argv[1]); open(p, 'w').write(json.dumps(d))"
    )
    workstation.exec(f"cp -a {SETTINGS} /root/kept-settings")
    try:
        workstation.exec(["python3", "-c", edit, json.dumps(changes)])
        yield
    finally:
        workstation.exec(f"mv /root/kept-settings {SETTINGS}")


def test_audit_finds_nothing_but_an_old_engine(workstation: Workstation) -> None:
    """What the deploy made holds or is excepted; the distribution's Docker is below the floor."""
    document = audit(workstation)
    assert list(failed(document)) == OLD_ENGINE
    assert document["problems"] == []
    assert document["unknown"] == 0
    assert document["passed"] + document["excepted"] + len(OLD_ENGINE) == document["applicable"]
    sections = {each["section"] for each in document["items"]}
    assert {"the daemon", "containers", "exposure"} < sections


def test_audit_finds_what_is_planted(workstation: Workstation) -> None:
    """A privileged container, a listener, and secrets wherever they are, are each found by name."""
    try:
        workstation.exec(PLANT)
        found = failed(audit(workstation))
        values = workstation.exec("cat /etc/gatehouse/secrets/*_*").stdout.split()
    finally:
        workstation.exec(CLEAN, check=False)
    assert set(found) == {*OLD_ENGINE, *FOUND}
    assert found["1.1.2"] == "operator"
    assert "tcp 0.0.0.0:8555" in found["G.1"]
    assert "secrets/salt_key in docker inspect planted" in found["4.10"]
    assert "secrets/salt_key in the environment of sleep" in found["G.3"]
    assert "secrets/ui_password in the command line of sleep" in found["G.3"]
    assert "secrets/salt_key in the log of planted" in found["G.4"]
    assert "secrets/redis_password in the journal" in found["G.4"]
    assert "secrets/postgres_password in the journal" in found["G.4"]
    assert "silent" not in found["G.4"]
    assert "secrets/master_key in /opt/forgotten (readable for everybody)" in found["G.5"]
    assert "secrets/redis_password in /run/planted/file" in found["G.5"]
    assert "perhaps every secret of litellm in the core dump" in found["G.5"]
    assert not [value for value in values if value in json.dumps(found)]
    assert list(failed(audit(workstation))) == OLD_ENGINE


def test_exception_that_is_none_fails_the_audit(workstation: Workstation) -> None:
    """An item that holds, and one that is not there, may not be excepted."""
    changes = {
        "1.2.2": "the firewall closes what it leaves open",
        "5.5": "nothing is privileged",
        "5.99": "there is no such item",
    }
    with with_exceptions(workstation, **changes):
        document = audit(workstation)
    assert failed(document) == {}
    assert ["5.5" in each for each in document["problems"]] == [True, False]
    assert ["5.99" in each for each in document["problems"]] == [False, True]


def test_audit_is_roots(workstation: Workstation) -> None:
    """Who may not read secrets cannot search for them, and is told so."""
    done = workstation.ssh("gatehouse audit", user="operator", check=False)
    assert done.returncode == 2
    assert "sudo gatehouse audit" in done.stderr


def test_make_audit_asks_every_host(workstation: Workstation) -> None:
    """From the operator's machine, each host of the inventory is audited over SSH."""
    inventory = workstation.access.inventory.relative_to(ROOT)
    done = run(ROOT, "gatehouse", "audit", "--inventory", str(inventory))
    assert done.returncode == 1, done.stderr
    assert "1.2.2" in done.stdout
    assert "score: " in done.stdout
    other = run(ROOT, "gatehouse", "audit", "--inventory", str(inventory), "--limit", "nobody")
    assert other.returncode == 2
    assert workstation.name in other.stderr
