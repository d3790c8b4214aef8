"""Timers on a real host: systemd understands them, they fire, and what failed is seen."""

import json
import shlex
from typing import Any

import jsonschema
import pytest

from gatehouse.lab.common import ROOT
from gatehouse.lab.workstation import Workstation
from gatehouse.render.timers import JOBS, active
from gatehouse.settings import oncalendar
from tests.calendars import BAD, GOOD
from tests.deploying import deploy
from tests.lab.conftest import wanted
from tests.lab.test_probe import mirror
from tests.lab.test_smoke import gateway_elsewhere
from tests.waiting import wait_for

MOST_EXPOSURE = 2.0


def timers(workstation: Workstation, code: int | None = 0) -> dict[str, dict[str, Any]]:
    """Give the rows of `gatehouse timers` by name; the document is as its schema says."""
    found = workstation.exec("gatehouse timers --json", check=False)
    assert code is None or found.returncode == code, found.stdout + found.stderr
    document = json.loads(found.stdout)
    jsonschema.validate(document, json.loads((ROOT / "docs/schemas/timers.json").read_text()))
    return {each["name"]: each for each in document["timers"]}


def test_every_job_is_armed(workstation: Workstation) -> None:
    """What the settings switch on is listed with its next run, and nothing of it has failed."""
    found = timers(workstation, None)
    for job in active(wanted(workstation)):
        assert found[job.name]["armed"], job.name
        assert found[job.name]["next"], job.name
        assert found[job.name]["schedule"], job.name


@pytest.mark.parametrize("job", JOBS, ids=lambda job: job.name)
def test_service_does_its_work_in_its_sandbox(workstation: Workstation, job: Any) -> None:  # noqa: ANN401 - pytest's parameter
    """Each service runs to its end where it is locked in, and says so in the list."""
    if job not in active(wanted(workstation)):
        pytest.skip("switched off by the settings")
    done = workstation.exec(f"systemctl start gatehouse-{job.name}", check=False)
    log = workstation.exec(f"journalctl -n 40 --no-pager -u gatehouse-{job.name}").stdout
    assert done.returncode == 0, log
    found = timers(workstation, None)[job.name]
    assert found["result"] in ("ok", "problem found"), log
    assert found["last"] is not None
    assert found["seconds"] is not None
    assert "Traceback" not in log
    assert "ermission denied" not in log
    assert "not permitted" not in log


@pytest.mark.parametrize("job", JOBS, ids=lambda job: job.name)
def test_service_is_locked_in(workstation: Workstation, job: Any) -> None:  # noqa: ANN401 - pytest's parameter
    """The measure that systemd has of what a service could do is low."""
    if job not in active(wanted(workstation)):
        pytest.skip("switched off by the settings")
    assert exposure(workstation, job.name) <= job.exposure


def test_timer_fires_by_itself(workstation: Workstation) -> None:
    """When its time has come the job runs, and its record is new."""
    record = "/var/lib/gatehouse/state/inventory.json"
    folder = "/run/systemd/system/gatehouse-inventory.timer.d"
    workstation.exec(f"rm -f {record}; mkdir -p {folder}")
    workstation.exec(
        f"cat >{folder}/soon.conf",
        text="[Timer]\nOnCalendar=\nOnActiveSec=1s\nRandomizedDelaySec=0\nAccuracySec=1us\n",
    )
    restart = "systemctl daemon-reload && systemctl restart gatehouse-inventory.timer"
    try:
        workstation.exec(restart)
        wait_for(
            lambda: workstation.exec(f"cat {record}", check=False).stdout, 60, "the timer's record"
        )
        wait_for(lambda: timers(workstation, None)["inventory"]["result"] == "ok", 20, "its result")
    finally:
        workstation.exec(f"rm -r {folder} && {restart}")


