"""Docker's daemon: hardened, and still the operator's."""

import json
from collections.abc import Iterator
from typing import Any

import pytest

from gatehouse.lab.workstation import Workstation
from tests.deploying import deploy
from tests.lab.conftest import containers, failing

DAEMON_JSON = "/etc/docker/daemon.json"
RUNS_WITH = "docker info -f '{{.LoggingDriver}} {{.Labels}} {{.LiveRestoreEnabled}}'"


@pytest.fixture
def by_gatehouse(workstation: Workstation) -> Iterator[dict[str, Any]]:
    """Give the daemon's settings as the deploy made them, and have them again afterwards."""
    text = workstation.exec(f"cat {DAEMON_JSON}").stdout
    yield json.loads(text)
    workstation.exec(f"cat >{DAEMON_JSON}", text=text)
    deploy(workstation)


def test_operators_settings_of_the_daemon_stay(
    workstation: Workstation, by_gatehouse: dict[str, Any]
) -> None:
    """What somebody added or chose otherwise stays, what they took away comes back."""
    before = containers(workstation)
    chosen = by_gatehouse | {"labels": ["rack=7"], "log-driver": "json-file"}
    without = {key: value for key, value in chosen.items() if key != "icc"}
    # Without a newline at its end, as programs write it.
    workstation.exec(f"cat >{DAEMON_JSON}", text=json.dumps(without))
    merged = deploy(workstation)
    # A service may have to be waited for: a new daemon knows of no health before its next check.
    assert merged.changed[:2] == ["Docker | Harden the daemon", "Docker | Have the daemon running"]
    assert "your log-driver = 'json-file' stays (Gatehouse would set 'local')" in merged.words
    # Options of the driver that was chosen away would keep the daemon from starting.
    expected = {key: value for key, value in chosen.items() if key != "log-opts"}
    assert json.loads(workstation.exec(f"cat {DAEMON_JSON}").stdout) == expected
    assert workstation.exec(RUNS_WITH).stdout.strip() == "json-file [rack=7] true"
    assert containers(workstation) == before
    assert failing(workstation) == []
    assert deploy(workstation).changed == []
