"""Timers: when they run, what they are made of, and how what systemd says of them is read."""

import pytest

from gatehouse.render import timers as render
from gatehouse.settings import oncalendar
from gatehouse.tool.__main__ import COMMANDS
from gatehouse.tool.timers import parse, schedule, seconds_of, timer
from tests.calendars import BAD, GOOD
from tests.given import problems, settings

NAMES = {job.name for job in render.JOBS}
TIMER = """\
TimersCalendar={ OnCalendar=*-*-* 00:00:00 ; next_elapse=@1795305600 }
NextElapseUSecRealtime=Sun 2026-11-22 00:30:58 UTC
NextElapseUSecMonotonic=0
LastTriggerUSec=
Id=gatehouse-smoke.timer
Triggers=gatehouse-smoke.service
ActiveState=active
UnitFileState=enabled"""
SERVICE = """\
Id=gatehouse-smoke.service
Description=Gatehouse: try the gateway as a client would
ActiveState=inactive
Result=success
ExecMainStatus=0
ExecMainStartTimestamp=@1795279576
ExecMainStartTimestampMonotonic=1500000
ExecMainExitTimestampMonotonic=2750000"""


@pytest.mark.parametrize("text", GOOD)
def test_calendar_expression_is_understood(text: str) -> None:
    """What people write is accepted."""
    assert oncalendar.valid(text)


@pytest.mark.parametrize("text", BAD)
def test_nonsense_is_refused_with_what_to_write(text: str) -> None:
    """A mistake is found before the host is touched, and the setting is named."""
    assert "write hourly" in problems(timers_smoke=text)["timers_smoke"]


def test_every_job_is_a_command_of_ours() -> None:
    """Units call what there is."""
    for job in render.JOBS:
        assert job.command.split()[0] in COMMANDS


def test_every_job_has_its_setting() -> None:
    """Each can be moved and switched off."""
    for name in NAMES:
        assert f"timers_{name}" in settings().model_dump()


def test_job_that_is_off_has_no_unit() -> None:
    """What is switched off is no timer; and nothing is fetched unless that is allowed."""
    names = [job.name for job in render.active(settings(timers_smoke="off"))]
    assert "smoke" not in names
    assert "knowledge" not in names
    if "knowledge" in NAMES:
        allowed = render.active(settings(knowledge_refresh=True))
        assert {job.name for job in allowed} == NAMES


def test_unit_says_when_and_what() -> None:
    """The timer holds the setting, the service the command."""
    files = render.files(settings(timers_smoke="Mon 04:30"))
    assert "\nOnCalendar=Mon 04:30\n" in files[f"{render.UNITS}/gatehouse-smoke.timer"].content
    service = files[f"{render.UNITS}/gatehouse-smoke.service"].content
    assert "\nExecStart=/opt/gatehouse/venv/bin/gatehouse smoke --record\n" in service
    assert "\nIPAddressAllow=localhost\n" in service


def test_unit_reaches_the_gateway_where_it_listens() -> None:
    """A gateway with an address of its own is let through."""
    files = render.files(settings(network_bind_address="192.0.2.7", network_bind_public=True))
    service = files[f"{render.UNITS}/gatehouse-smoke.service"].content
    assert "\nIPAddressAllow=localhost 192.0.2.7\n" in service


def read(**changes: str) -> tuple[str, str, float | None, float | None]:
    """Give result, reason, last run and how long it took."""
    service = parse(SERVICE) | changes
    found = timer(parse(TIMER), service)
    return found.result, found.reason, found.last, found.seconds


def test_timer_that_ran_is_read() -> None:
    """Name, schedule, last run, result and next run come out of what systemd says."""
    found = timer(parse(TIMER), parse(SERVICE))
    assert (found.name, found.what) == ("smoke", "try the gateway as a client would")
    assert (found.result, found.last, found.seconds) == ("ok", 1795279576, 1.25)
    assert found.next == 1795307458
    assert found.schedule == ["*-*-* 00:00:00"]
    assert found.armed


def test_result_of_a_run_is_told_apart() -> None:
    """A problem that was found is not a job that failed; a job may run, or not have run."""
    assert read(ExecMainStatus="1")[:2] == ("problem found", "exit code 1")
    failed = read(Result="exit-code", ExecMainStatus="2", ActiveState="failed")
    assert failed[:2] == ("failed", "exit-code, exit code 2")
    assert read(Result="timeout", ActiveState="failed")[:2] == ("failed", "timeout")
    running = read(ActiveState="activating", ExecMainExitTimestampMonotonic="0")
    assert (running[0], running[3]) == ("running", None)
    assert read(ExecMainStartTimestamp="", ExecMainExitTimestampMonotonic="0")[0] == "not yet"


@pytest.mark.parametrize(
    ("key", "value"), [("ActiveState", "inactive"), ("UnitFileState", "disabled")]
)
def test_timer_that_does_not_run_again_is_told(key: str, value: str) -> None:
    """One that is stopped, or that a reboot would forget, is not armed."""
    assert not timer(parse(TIMER) | {key: value}, parse(SERVICE)).armed


def test_repeated_timer_has_a_schedule_too() -> None:
    """The GPU's watchdog counts from the last run."""
    text = (
        "TimersMonotonic={ OnUnitInactiveUSec=1min ; next_elapse=1h }\n"
        "TimersMonotonic={ OnActiveUSec=0 ; next_elapse=2h }"
    )
    assert schedule(parse(text)) == ["every 1min"]


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("1h 2min 3.5s", 3723.5), ("450ms", 0.45), ("2d 1h", 176400), ("infinity", None), ("", None)],
)
def test_span_is_read(text: str, seconds: float | None) -> None:
    """Moments since the boot are written by systemd as spans."""
    assert seconds_of(text) == seconds
