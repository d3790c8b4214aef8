"""Engines: their ports are held, their containers can do little, and nothing runs unasked."""

import json
from typing import Any

import pytest
from testinfra.host import Host

from gatehouse.settings import Engine, Settings
from tests.host.conftest import lines

EXPOSURE_MOST = 2.0


@pytest.fixture
def engines(settings: Settings) -> list[Engine]:
    """Give the engines of the host; without any there is nothing to prove."""
    if not settings.active_engines:
        pytest.skip("no engine is on")
    return settings.active_engines


@pytest.fixture
def containers(host: Host, engines: list[Engine]) -> list[dict[str, Any]]:
    """Give what Docker knows of the engines' containers."""
    names = [f"gatehouse-{engine.name}-1" for engine in engines if not engine.command]
    if not names:
        pytest.skip("every engine is a program of the host")
    found: list[dict[str, Any]] = json.loads(host.check_output(f"docker inspect {' '.join(names)}"))
    return found


def test_ports_are_held_by_systemd(host: Host, settings: Settings, engines: list[Engine]) -> None:
    """Each port is open on loopback and the bridge's address only, and will be after a boot."""
    found = {line.split()[3] for line in lines(host, "ss -Hltn")}
    for engine in engines:
        unit = host.service(f"gatehouse-engine-{engine.name}.socket")
        assert unit.is_running, engine.name
        assert unit.is_enabled, engine.name
        addresses = {each for each in found if each.endswith(f":{engine.port}")}
        both = ("127.0.0.1", settings.network_subnet[1])
        assert addresses == {f"{address}:{engine.port}" for address in both}


def test_only_what_is_always_on_is_wanted_by_the_boot(host: Host, engines: list[Engine]) -> None:
    """Nothing heavy runs after a boot."""
    for engine in engines:
        # Others are "static": they have no [Install] section.
        found = host.run(f"systemctl is-enabled gatehouse-engine-{engine.name}.service").stdout
        assert (found.strip() == "enabled") == (engine.boot == "always"), engine.name


def test_what_listens_has_no_rights(host: Host, engines: list[Engine]) -> None:
    """The proxy in front of each engine is sandboxed, by systemd's own measure."""
    for engine in engines:
        unit = f"gatehouse-engine-{engine.name}.service"
        (line,) = [
            line
            for line in lines(host, f"systemd-analyze security --no-pager {unit}")
            if "Overall exposure level" in line
        ]
        assert float(line.split(":")[1].split()[0]) <= EXPOSURE_MOST, line


def test_containers_can_do_little(settings: Settings, containers: list[dict[str, Any]]) -> None:
    """Not root, nothing published, nothing writable but Ollama's own folder."""
    for each in containers:
        host, name = each["HostConfig"], each["Name"]
        assert host["ReadonlyRootfs"], name
        assert host["CapDrop"] == ["ALL"], name
        assert not host["Privileged"], name
        assert not host["PortBindings"], name
        assert each["Config"]["User"] == settings.engines_user, name
        assert host["RestartPolicy"]["Name"] == "no", name
        for mount in each["Mounts"]:
            own = mount["Source"] == f"{settings.models_dir}/ollama"
            assert mount["Source"].startswith(settings.models_dir), f"{name}: {mount}"
            assert own or not mount["RW"], f"{name}: {mount}"


def test_no_unit_has_failed(host: Host, engines: list[Engine]) -> None:
    """A start that is refused or fails is no broken unit for ever."""
    assert not lines(host, "systemctl list-units --failed --plain --no-legend 'gatehouse-engine-*'")
