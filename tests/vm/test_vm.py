"""The whole life of a gateway on a real kernel: `make test-vm`, in this order (docs/vm.md).

Emulated, Python runs seven times slower than it should and a run takes most of an hour; with KVM it
takes minutes. The settings below say so to the product; nothing else differs for its sake.
"""

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator

import pytest
import testinfra

from gatehouse.faults import station
from gatehouse.faults.__main__ import bring_about
from gatehouse.faults.faults import FAULTS
from gatehouse.lab import models
from gatehouse.lab.common import ROOT, wait_for
from gatehouse.lab.images import LabImages
from gatehouse.lab.progress import Progress
from gatehouse.lab.vm import Vm
from tests.deploying import Deploy, deploy
from tests.gateway import Gateway, question
from tests.lab.engines import CHAT, engine
from tests.lab.releases import begun

# Names a machine to use again, and to keep: quick while writing tests. Where there is none, it is
# made.
KEPT = "GATEHOUSE_TEST_VM"
SECONDS = 3600
HEALTHY_SECONDS = 1800
# Each look costs the guest a second or two.
LOOK_SECONDS = 5
OURS = "docker ps -aq --filter label=com.docker.compose.project=gatehouse"
# Two requests a second would be all that an emulated processor can do.
RATE = 0.5
MODEL = {"name": CHAT, "backend": f"hosted_vllm/{CHAT}", "engine": CHAT, "timeout_seconds": 400}
SETTINGS: dict[str, object] = {
    "engines_extra": [engine(CHAT, 8190, load_seconds=300)],
    "models_context_fallbacks": {},
    # Emulated, the proxy imports its modules for minutes.
    "litellm_start_timeout_seconds": 1800,
    "postgres_start_timeout_seconds": 600,
    "redis_start_timeout_seconds": 600,
    "litellm_workers": 1,
    "litellm_request_timeout_seconds": 300,
    # And a look at everything takes a minute: no time is left for looking every minute.
    "health_interval_seconds": 900,
    "timers_status": "hourly",
    # A heartbeat may come late.
    "deploy_silence_seconds": 300,
}
CHANGED: dict[str, object] = {"redis_maxmemory_mib": 128}
SECRETS = "sha256sum /etc/gatehouse/secrets/*_*"
CONFIGURED = "cat /opt/gatehouse/current/redis/redis.conf"


@pytest.fixture(scope="module")
def vm(lab_images: LabImages, progress: Progress) -> Iterator[Vm]:
    """A Debian 13 machine with nothing on it."""
    kept = os.environ.get(KEPT)
    found = Vm.find(kept, progress) if kept else None
    if found is None:
        backends = station.settings(lab_images)
        offered = [*backends["models_extra"], MODEL]
        settings = backends | SETTINGS | {"models_extra": offered}
        found = Vm.start(kept or "vm", preload=lab_images, settings=settings, progress=progress)
    progress.say(f"the machine runs on {found.accelerator}")
    yield found
    if not kept:
        found.remove()


@pytest.fixture(scope="module")
def gateway(vm: Vm) -> Gateway:
    """Give a client of its gateway."""
    spec = f"ssh://{vm.name}?sudo=true"
    return Gateway(testinfra.get_host(spec, ssh_config=str(vm.access.ssh_config)))


@pytest.fixture(autouse=True)
def timed(request: pytest.FixtureRequest, progress: Progress) -> Iterator[None]:
    """Say what began and what it took: figures for docs/vm.md."""
    name, begin = request.node.name, time.monotonic()
    progress.say(f"{name} begins")
    yield
    progress.say(f"{name} took {time.monotonic() - begin:.0f} s")


def run(vm: Vm, progress: Progress, **changes: object) -> Deploy:
    """Deploy as a person does who may use sudo and is not root."""
    done = deploy(vm, settings=changes, deadline_seconds=SECONDS)
    changed = f"{len(done.changed)} operations changed"
    progress.say(f"a deploy took {done.seconds:.0f} s, {changed}")
    return done


