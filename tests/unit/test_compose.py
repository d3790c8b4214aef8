"""Compose: every service is hardened and limited, and every variable has a value."""

import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from gatehouse.render import SERVICES as STACK
from gatehouse.render import metrics
from gatehouse.render.tree import COMPONENTS
from tests.given import rendered, variables

SERVICES = STACK | metrics.SERVICES
ALWAYS = rendered().release
RELEASE = rendered(metrics_prometheus=True).release
TEXTS = {path: file.content for path, file in RELEASE.items() if path.endswith(".yaml")}
VALUES = variables(metrics_prometheus=True)
TOP = yaml.safe_load(TEXTS["compose.yaml"])
HARDENED = yaml.safe_load(TEXTS["compose/hardened.yaml"])["services"]["hardened"]
OWN: dict[str, dict[str, Any]] = {
    name: service
    for component in (*COMPONENTS, metrics.NAME)
    for name, service in yaml.safe_load(TEXTS[f"compose/{component}.yaml"])["services"].items()
}
JOBS = {"litellm-migrate"}


@pytest.fixture(params=OWN)
def name(request: pytest.FixtureRequest) -> str:
    """Give the name of each service in turn."""
    return str(request.param)


@pytest.fixture
def service(name: str) -> dict[str, Any]:
    """Give the service with what it inherits."""
    inherited: dict[str, Any] = HARDENED | OWN[name]
    return inherited


def strings(value: object) -> Iterator[str]:
    """Yield every text in a tree of values."""
    if isinstance(value, dict):
        for key, item in value.items():
            yield from (str(key), *strings(item))
    elif isinstance(value, list):
        for item in value:
            yield from strings(item)
    else:
        yield str(value)


def test_services_are_the_ones_that_are_hashed() -> None:
    """No service runs without the hash that tells when to recreate it."""
    assert OWN.keys() == SERVICES.keys()


def test_components_are_included() -> None:
    """compose.yaml includes each component's file."""
    for release, more in ((ALWAYS, []), (RELEASE, [metrics.NAME])):
        components = [*COMPONENTS, *more, "engines"]
        top = yaml.safe_load(release["compose.yaml"].content)
        assert top["include"] == [f"compose/{component}.yaml" for component in components]


def test_prometheus_changes_nothing_else() -> None:
    """Switching it on recreates no other service, and off it leaves no variable and no file."""
    off, on = rendered(), rendered(metrics_prometheus=True)
    assert on.inputs == off.inputs | {name: on.inputs[name] for name in metrics.SERVICES}
    assert on.engines == off.engines
    assert "compose/metrics.yaml" not in off.release
    assert "PROMETHEUS" not in off.release[".env"].content


def test_service_inherits_the_hardened_base(name: str) -> None:
    """Each service extends the base and takes nothing of it back; only a job restarts otherwise."""
    assert OWN[name]["extends"] == {"file": "hardened.yaml", "service": "hardened"}
    assert HARDENED.keys() & OWN[name].keys() == ({"restart"} if name in JOBS else set())


def test_service_is_hardened(service: dict[str, Any]) -> None:
    """Read-only, without capabilities or new privileges, and nothing of the host's is shared."""
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    forbidden = {"cap_add", "privileged", "pid", "ipc", "network_mode", "devices", "userns_mode"}
    assert not forbidden & service.keys()


def test_service_is_not_root(name: str, service: dict[str, Any]) -> None:
    """Each service runs as its own user from the first instruction."""
    variable = f"GATEHOUSE_{name.split('-', maxsplit=1)[0].upper()}_USER"
    assert service["user"] == f"${{{variable}:?}}"
    assert not VALUES[variable].startswith("0:")


def test_service_is_limited(service: dict[str, Any]) -> None:
    """Memory, cores and processes have a limit, and logs do."""
    for key in ("mem_limit", "cpus", "pids_limit"):
        assert re.fullmatch(r"\$\{GATEHOUSE_\w+:\?\}", service[key])
    assert service["logging"]["driver"] == "local"
    assert service["logging"]["options"].keys() == {"max-size", "max-file"}


def test_service_is_watched(name: str, service: dict[str, Any]) -> None:
    """A service has a health check that leaves time to start; a job just ends."""
    if name in JOBS:
        assert service["healthcheck"] == {"disable": True}
        assert service["restart"] == "no"
        return
    assert {"test", "interval", "timeout", "retries"} <= service["healthcheck"].keys()
    # On a slow machine nobody gives up before the settings say so.
    period = f"${{GATEHOUSE_{name.upper()}_START_PERIOD:?}}"
    assert service["healthcheck"]["start_period"] == period
    assert service["restart"] == "unless-stopped"
    assert service["stop_grace_period"]


