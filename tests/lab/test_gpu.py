"""The graphics card: a real deploy of a host whose card is simulated up to, not with, CUDA."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from gatehouse.lab import models
from gatehouse.lab.images import LabImages
from gatehouse.lab.progress import Progress
from gatehouse.lab.settings import overrides
from gatehouse.lab.workstation import Workstation
from tests.deploying import Deploy, deploy
from tests.lab import nvidia
from tests.lab.conftest import containers, failing

ENGINE = "chat-tiny-llamacpp"
PORT = 8090
# Alone on the CPU the lab's engine answers within seconds.
WAKE = f"curl -sf --max-time 120 http://127.0.0.1:{PORT}/health"
# The operator's own, in a key of which we set another entry.
DAEMON_JSON = '{"features": {"buildkit": true}}'
# Admission has no NVML to ask here.
SIMULATED = """
mkdir -p /etc/systemd/system/gatehouse-server-.service.d
printf '%s\\n' '[Service]' 'Environment=GATEHOUSE_SIMULATED_CARD=/etc/simulated-card.json' \
    >/etc/systemd/system/gatehouse-server-.service.d/simulated.conf
echo '{"total_mib": 24564, "foreign_mib": 0}' >/etc/simulated-card.json
"""
# The form in which Compose hands out a card on every engine that is supported.
COMPOSE = """
name: somebody
services:
  asks:
    image: {image}
    user: "65534:65534"
    entrypoint: [sleep, infinity]
    deploy:
      resources:
        reservations:
          devices: [{{driver: cdi, device_ids: ["nvidia.com/gpu=all"], capabilities: [gpu]}}]
"""
ENVIRONMENT = "docker exec {} cat /proc/1/environ | tr '\\0' '\\n'"


@pytest.fixture(scope="module")
def machine(lab_images: LabImages, archive: Path, progress: Progress) -> Iterator[Workstation]:
    """A workstation with a card, a model's file and a Docker that was set up by somebody."""
    engine = {
        "name": ENGINE,
        "enabled": True,
        "kind": "llamacpp",
        "port": PORT,
        "file": models.CHAT,
        "device": "gpu",
        "memory_mib": 1000,
        "ram_mib": 1024,
        "context_tokens": 256,
    }
    settings = overrides(lab_images, archive) | {
        "engines_extra": [engine],
        "engines_llamacpp_gpu_image": lab_images.llamacpp,
        # The tests look when they want to know.
        "gpu_watch_seconds": 3600,
    }
    with Workstation.start(
        "s-gpu", image=lab_images.host, preload=lab_images, settings=settings, progress=progress
    ) as started:
        models.install(started, progress)
        started.exec("mkdir -p /etc/docker && cat >/etc/docker/daemon.json", text=DAEMON_JSON)
        started.exec(SIMULATED)
        yield started


@pytest.fixture(scope="module")
def card(machine: Workstation) -> dict[str, object]:
    """Give the workstation a card; gives the settings to use it."""
    return nvidia.install(machine)


@pytest.fixture(scope="module")
def first(machine: Workstation, card: dict[str, object]) -> Deploy:
    """Refuse NVIDIA's repository with another key, then run the first deploy."""
    wrong = card | {"gpu_toolkit_repository_fingerprint": "0123456789" * 4}
    refused = deploy(machine, settings=wrong, expect=1)
    assert f"no key with the fingerprint {'0123456789' * 4}" in refused.words
    assert "gpu_toolkit_repository_url" in refused.words
    left = machine.exec("ls /etc/apt/sources.list.d /etc/apt/keyrings", check=False).stdout
    assert "nvidia" not in left
    return deploy(machine, settings=card)


@pytest.fixture
def host(machine: Workstation, first: Deploy) -> Iterator[Workstation]:
    """Give the deployed workstation; its engine sleeps before and after each test."""
    yield machine
    machine.exec(f"systemctl stop gatehouse-engine-{ENGINE} gatehouse-server-{ENGINE}")


def identity(workstation: Workstation) -> str:
    """Give the id of the engine's container."""
    return containers(workstation)[ENGINE]


def test_host_with_a_card_gets_the_toolkit(
    host: Workstation, first: Deploy, card: dict[str, object]
) -> None:
    """It comes from the repository whose key was checked, and everything holds."""
    assert "GPU | Add NVIDIA's package repository" in first.changed
    assert "GPU | Install the container toolkit" in first.changed
    assert host.exec("nvidia-ctk --version").stdout.endswith("1.18.1\n")
    assert host.exec("systemctl is-active nvidia-cdi-refresh.path").stdout == "active\n"
    assert failing(host, **card) == []


def test_second_run_changes_nothing(host: Workstation, card: dict[str, object]) -> None:
    """Not the toolkit, not the daemon, not the engine's container."""
    before = containers(host)
    assert deploy(host, settings=card).changed == []
    assert containers(host) == before


