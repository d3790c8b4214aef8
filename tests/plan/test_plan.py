"""`gatehouse plan`: what a deploy would change, as a person reads it."""

from pathlib import Path

from tests.given import PROVIDER_KEY, run
from tests.plan.host import bare, deployed, inventory


def test_deployed_host_has_nothing_to_change(place: Path) -> None:
    """Where all is as it should be, the plan says so."""
    inventory(place / "inventory", deployed())
    done = run(place, "gatehouse", "plan")
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["@fake/box:", "nothing", "to", "change"]


def test_changed_setting_is_a_diff(place: Path) -> None:
    """The line that changes is shown with its file, and the service that is recreated by it."""
    inventory(place / "inventory", deployed(), redis_maxmemory_mib=128)
    done = run(place, "gatehouse", "plan")
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert {"-maxmemory 256mb", "+maxmemory 128mb"} <= set(lines)
    assert "--- /opt/gatehouse/current/redis/redis.conf (host)" in lines
    assert [line for line in lines if "service" in line] == [
        "  service redis would be recreated: what it runs with has changed"
    ]


def test_bare_host_gets_everything(place: Path) -> None:
    """Packages, secrets, images and services are named; a provider key by its name only."""
    inventory(place / "inventory", bare())
    done = run(place, "gatehouse", "plan", **{PROVIDER_KEY: "not-shown-0123"})
    assert done.returncode == 0, done.stderr
    for words in (
        "Docker would be installed",
        "secret master_key would be made",
        f"provider key {PROVIDER_KEY} would be added",
        "would be pulled",
        "service litellm would be created",
    ):
        assert words in done.stdout
    assert "not-shown-0123" not in done.stdout + done.stderr


def test_plan_of_an_unfit_host_fails(place: Path) -> None:
    """What a deploy would refuse, the plan refuses, with the reason."""
    inventory(place / "inventory", bare(systemd="no"))
    done = run(place, "gatehouse", "plan")
    assert done.returncode == 1
    assert "PID 1" in done.stderr
    assert "Traceback" not in done.stderr
