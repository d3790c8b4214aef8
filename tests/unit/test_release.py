"""The release: the same settings give the same files, and a change touches what depends on it."""

import re
import subprocess

import pytest

from gatehouse.deploys.release import restore
from gatehouse.render import SERVICES, Machine, timers
from tests.given import MACHINE, PROVIDER_KEY, model, rendered, settings

BEFORE = rendered()
ALL = set(SERVICES)
LISTENING = {"postgres", "redis", "litellm"}


def test_rendering_is_pure() -> None:
    """The same input gives the same files, in the same order, and the same release."""
    again = rendered()
    assert list(again.files.items()) == list(BEFORE.files.items())
    assert again.release_id == BEFORE.release_id


def test_release_is_named_after_its_content() -> None:
    """Another content is another release; the name is short and the same on every machine."""
    assert re.fullmatch(r"[0-9a-f]{12}", BEFORE.release_id)
    assert rendered(redis_maxmemory_mib=128).release_id != BEFORE.release_id


def test_settings_outside_the_release_do_not_change_it() -> None:
    """What only the deploy uses makes no new release."""
    assert rendered(host_disk_min_gib=20).release_id == BEFORE.release_id


@pytest.mark.parametrize(
    ("changes", "services"),
    [
        ({"redis_maxmemory_mib": 128}, {"redis"}),
        ({"redis_image": "redis:8.0"}, {"redis"}),
        ({"redis_cache_ttl_seconds": 60}, {"litellm"}),
        ({"redis_start_timeout_seconds": 61}, set()),
        ({"postgres_memory_mib": 2048}, {"postgres"}),
        ({"postgres_port": 5432}, {"postgres"}),
        ({"models_extra": [model()]}, {"litellm"}),
        ({"litellm_workers": 2}, {"litellm"}),
        ({"litellm_image": "x:1.108.13"}, {"litellm", "litellm-migrate"}),
        ({"network_subnet": "10.9.0.0/24"}, ALL),
        ({"network_inner_subnet": "10.9.0.0/24"}, ALL),
        ({"network_bind_address": "127.0.0.2"}, LISTENING),
        ({"secrets_gid": 2000}, LISTENING),
        ({"docker_log_files": 5}, ALL),
        ({"docker_live_restore": False}, set()),
        ({"host_memory_min_mib": 4096}, set()),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_change_touches_the_services_that_depend_on_it(
    changes: dict[str, object], services: set[str]
) -> None:
    """A service is recreated exactly when something that it runs with has changed."""
    after = rendered(**changes).inputs
    assert {name for name in after if after[name] != BEFORE.inputs[name]} == services


def test_provider_key_touches_the_proxy_only() -> None:
    """A new provider key switches models on: the proxy reads them anew."""
    machine = Machine(MACHINE.cores, MACHINE.memory_mib, frozenset({PROVIDER_KEY}))
    after = rendered(machine).inputs
    assert {name for name in after if after[name] != BEFORE.inputs[name]} == {"litellm"}


def test_hash_is_in_the_variables() -> None:
    """Compose puts each service's hash into its label from the release's .env."""
    for service, digest in BEFORE.inputs.items():
        name = f"GATEHOUSE_{service.upper().replace('-', '_')}_INPUTS"
        assert f"{name}='{digest}'" in BEFORE.release[".env"].content.splitlines()


def test_files_have_their_places() -> None:
    """The release, and what lies outside of it, without the timers."""
    outside = [path for path in BEFORE.files if not path.startswith("/opt/gatehouse/current/")]
    assert [path for path in outside if path not in timers.files(settings())] == [
        "/etc/docker/daemon.json",
        "/etc/gatehouse/firewall.sh",
        "/etc/gatehouse/settings.json",
        "/etc/systemd/system/gatehouse-collect.service",
        "/etc/systemd/system/gatehouse-collect.timer",
        "/etc/systemd/system/gatehouse-firewall.service",
        "/etc/systemd/system/gatehouse-health.service",
        "/etc/systemd/system/gatehouse-health.socket",
        "/etc/tmpfiles.d/gatehouse.conf",
    ]
    assert {".env", "compose.yaml", "litellm/config.yaml"} <= BEFORE.release.keys()


@pytest.mark.parametrize("path", BEFORE.files)
def test_file_is_writable_for_its_owner_only(path: str) -> None:
    """No file is writable for a group or for others, and all belong to root."""
    file = BEFORE.files[path]
    assert int(file.mode, 8) & 0o022 == 0
    assert file.owner == "root"
    assert file.content.endswith("\n")


def test_settings_are_kept_for_readers() -> None:
    """The settings on the host are for the readers' group, not for everybody."""
    file = rendered(host_group="readers").files["/etc/gatehouse/settings.json"]
    assert (file.mode, file.group) == ("640", "readers")
    assert settings().model_dump_json(indent=2) + "\n" == (
        BEFORE.files["/etc/gatehouse/settings.json"].content
    )


def test_way_back_is_valid_shell() -> None:
    """The command that makes the last good release serve again can be read by any shell."""
    done = subprocess.run(["sh", "-n", "-c", restore(60)], capture_output=True, check=False)
    assert not done.stderr