def wait_until_healthy(vm: Vm) -> None:
    """Wait until every service says that it is healthy."""
    script = (
        f"{OURS} --filter label=com.docker.compose.oneoff=False | xargs -r docker inspect "
        "-f '{{with .State.Health}}{{.Status}}{{end}}'"
    )

    def problem() -> str | None:
        seen = vm.exec(script, check=False).stdout.split()
        return None if seen == ["healthy"] * 3 else f"{seen}"

    wait_for("three healthy services", problem, HEALTHY_SECONDS, LOOK_SECONDS)


def wait_until_right(vm: Vm, progress: Progress) -> None:
    """Wait until no check fails, without anybody doing anything."""
    with progress.step("waiting until it is healthy"):
        wait_until_healthy(vm)

    def problem() -> str | None:
        seen = vm.exec("gatehouse status", check=False)
        return None if seen.returncode == 0 else seen.stdout + seen.stderr

    with progress.step("waiting until every check holds"):
        wait_for("every check to hold", problem, HEALTHY_SECONDS / 2, LOOK_SECONDS)


def engines_running(vm: Vm) -> list[str]:
    """Give the engines whose containers run."""
    names = vm.exec("docker ps --format '{{.Names}}'").stdout.split()
    return [name for name in names if CHAT in name]


def wait_until_asleep(vm: Vm) -> None:
    """Wait until no engine runs."""

    def problem() -> str | None:
        return ", ".join(engines_running(vm)) or None

    wait_for("the engine to sleep", problem, HEALTHY_SECONDS, LOOK_SECONDS)


def made_key(gateway: Gateway) -> str:
    """Make a key that is to outlive what follows, ask with it, and give its hash."""
    made = gateway.ask("POST", "/key/generate", {}, keep={"key": "lasting"}, timeout=120)
    assert made.status == 200, made.text
    text = question("chat-selftest-builtin", "hello")
    answer = gateway.ask("POST", "/v1/chat/completions", text, key="{lasting}", timeout=120)
    assert answer.status == 200, answer.text
    return str(gateway.ask("GET", "/key/info", key="{lasting}", timeout=120).json()["key"])


def known(gateway: Gateway, token: str) -> bool:
    """Say whether the gateway still knows the key."""
    return gateway.ask("GET", f"/key/info?key={token}", timeout=120).status == 200


def current(vm: Vm, link: str = "current") -> str:
    """Give the release that a link leads to."""
    return vm.exec(f"basename $(readlink /opt/gatehouse/{link})").stdout.strip()


def ways_back(vm: Vm) -> list[dict[str, str]]:
    """Give what the audit log knows of ways back."""
    entries = json.loads(vm.exec("gatehouse log --json -n 1000").stdout)["entries"]
    return [entry["details"] for entry in entries if entry["action"] == "way back"]


def test_bare_machine_has_nothing(vm: Vm) -> None:
    """The machine is what a person has after installing Debian: no engine, no root over SSH."""
    assert vm.exec("command -v docker || command -v python3", check=False).returncode != 0
    whole = ["ssh", "-F", str(vm.access.ssh_config), f"{vm.name}-root", "true"]
    assert subprocess.run(whole, capture_output=True, check=False).returncode == 255
    assert "cgroup2fs" in vm.exec("stat -fc %T /sys/fs/cgroup").stdout
    # The lab's own way in, as documented.
    lab = [sys.executable, "-m", "gatehouse.lab", "ssh", vm.name, "true"]
    assert subprocess.run(lab, cwd=ROOT, check=False).returncode == 0


def test_bare_machine_becomes_a_gateway(vm: Vm, progress: Progress) -> None:
    """`pyinfra inventory deploy.py` over SSH, as a user with sudo, is all it takes."""
    models.install(vm)
    assert "the gateway answers at" in run(vm, progress).words


def test_second_deploy_changes_nothing(vm: Vm, progress: Progress) -> None:
    """Nothing is left to do."""
    assert run(vm, progress).changed == []


