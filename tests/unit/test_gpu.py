"""GPU: what is found, what is refused, and what is written."""

import subprocess
from pathlib import Path

import pytest

from gatehouse.checks.gpu import checks
from gatehouse.deploys.card import COMMAND, NONE, Gpu, Gpus, card, problems, read, warnings
from gatehouse.deploys.gpu import source, to_install
from gatehouse.render.docker import merge, wanted
from gatehouse.render.gpu import files
from tests.given import settings

TWO = """\
gpu_pci=0000:01:00.0
gpu_pci=0000:02:00.0
gpu_module=NVIDIA UNIX Open Kernel Module for x86_64  570.133.20  Release Build  (x@y)
gpu_smi=0
gpu=0, GPU-aaaa, NVIDIA GeForce RTX 4090, 24564, 570.133.20
gpu=1, GPU-bbbb, NVIDIA GB10, [N/A], 570.133.20
gpu_toolkit=NVIDIA Container Toolkit CLI version 1.18.1
"""
BROKEN = """\
gpu_pci=0000:01:00.0
gpu_smi=18
gpu=Failed to initialize NVML: Driver/library version mismatch
gpu=NVML library version: 570.133
"""
NO_DRIVER = "gpu_pci=0000:01:00.0\n"
NOT_LOADED = """\
gpu_pci=0000:01:00.0
gpu_smi=9
gpu=NVIDIA-SMI has failed because it couldn't communicate with the NVIDIA driver.
"""
NO_CARD = "gpu_smi=6\ngpu=No devices were found\n"


def found(text: str) -> Gpus:
    """Read what a host printed."""
    lines: dict[str, list[str]] = {}
    for line in text.splitlines():
        key, _, value = line.partition("=")
        lines.setdefault(key, []).append(value)
    return read(lines)


def test_cards_are_read() -> None:
    """Each card has its number, name and memory; one that shares the host's memory has none."""
    gpus = found(TWO)
    assert gpus.cards == (
        Gpu(0, "GPU-aaaa", "NVIDIA GeForce RTX 4090", 24564),
        Gpu(1, "GPU-bbbb", "NVIDIA GB10", 0),
    )
    assert (gpus.driver, gpus.module, gpus.toolkit) == ("570.133.20", "570.133.20", "1.18.1")
    assert gpus.installed
    assert not gpus.trouble


def test_host_without_a_card_has_nothing() -> None:
    """No line at all is no card."""
    assert found("") == NONE
    assert not NONE.present


