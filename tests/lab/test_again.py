"""A second deploy changes nothing and says so; a changed setting touches what it is about."""

import time

import pytest

from gatehouse.lab.workstation import Workstation
from tests.deploying import deploy
from tests.lab.conftest import containers, failing, recreated
from tests.lab.releases import begun

MODEL = {
    "name": "chat-mine-vllm",
    "backend": "hosted_vllm/mine",
    "api_base": "http://host.docker.internal:9100/v1",
}
# Setting, another value for it, and the service that runs with it. One is added to the other.
CHANGES: list[tuple[str, object, str]] = [
    ("redis_maxmemory_mib", 128, "redis"),
    ("postgres_memory_mib", 1100, "postgres"),
    ("models_extra", [MODEL], "litellm"),
]


def test_second_run_changes_nothing(workstation: Workstation) -> None:
    """No operation changes anything, and every container is the same as before."""
    before = containers(workstation)
    again = deploy(workstation)
    assert again.changed == []
    assert containers(workstation) == before


def test_user_with_sudo_changes_nothing_either(workstation: Workstation) -> None:
    """A user who is not root but may use sudo sees the same host, and leaves it as it is."""
    before = containers(workstation)
    again = deploy(workstation, user="operator")
    assert again.changed == []
    assert containers(workstation) == before


def test_what_passes_by_itself_is_waited_for_and_no_change(workstation: Workstation) -> None:
    """A check that fails when a deploy begins to look, and holds when it looks again."""
    limit = "docker update --pids-limit {} gatehouse-redis-1"
    workstation.exec(limit.format(-1))
    looking: list[float] = []

    def watch(log: str) -> None:
        if not looking and begun("Health | Check the gateway")(log):
            looking.append(time.monotonic())
        # Later than its first look.
        if len(looking) == 1 and time.monotonic() > looking[0] + 6:
            looking.append(time.monotonic())
            workstation.exec(limit.format(64))

    try:
        again = deploy(workstation, meanwhile=watch)
    finally:
        workstation.exec(limit.format(64))
    assert len(looking) == 2, "the deploy did not look again"
    assert again.changed == []
    assert failing(workstation) == []


def test_check_that_does_not_hold_is_named(workstation: Workstation) -> None:
    """The deploy fails after looking again, and says what was expected and what mends it."""
    workstation.exec("docker update --pids-limit -1 gatehouse-redis-1")
    try:
        failed = deploy(workstation, expect=1)
    finally:
        workstation.exec("docker update --pids-limit 64 gatehouse-redis-1")
    assert "docker: containers are hardened" in failed.words
    assert "fix: deploy again" in failed.words
    assert "Traceback" not in failed.log
    assert failing(workstation) == []


def test_user_without_sudo_is_refused(workstation: Workstation) -> None:
    """A user who cannot become root is told so before anything is touched."""
    workstation.exec("mv /etc/sudoers.d/operator /root/sudoers-operator")
    try:
        refused = deploy(workstation, user="operator", expect=1)
    finally:
        workstation.exec("mv /root/sudoers-operator /etc/sudoers.d/operator")
    assert "may not use sudo without a password" in refused.words
    assert "Traceback" not in refused.words


@pytest.mark.parametrize("number", range(len(CHANGES)), ids=[f"{each[0]}" for each in CHANGES])
def test_changed_setting_recreates_its_service_alone(workstation: Workstation, number: int) -> None:
    """Only the service that a setting is about is replaced, and everything works afterwards."""
    before = containers(workstation)
    settings = {setting: value for setting, value, _ in CHANGES[: number + 1]}
    changed = deploy(workstation, settings=settings)
    assert recreated(before, containers(workstation)) == {CHANGES[number][2]}
    assert "Release | Write the release" in changed.changed
    assert failing(workstation, **settings) == []


def test_settings_can_be_taken_back(workstation: Workstation) -> None:
    """With the settings as they were, the host is as it was, and a further run changes nothing."""
    release = workstation.exec("readlink /opt/gatehouse/current").stdout
    deploy(workstation)
    assert workstation.exec("readlink /opt/gatehouse/current").stdout != release
    assert failing(workstation) == []
    assert deploy(workstation).changed == []
