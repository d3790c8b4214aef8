"""Alerts on a real host: one message for each change, and what happens when nobody takes it."""

import json
from collections.abc import Iterator
from typing import Any

import pytest

from gatehouse.health.told import FOLDER, NAME
from gatehouse.lab.workstation import Workstation
from gatehouse.render.health import ALERTS_URL, UNITS, files
from tests.lab.conftest import wanted
from tests.waiting import wait_for

PORT = 8199
SECRET_PATH = "/hook/not-shown-0123"
INBOX = "/root/inbox"
DROP_IN = f"{UNITS}/gatehouse-collect.service.d"
REDIS = "gatehouse-redis-1"
HEALTHY = f"docker inspect -f '{{{{.State.Health.Status}}}}' {REDIS}"
# Takes POSTs as lines of a file; refuses them while a file named like it, but .broken, is there.
SERVER = f"""
import http.server, os
class Hook(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"])).decode()
        broken = os.path.exists("{INBOX}.broken")
        with open("{INBOX}.broken" if broken else "{INBOX}", "a") as file:
            file.write(body + "\\n")
        self.send_response(500 if broken else 204)
        self.end_headers()
http.server.HTTPServer(("127.0.0.1", {PORT}), Hook).serve_forever()
"""


@pytest.fixture
def alerting(workstation: Workstation) -> Iterator[Workstation]:
    """A host that tells a webhook of its own; afterwards it tells nobody, as before."""
    settings = wanted(
        workstation, alerts_url=f"http://127.0.0.1:{PORT}{SECRET_PATH}", alerts_after_seconds=0
    )
    wants = files(settings)
    collect = wants[f"{UNITS}/gatehouse-collect.service"].content.splitlines()
    then = next(line for line in collect if line.startswith("ExecStopPost="))
    texts = {
        f"{UNITS}/gatehouse-alerts.service": wants[f"{UNITS}/gatehouse-alerts.service"].content,
        ALERTS_URL: wants[ALERTS_URL].content,
        # A changed unit would be drift, and told.
        f"{DROP_IN}/then.conf": f"[Service]\n{then}\n",
    }
    workstation.exec("cat >/root/hook.py", text=SERVER)
    workstation.exec(f"rm -f {INBOX} {INBOX}.broken; touch {INBOX}")
    workstation.exec("systemd-run --quiet --collect --unit hook python3 /root/hook.py")
    for path, text in texts.items():
        workstation.exec(f"install -D -m 640 /dev/stdin {path}", text=text)
    workstation.exec("systemctl daemon-reload")
    try:
        yield workstation
    finally:
        workstation.exec("systemctl stop hook", check=False)
        workstation.exec(f"rm -rf {DROP_IN} {' '.join(texts)} {INBOX} {INBOX}.broken /root/hook.py")
        workstation.exec(f"rm -rf {FOLDER} /var/lib/{NAME}")
        workstation.exec("systemctl daemon-reload; systemctl reset-failed gatehouse-alerts || true")


def looked(workstation: Workstation) -> None:
    """Have the collector look, and wait until whoever is to be told was told, or could not be."""
    # What it remembers is written by every run; a unit that is over is soon forgotten by systemd.
    written = f"stat -c %y {FOLDER}/told.json || true"
    before = workstation.exec(written).stdout
    workstation.exec("systemctl start gatehouse-collect")
    wait_for(
        lambda: (
            workstation.exec(written).stdout != before
            and workstation.exec("systemctl is-active gatehouse-alerts", check=False).stdout.strip()
            in {"inactive", "failed"}
        ),
        30,
        "the alerts' unit to end",
    )


def received(workstation: Workstation) -> list[dict[str, Any]]:
    """Give what the webhook took."""
    return [json.loads(line) for line in workstation.exec(f"cat {INBOX}").stdout.splitlines()]


def test_webhook_is_told_once_a_change(alerting: Workstation) -> None:
    """Redis stops: one message. It runs again while the webhook is down: told as soon as it is up."""
    looked(alerting)
    assert received(alerting) == []
    alerting.exec(f"docker stop {REDIS}")
    try:
        looked(alerting)
        looked(alerting)
        (first,) = received(alerting)
        assert first["status"] == "firing"
        assert first["host"] == alerting.name
        by_name = {alert["name"]: alert for alert in first["alerts"]}
        assert by_name["redis: healthy"]["status"] == "firing"
        assert "docker compose logs" in by_name["redis: healthy"]["fix"]
    finally:
        alerting.exec(f"docker start {REDIS}")
        wait_for(lambda: alerting.exec(HEALTHY).stdout.strip() == "healthy", 60, "Redis")
    alerting.exec(f"touch {INBOX}.broken")
    looked(alerting)
    assert len(received(alerting)) == 1
    assert alerting.exec("systemctl is-failed gatehouse-alerts").stdout == "failed\n"
    journal = alerting.exec("journalctl -u gatehouse-alerts --no-pager").stdout
    assert "the webhook answers 500; the next run tries again" in journal
    # Nothing that shows gives away where it goes.
    shown = alerting.exec("systemctl show gatehouse-alerts gatehouse-collect").stdout
    page = alerting.exec("cat /run/gatehouse/health/status.json").stdout
    assert SECRET_PATH not in journal + shown + page
    alerting.exec(f"rm {INBOX}.broken")
    looked(alerting)
    looked(alerting)
    _, last = received(alerting)
    assert last["status"] == "resolved"
    assert {alert["status"] for alert in last["alerts"]} == {"resolved"}
    figure = alerting.exec("systemd-analyze security --no-pager gatehouse-alerts.service").stdout
    assert float(figure.rpartition("exposure level")[2].split(":")[1].split()[0]) <= 2.0