def test_service_waits_for_what_it_needs(name: str, service: dict[str, Any]) -> None:
    """Nothing starts because another one was only started: it is healthy, or has ended well."""
    conditions = {on["condition"] for on in service.get("depends_on", {}).values()}
    assert conditions <= {"service_healthy", "service_completed_successfully"}
    assert conditions or name in {"postgres", "redis", "alertmanager"}


def test_port_is_bound_to_the_bind_address(service: dict[str, Any]) -> None:
    """A published port names the address: without one Docker would publish it to everybody."""
    for port in service.get("ports", []):
        assert re.fullmatch(
            r"\$\{GATEHOUSE_(METRICS_)?BIND:\?\}:\$\{GATEHOUSE_\w+_PORT:\?\}:\d+", port
        )


def test_service_has_no_docker_socket(service: dict[str, Any]) -> None:
    """No container can command the daemon."""
    assert not [text for text in strings(service) if "docker.sock" in text]


def test_files_of_the_host_are_mounted_read_only(service: dict[str, Any]) -> None:
    """What is mounted by path cannot be written to."""
    mounts = [volume for volume in service.get("volumes", []) if volume.startswith("/")]
    assert all(volume.endswith(":ro") for volume in mounts)


def test_mounted_files_are_in_the_release(service: dict[str, Any]) -> None:
    """Compose makes an empty directory where a mounted file is missing; none is."""
    current = "/opt/gatehouse/current/"
    for volume in service.get("volumes", []):
        if volume.startswith(current):
            assert volume.removeprefix(current).split(":")[0] in RELEASE


def test_temporary_files_are_limited(service: dict[str, Any]) -> None:
    """A memory disk has a size, and no program gains rights from it."""
    for disk in service["tmpfs"]:
        assert "size=" in disk
        assert "nosuid,nodev" in disk


def test_no_secret_is_in_the_environment(service: dict[str, Any]) -> None:
    """`docker inspect` shows the environment: passwords and keys are named there as files only."""
    for key, value in service.get("environment", {}).items():
        if re.search("PASSWORD|KEY|SECRET|TOKEN|URL", key):
            assert key.endswith("_FILE")
            assert value.startswith("/run/secrets/")


def test_label_holds_the_hash(name: str, service: dict[str, Any]) -> None:
    """Each service carries the hash of its own inputs."""
    variable = f"GATEHOUSE_{name.upper().replace('-', '_')}_INPUTS"
    assert service["labels"] == {"gatehouse.inputs": f"${{{variable}:?}}"}


def test_networks_and_volumes_exist(service: dict[str, Any]) -> None:
    """What a service names is declared once, in compose.yaml."""
    assert set(service["networks"]) <= TOP["networks"].keys()
    named = {volume.split(":")[0] for volume in service.get("volumes", []) if volume[0] != "/"}
    of_metrics = yaml.safe_load(TEXTS["compose/metrics.yaml"])["volumes"]
    assert named <= TOP["volumes"].keys() | of_metrics.keys()


@pytest.mark.parametrize("path", TEXTS)
def test_variable_must_have_a_value(path: str) -> None:
    """Every variable is written as ${X:?}: Compose stops where one is missing or empty."""
    if path not in {"litellm/config.yaml", "metrics/rules.yaml"}:
        assert not re.sub(r"\$\{GATEHOUSE_\w+:\?\}", "", TEXTS[path]).count("$")


def test_variables_are_defined_and_used() -> None:
    """The variables that the files use are the ones that .env defines."""
    used = set(re.findall(r"\$\{(\w+)", "".join(TEXTS.values())))
    assert used == VALUES.keys()
    used = set(
        re.findall(r"\$\{(\w+)", "".join(ALWAYS[path].content for path in TEXTS if path in ALWAYS))
    )
    assert used == variables().keys()


def test_values_survive_compose() -> None:
    """No value holds what would end the single quotes of .env."""
    lines = RELEASE[".env"].content.splitlines()
    assert all(re.fullmatch(r"#.*|[A-Z_]+='[^'\n]+'", line) for line in lines)


def compose_is_here() -> bool:
    """Tell whether Compose v2 can be called."""
    command = ["docker", "compose", "version"]
    return (
        bool(shutil.which("docker"))
        and not subprocess.run(command, capture_output=True, check=False).returncode
    )


@pytest.mark.skipif(not compose_is_here(), reason="needs Docker Compose v2 on this machine")
def test_compose_accepts_the_release(tmp_path: Path) -> None:
    """Compose itself reads the rendered release and finds each service in it."""
    for path, file in RELEASE.items():
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(file.content)
    compose = ["docker", "compose", "--project-directory", str(tmp_path)]
    done = subprocess.run(
        [*compose, "-f", str(tmp_path / "compose.yaml"), "config"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    services = yaml.safe_load(done.stdout)["services"]
    assert services.keys() == OWN.keys()
    for service in services.values():
        assert service["read_only"] is True
        assert service["user"] != "0:0"
        assert all(port["host_ip"] == "127.0.0.1" for port in service.get("ports", []))