def test_daemon_hands_out_cards_and_keeps_the_operators_keys(host: Workstation) -> None:
    """The engine of this host is too old to do it by itself."""
    daemon = json.loads(host.exec("cat /etc/docker/daemon.json").stdout)
    assert daemon["features"] == {"buildkit": True, "cdi": True}
    assert daemon["runtimes"]["nvidia"]["path"] == "nvidia-container-runtime"
    assert "nvidia" in host.exec("docker info -f '{{json .Runtimes}}'").stdout


def test_container_that_asks_for_a_card_gets_it(host: Workstation, lab_images: LabImages) -> None:
    """The CDI reservation in Compose form brings environment, device and nvidia-smi."""
    file = "/root/asks.yaml"
    host.exec(f"cat >{file}", text=COMPOSE.format(image=lab_images.redis))
    host.exec(f"docker compose -f {file} up -d")
    try:
        assert "FAKE_GPU=1" in host.exec(ENVIRONMENT.format("somebody-asks-1")).stdout
        assert "GPU 0" in host.exec("docker exec somebody-asks-1 nvidia-smi -L").stdout
    finally:
        host.exec(f"docker compose -f {file} down -t 0")


def test_engine_runs_with_the_card(host: Workstation) -> None:
    """The first request wakes it, in a container that has the device."""
    host.exec(WAKE)
    assert "GPU 0" in host.exec(f"docker exec gatehouse-{ENGINE}-1 nvidia-smi -L").stdout
    assert "FAKE_GPU=1" in host.exec(ENVIRONMENT.format(f"gatehouse-{ENGINE}-1")).stdout


def test_engine_that_lost_its_card_gets_a_new_container(
    host: Workstation, card: dict[str, object]
) -> None:
    """It is noticed, the check says so, the watchdog mends it, and the next request is served."""
    host.exec(WAKE)
    before = identity(host)
    host.exec("systemctl start gatehouse-gpu-watch")
    assert identity(host) == before
    host.exec(f"docker exec gatehouse-{ENGINE}-1 touch {nvidia.LOST}")
    (said,) = failing(host, **card)
    assert "gpu: no container has lost its card" in said
    assert "Failed to initialize NVML" in said
    host.exec("systemctl start gatehouse-gpu-watch")
    journal = host.exec("journalctl -u gatehouse-gpu-watch -p err -o cat --no-pager").stdout
    assert f"{ENGINE} lost its card: Failed to initialize NVML" in journal
    assert identity(host) != before
    assert failing(host, **card) == []
    # What the deploy would have made is what the watchdog made.
    assert deploy(host, settings=card).changed == []
    host.exec(WAKE)
    assert "GPU 0" in host.exec(f"docker exec gatehouse-{ENGINE}-1 nvidia-smi -L").stdout


def test_card_that_cannot_be_given_back_stays_known(
    host: Workstation, card: dict[str, object]
) -> None:
    """When no new container can be made the unit fails, and the check goes on saying why."""
    host.exec(WAKE)
    host.exec(f"docker exec gatehouse-{ENGINE}-1 touch {nvidia.LOST}")
    compose = "/opt/gatehouse/current/compose.yaml"
    host.exec(f"mv {compose} {compose}.away")
    try:
        assert host.exec("systemctl start gatehouse-gpu-watch", check=False).returncode
        assert ENGINE in host.exec("cat /run/gatehouse/gpu-lost.json").stdout
        assert any("lost its card" in line for line in failing(host, **card))
    finally:
        host.exec(f"mv {compose}.away {compose}")
    host.exec("systemctl start gatehouse-gpu-watch")
    assert failing(host, **card) == []


def test_specification_follows_the_driver(host: Workstation, card: dict[str, object]) -> None:
    """A driver that was updated behind everybody's back is noticed by the check and mended."""
    nvidia.update_driver(host, "575.51.03")
    (said,) = failing(host, **card)
    assert "is for libcuda.so.570.133.20, the driver is 575.51.03" in said
    host.exec("systemctl start gatehouse-gpu-watch")
    assert failing(host, **card) == []


def test_toolkit_without_its_own_unit_gets_ours(host: Workstation, card: dict[str, object]) -> None:
    """Packages of others bring no nvidia-cdi-refresh; the specification is written all the same."""
    units = "/usr/lib/systemd/system/nvidia-cdi-refresh.*"
    host.exec("systemctl disable --now nvidia-cdi-refresh.path nvidia-cdi-refresh.service")
    host.exec(f"mkdir /root/units && mv {units} /root/units && systemctl daemon-reload")
    host.exec("rm /run/cdi/nvidia.yaml")
    try:
        assert "GPU | Tell Docker which cards there are" in deploy(host, settings=card).changed
        assert host.exec("systemctl is-active gatehouse-cdi.path").stdout == "active\n"
        assert failing(host, **card) == []
    finally:
        host.exec("mv /root/units/* /usr/lib/systemd/system/ && systemctl daemon-reload")