def test_failed_job_is_seen(workstation: Workstation) -> None:
    """A job that cannot do its work shows as failed with the reason, and the exit code says so."""
    settings = "/etc/gatehouse/settings.json"
    workstation.exec(f"mv {settings} {settings}.away")
    try:
        assert workstation.exec("systemctl start gatehouse-inventory", check=False).returncode != 0
    finally:
        workstation.exec(f"mv {settings}.away {settings}")
    found = timers(workstation, 1)["inventory"]
    assert (found["result"], found["reason"]) == ("failed", "exit-code, exit code 2")
    # A finding of the checks, too, but none that fails a deploy.
    status = json.loads(workstation.exec("gatehouse status --json --component host").stdout)
    states = {each["name"]: each["state"] for each in status["checks"]}
    assert states["host: jobs end well"] == "warning"
    assert states["host: units run"] == "ok"
    table = workstation.exec("gatehouse timers", check=False).stdout
    assert "journalctl -u gatehouse-inventory" in table
    workstation.exec("systemctl start gatehouse-inventory")
    assert timers(workstation, None)["inventory"]["result"] == "ok"


def test_problem_that_is_found_is_no_failed_job(workstation: Workstation) -> None:
    """Exit code 1 is a finding: systemd does not call the unit failed."""
    with gateway_elsewhere(workstation):
        workstation.exec("systemctl start gatehouse-smoke")
    found = timers(workstation, None)["smoke"]
    assert (found["result"], found["reason"]) == ("problem found", "exit code 1")
    workstation.exec("systemctl start gatehouse-smoke")


def test_stopped_timer_is_seen(workstation: Workstation) -> None:
    """Somebody stopped it: it does not run again, and what to type is said."""
    workstation.exec("systemctl stop gatehouse-smoke.timer")
    try:
        found = workstation.exec("gatehouse timers", check=False)
        assert found.returncode == 1
        assert "systemctl enable --now gatehouse-smoke.timer" in found.stdout
    finally:
        workstation.exec("systemctl start gatehouse-smoke.timer")


def test_systemd_understands_the_same(workstation: Workstation) -> None:
    """What the settings accept, systemd accepts; what is nonsense, neither."""
    script = "\n".join(
        f"systemd-analyze calendar -- {shlex.quote(text)} >/dev/null 2>&1; echo $?"
        for text in [*GOOD, *BAD]
    )
    codes = workstation.exec(script, check=False).stdout.split()
    taken = dict(zip([*GOOD, *BAD], [code == "0" for code in codes], strict=True))
    assert [text for text in GOOD if not taken[text]] == []
    assert [text for text, systemd in taken.items() if oncalendar.valid(text) and not systemd] == []


def test_deploy_moves_removes_and_adds_jobs(workstation: Workstation) -> None:
    """Who is off goes, who has another time is re-armed, who is allowed comes; and all of it back."""
    with mirror(workstation) as url:
        deploy(
            workstation,
            settings={
                "timers_smoke": "off",
                "timers_inventory": "04:30",
                "knowledge_refresh": True,
                "knowledge_url": url,
            },
        )
        found = timers(workstation, None)
        assert "smoke" not in found
        assert found["inventory"]["schedule"] == ["*-*-* 04:30:00"]
        left = workstation.exec("ls /etc/systemd/system | grep gatehouse-smoke", check=False)
        assert not left.stdout
        workstation.exec("systemctl start gatehouse-knowledge")
        assert timers(workstation, None)["knowledge"]["result"] == "ok"
        assert workstation.exec("stat -c %a /var/lib/gatehouse/knowledge/models.json").stdout == (
            "640\n"
        )
        assert exposure(workstation, "knowledge") <= MOST_EXPOSURE
        workstation.exec(
            "rm -r /var/lib/gatehouse/knowledge /var/lib/gatehouse/state/knowledge.json"
        )
    deploy(workstation)
    found = timers(workstation, None)
    assert "knowledge" not in found
    assert found["smoke"]["armed"]
    assert found["inventory"]["schedule"] == ["*-*-* *:00:00"]


def exposure(workstation: Workstation, name: str) -> float:
    """Give systemd's own measure of what a service could do; 10 is everything."""
    said = workstation.exec(f"systemd-analyze security --no-pager gatehouse-{name}").stdout
    return float(said.strip().splitlines()[-1].split(": ")[1].split()[0])
