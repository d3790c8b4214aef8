"""Docker: only the containers that are known, from the images that were set, healthy."""

import json
from typing import Any

import pytest
from testinfra.host import Host

from gatehouse.render import SERVICES
from gatehouse.render import docker as render
from gatehouse.settings import Settings
from tests.host.conftest import lines

OURS = "docker ps -aq --filter label=com.docker.compose.project=gatehouse"

# What a service may mount, read-only.
OWN = (
    "/opt/gatehouse/releases/",
    "/opt/gatehouse/current/",
    "/etc/gatehouse/secrets/",
    "/run/gatehouse/engines",
)


@pytest.fixture(scope="module")
def containers(host: Host) -> dict[str, Any]:
    """Give the stack's containers by service, as Docker knows them."""
    found = json.loads(host.check_output(f"{OURS} | xargs docker inspect"))
    everything = {each["Config"]["Labels"]["com.docker.compose.service"]: each for each in found}
    return {name: each for name, each in everything.items() if name in SERVICES}


def test_only_known_containers_exist(host: Host, settings: Settings) -> None:
    """The stack is three services and the job that has migrated the database, each once.

    Engines that are on have theirs: tests/host/test_engines.py.
    """
    command = f"{OURS} --format '{{{{.Names}}}} {{{{.Image}}}}' | sort"
    engines = {f"gatehouse-{engine.name}-1" for engine in settings.active_engines}
    found = lines(host, command.replace("-aq", "-a"))
    assert [line for line in found if line.split()[0] not in engines] == [
        f"gatehouse-litellm-1 {settings.litellm_image}",
        f"gatehouse-litellm-migrate-1 {settings.litellm_image}",
        f"gatehouse-postgres-1 {settings.postgres_image}",
        f"gatehouse-redis-1 {settings.redis_image}",
    ]


def test_services_are_healthy(containers: dict[str, Any]) -> None:
    """Every service runs and says that it is healthy; the job has ended well."""
    job = containers["litellm-migrate"]["State"]
    assert (job["Status"], job["ExitCode"]) == ("exited", 0)
    states = {
        name: (each["State"]["Status"], each["State"]["Health"]["Status"])
        for name, each in containers.items()
        if name != "litellm-migrate"
    }
    assert states == dict.fromkeys(["litellm", "postgres", "redis"], ("running", "healthy"))


def test_containers_can_do_little(containers: dict[str, Any]) -> None:
    """None is privileged, shares a namespace of the host, or mounts more than its own files."""
    for name, each in containers.items():
        host = each["HostConfig"]
        assert not host["Privileged"], name
        assert not host["Devices"], name
        assert {host["PidMode"], host["UTSMode"], host["UsernsMode"]} == {""}, name
        assert host["IpcMode"] == "private", name
        assert not host["NetworkMode"].startswith(("host", "container")), name
        for mount in each["Mounts"]:
            own = mount["Source"].startswith(OWN)
            assert mount["Type"] == "volume" or (own and not mount["RW"]), f"{name}: {mount}"


def test_services_come_back_after_a_reboot(host: Host, containers: dict[str, Any]) -> None:
    """The engine starts with the machine, and the services with the engine."""
    assert host.service("docker.service").is_enabled
    restarts = {
        name: each["HostConfig"]["RestartPolicy"]["Name"] for name, each in containers.items()
    }
    services = dict.fromkeys(["litellm", "postgres", "redis"], "unless-stopped")
    assert restarts == services | {"litellm-migrate": "no"}


def test_logs_are_bounded(containers: dict[str, Any], settings: Settings) -> None:
    """No container fills the disk with what it says."""
    for name, each in containers.items():
        assert each["HostConfig"]["LogConfig"] == {
            "Type": "local",
            "Config": {
                "max-file": str(settings.docker_log_files),
                "max-size": f"{settings.docker_log_max_mib}m",
            },
        }, name


def test_daemon_has_our_settings_or_the_operators(host: Host, settings: Settings) -> None:
    """daemon.json is what the merge gives: doing it again changes nothing."""
    paths = "/etc/docker/daemon.json /etc/gatehouse/docker-daemon.json"
    present, ours = (json.loads(host.file(path).content_string) for path in paths.split())
    card = json.loads(host.check_output("cat /opt/gatehouse/current/engines/engines.json"))["card"]
    assert ours == render.wanted(settings, card)
    assert render.merge(present, ours, ours)[0] == present