def test_fact_is_valid_shell_and_quiet_without_a_card(tmp_path: Path) -> None:
    """A host without NVIDIA's things prints nothing about them."""
    # Only what the script itself needs, so that a card of this machine does not show.
    for name in ("grep", "sed", "timeout"):
        (tmp_path / name).symlink_to(f"/usr/bin/{name}")
    script = COMMAND.replace("/sys/bus", f"{tmp_path}/sys").replace("/proc/", f"{tmp_path}/proc/")
    done = subprocess.run(
        ["/bin/sh", "-c", script],
        env={"PATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.stdout, done.stderr) == ("", "")


def test_fact_finds_cards_by_their_vendor_and_class(tmp_path: Path) -> None:
    """An accelerator of NVIDIA's is a card; its sound device and a card of others are not."""
    for name, vendor, kind in (
        ("0000:01:00.0", "0x10de", "0x030200"),
        ("0000:01:00.1", "0x10de", "0x040300"),
        ("0000:02:00.0", "0x1002", "0x030000"),
    ):
        device = tmp_path / name
        device.mkdir()
        (device / "vendor").write_text(f"{vendor}\n")
        (device / "class").write_text(f"{kind}\n")
    script = COMMAND.replace("/sys/bus/pci/devices", str(tmp_path))
    done = subprocess.run(["sh", "-c", script], capture_output=True, text=True, check=False)
    assert [line for line in done.stdout.splitlines() if "pci" in line] == ["gpu_pci=0000:01:00.0"]


@pytest.mark.parametrize(
    ("host", "reason"),
    [
        ("", "no NVIDIA card is on this host's bus"),
        (NO_DRIVER, "no driver: install it"),
        (BROKEN, "the driver was updated under the running kernel: reboot"),
        (NOT_LOADED, "its kernel module is not loaded"),
        (NO_CARD, "nvidia-smi fails: No devices were found"),
        (TWO.replace("570.133.20", "535.54"), "the NVIDIA driver is 535.54, gpu_driver_min is 550"),
        ("gpu_smi=0\ngpu=\n", "lists no card"),
    ],
    ids=["no card", "no driver", "mismatch", "not loaded", "none found", "too old", "empty list"],
)
def test_host_that_cannot_use_its_card_is_refused(host: str, reason: str) -> None:
    """gpu_mode = "nvidia" says what is wrong and what to do; "none" does not care."""
    gpus = found(host)
    (problem,) = problems(settings(gpu_mode="nvidia"), gpus)
    assert reason in problem
    assert 'gpu_mode = "none"' in problem or '"auto"' in problem
    assert card(settings(gpu_mode="nvidia"), gpus) == "none"
    for mode in ("auto", "none"):
        assert not problems(settings(gpu_mode=mode), gpus)


def test_working_card_is_used_unless_told_otherwise() -> None:
    """It is used with auto and nvidia, not with none."""
    gpus = found(TWO)
    modes = {mode: card(settings(gpu_mode=mode), gpus) for mode in ("auto", "nvidia", "none")}
    assert modes == {"auto": "nvidia", "nvidia": "nvidia", "none": "none"}
    assert not problems(settings(gpu_mode="nvidia"), gpus)
    assert not warnings(settings(gpu_mode="auto"), gpus)


def test_auto_says_why_a_card_is_not_used() -> None:
    """A card without a driver is worth a word; a host without a card, or with none wanted, is not."""
    (warning,) = warnings(settings(gpu_mode="auto"), found(NO_DRIVER))
    assert "run on the CPU" in warning
    assert not warnings(settings(gpu_mode="auto"), NONE)
    assert not warnings(settings(gpu_mode="none"), found(NO_DRIVER))


def test_driver_floor_compares_numbers() -> None:
    """550.9 is older than 550.54, and 1000 newer than 999."""
    old = found(TWO.replace("570.133.20", "550.9"))
    assert problems(settings(gpu_mode="nvidia", gpu_driver_min="550.54"), old)
    assert not problems(settings(gpu_mode="nvidia", gpu_driver_min="550"), old)


@pytest.mark.parametrize(
    ("toolkit", "installs"), [("", True), ("1.17.8", True), ("1.18.0", False), ("1.20.1", False)]
)
def test_toolkit_below_the_floor_is_replaced(toolkit: str, *, installs: bool) -> None:
    """1.18 is the first that keeps the specification up to date."""
    assert to_install(Gpus(toolkit=toolkit)) is installs


def test_repository_is_flat_and_has_its_own_key() -> None:
    """NVIDIA's repository has no suites; apt fills in the architecture."""
    text = source(settings()).text
    assert "URIs: https://nvidia.github.io/libnvidia-container/stable/deb/$(ARCH)\n" in text
    assert "Suites: /\n" in text
    assert "Components" not in text
    assert "Signed-By: /etc/apt/keyrings/nvidia-container-toolkit.asc\n" in text


def test_units_are_for_hosts_with_a_card() -> None:
    """Without a card nothing is written; with one, the watchdog runs as often as set."""
    assert files(settings(), "none") == {}
    units = files(settings(gpu_watch_seconds=77), "nvidia")
    timer = units["/etc/systemd/system/gatehouse-gpu-watch.timer"].content
    assert "OnUnitInactiveSec=77\n" in timer
    service = units["/etc/systemd/system/gatehouse-gpu-watch.service"].content
    assert "-m gatehouse.engines watch\n" in service


def test_daemon_hands_out_cards_where_there_are_any() -> None:
    """Without a card daemon.json says nothing of NVIDIA's."""
    assert not {"features", "runtimes"} & wanted(settings()).keys()
    ours = wanted(settings(), "nvidia")
    assert ours["features"] == {"cdi": True}
    assert ours["runtimes"]["nvidia"]["path"] == "nvidia-container-runtime"


@pytest.mark.parametrize(
    ("present", "before", "features", "kept"),
    [
        ({}, {}, {"cdi": True}, []),
        ({"buildkit": False}, {}, {"buildkit": False, "cdi": True}, []),
        ({"cdi": False}, {}, {"cdi": False}, ["features"]),
        ({"cdi": True, "x": True}, {"cdi": True}, {"cdi": True, "x": True}, []),
    ],
    ids=["nothing yet", "operator's other feature", "operator's no", "both already"],
)
def test_features_are_merged_one_by_one(
    present: dict[str, bool],
    before: dict[str, bool],
    features: dict[str, bool],
    kept: list[str],
) -> None:
    """The operator's own features stand beside ours, and theirs win."""
    ours = {"features": {"cdi": True}}
    merged, left = merge({"features": present}, {"features": before}, ours)
    assert merged == {"features": features}
    assert left == kept


def test_features_go_with_the_card() -> None:
    """What we set is taken back when cards are no longer used; what the operator set stays."""
    before = {"features": {"cdi": True}, "runtimes": {"nvidia": {}}}
    present = {"features": {"cdi": True, "x": True}, "runtimes": {"nvidia": {}}}
    assert merge(present, before, {})[0] == {"features": {"x": True}}
    assert merge({"features": {}}, {}, {})[0] == {"features": {}}


def test_checks_depend_on_the_mode() -> None:
    """With none there is nothing to state; auto states something only where a card was deployed for."""
    assert checks(settings(gpu_mode="none")) == []
    auto, nvidia = (checks(settings(gpu_mode=mode)) for mode in ("auto", "nvidia"))
    assert [check.name for check in auto] == [check.name for check in nvidia]
    assert all("engines.json" in check.command for check in auto)
    assert not any("engines.json" in check.command for check in nvidia)


def test_checks_hold_on_a_host_without_a_card() -> None:
    """With auto every check is silent where no card was deployed for; this machine is such a one."""
    for check in checks(settings(gpu_mode="auto")):
        done = subprocess.run(
            ["sh", "-c", check.command], capture_output=True, text=True, check=False
        )
        assert check.judge(done.returncode, done.stdout + done.stderr).holds, check.name