def test_engine_answers_and_sleeps_again(vm: Vm, gateway: Gateway) -> None:
    """A request wakes the engine, and it goes again."""
    text = question(CHAT, "hello", max_tokens=3)
    answer = gateway.ask("POST", "/v1/chat/completions", text, timeout=600)
    assert answer.status == 200, answer.text
    assert answer.headers["x-gatehouse-engine"] == "woken"
    wait_until_asleep(vm)


def test_clock_that_jumps_loses_nothing(vm: Vm, progress: Progress) -> None:
    """An hour ahead, or back, under load: requests are answered, and each has its line of spend."""
    station.prepare(vm)
    try:
        outcomes = [bring_about(vm, fault, RATE) for fault in FAULTS if fault.vm]
    finally:
        station.put_away(vm, progress)
    for each in outcomes:
        progress.say("; ".join(each.row()))
    assert [
        each.row() for each in outcomes if not each.well or each.answered < len(each.answers)
    ] == []


def test_reboot_loses_nothing(vm: Vm, gateway: Gateway, progress: Progress) -> None:
    """Everything is healthy again, no engine runs, no secret changed, nothing is left to do."""
    secrets, token = vm.exec(SECRETS).stdout, made_key(gateway)
    vm.reboot(progress)
    wait_until_right(vm, progress)
    assert engines_running(vm) == []
    assert vm.exec(SECRETS).stdout == secrets
    assert known(gateway, token)
    assert run(vm, progress).changed == []


def test_power_cut_during_a_deploy_goes_back(vm: Vm, gateway: Gateway, progress: Progress) -> None:
    """The boot itself goes back to the release before, which serves with all that it had."""
    before, secrets, went = current(vm), vm.exec(SECRETS).stdout, len(ways_back(vm))
    # Given out a moment before the light goes out.
    token = made_key(gateway)
    given_up: list[str] = []

    def switching(log: str) -> bool:
        if not begun("Redis | Have it healthy")(log):
            return False
        given_up.append(current(vm))
        vm.cut_power()
        return True

    deploy(vm, settings=CHANGED, kill_when=switching, deadline_seconds=SECONDS)
    assert given_up != [before], "nothing was switched yet"
    vm.switch_on(progress)
    wait_until_right(vm, progress)
    assert current(vm) == current(vm, "good") == before
    assert "maxmemory 128mb" not in vm.exec(CONFIGURED).stdout
    (way,) = ways_back(vm)[went:]
    assert way["given_up"] == given_up[0]
    assert way["release"] == before
    assert way["reason"] == "the host was switched off during a deploy"
    assert vm.exec("test -e /var/lib/gatehouse/deploying", check=False).returncode == 1
    assert engines_running(vm) == []
    assert vm.exec(SECRETS).stdout == secrets
    assert known(gateway, token)


def test_power_cut_right_after_a_deploy_loses_nothing(
    vm: Vm, gateway: Gateway, progress: Progress
) -> None:
    """What the deploy called good serves after the boot, and nothing is left to do."""
    token, secrets = made_key(gateway), vm.exec(SECRETS).stdout
    run(vm, progress, **CHANGED)
    vm.cut_power()
    vm.switch_on(progress)
    wait_until_right(vm, progress)
    assert "maxmemory 128mb" in vm.exec(CONFIGURED).stdout
    assert current(vm) == current(vm, "good")
    assert engines_running(vm) == []
    assert vm.exec(SECRETS).stdout == secrets
    assert known(gateway, token)
    assert run(vm, progress, **CHANGED).changed == []


def test_verify_proves_it(vm: Vm, progress: Progress) -> None:
    """After all that, the testinfra files that prove a throwaway workstation prove the machine."""
    last = vm.access.folder / "inventory-changed"
    inventory = last if last.exists() else vm.access.inventory
    whole = [sys.executable, "-m", "gatehouse", "verify", "--inventory", inventory]
    done = subprocess.run(whole, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-6000:]
    passed = re.search(r"\d+ passed.*", done.stdout)
    assert passed
    progress.say(f"verify: {passed[0]}")
