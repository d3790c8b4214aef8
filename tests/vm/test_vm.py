"""The whole life of a gateway on a real kernel: `make test-vm`, in this order, about an hour.

Emulated, Python runs seven times slower than here (docs/operations.md); with KVM it takes minutes.
"""

import re
import subprocess
import sys
from collections.abc import Iterator

import pytest
import testinfra

from gatehouse.lab import models
from gatehouse.lab.common import ROOT
from gatehouse.lab.images import LabImages
from gatehouse.lab.progress import Progress
from gatehouse.lab.settings import overrides
from gatehouse.lab.vm import Vm
from tests.deploying import Deploy, deploy
from tests.gateway import Gateway, question
from tests.lab.engines import CHAT, engine
from tests.waiting import wait_for

SECONDS = 3600
HEALTHY_SECONDS = 1200
OURS = "docker ps -aq --filter label=com.docker.compose.project=gatehouse"
SETTINGS = {
    "engines_extra": [engine(CHAT, 8190, load_seconds=300)],
    "models_extra": [
        {"name": CHAT, "backend": f"hosted_vllm/{CHAT}", "engine": CHAT, "timeout_seconds": 400}
    ],
    "models_fallbacks": {},
    "models_context_fallbacks": {},
    # Emulated, the proxy imports its modules for minutes.
    "litellm_start_timeout_seconds": 1800,
    "postgres_start_timeout_seconds": 600,
    "redis_start_timeout_seconds": 600,
    "litellm_workers": 1,
}
SECRETS = "sha256sum /etc/gatehouse/secrets/*"


@pytest.fixture(scope="module")
def vm(lab_images: LabImages, progress: Progress) -> Iterator[Vm]:
    """A Debian 13 machine with nothing on it."""
    settings = overrides(lab_images) | SETTINGS
    with Vm.start("vm", preload=lab_images, settings=settings, progress=progress) as started:
        progress.say(f"the machine runs on {started.accelerator}")
        yield started


@pytest.fixture(scope="module")
def gateway(vm: Vm) -> Gateway:
    """Give a client of its gateway."""
    spec = f"ssh://{vm.name}?sudo=true"
    return Gateway(testinfra.get_host(spec, ssh_config=str(vm.access.ssh_config)))


def run(vm: Vm, **more: object) -> Deploy:
    """Deploy as a person does who may use sudo and is not root."""
    return deploy(vm, deadline_seconds=SECONDS, **more)  # type: ignore[arg-type]


def wait_until_healthy(vm: Vm) -> None:
    """Wait until every service says that it is healthy."""
    script = (
        f"{OURS} --filter label=com.docker.compose.oneoff=False | xargs -r docker inspect "
        "-f '{{with .State.Health}}{{.Status}}{{end}}'"
    )
    wait_for(
        lambda: vm.exec(script, check=False).stdout.split() == ["healthy"] * 3,
        HEALTHY_SECONDS,
        "three healthy services",
    )


def failing(vm: Vm) -> str:
    """Wait until no check fails, and give what still does in the end."""
    wait_until_healthy(vm)

    def right() -> bool:
        return vm.exec("gatehouse status", check=False).returncode == 0

    wait_for(right, HEALTHY_SECONDS, vm.exec("gatehouse doctor", check=False).stdout)
    return ""


def engines_running(vm: Vm) -> list[str]:
    """Give the engines whose containers run."""
    names = vm.exec("docker ps --format '{{.Names}}'").stdout.split()
    return [name for name in names if CHAT in name]


def made_key(gateway: Gateway) -> str:
    """Make a key that is to outlive what follows, ask with it, and give its hash."""
    made = gateway.ask("POST", "/key/generate", {}, keep={"key": "lasting"})
    assert made.status == 200, made.text
    answer = gateway.ask(
        "POST",
        "/v1/chat/completions",
        question("chat-selftest-builtin", "hello"),
        key="{lasting}",
        timeout=120,
    )
    assert answer.status == 200, answer.text
    return str(gateway.ask("GET", "/key/info", key="{lasting}").json()["key"])


def known(gateway: Gateway, token: str) -> bool:
    """Say whether the gateway still knows the key."""
    return gateway.ask("GET", f"/key/info?key={token}", timeout=120).status == 200


def test_bare_machine_has_nothing(vm: Vm) -> None:
    """The machine is what a person has after installing Debian: no engine, no root over SSH."""
    assert vm.exec("command -v docker || command -v python3", check=False).returncode != 0
    whole = ["ssh", "-F", str(vm.access.ssh_config), f"{vm.name}-root", "true"]
    assert subprocess.run(whole, capture_output=True, check=False).returncode == 255


def test_bare_machine_becomes_a_gateway(vm: Vm) -> None:
    """`pyinfra inventory deploy.py` over SSH, as a user with sudo, is all it takes."""
    models.install(vm)
    done = run(vm)
    assert "the gateway answers at" in done.words


def test_verify_proves_it(vm: Vm) -> None:
    """The same testinfra files that prove a throwaway workstation prove the machine."""
    whole = [sys.executable, "-m", "gatehouse", "verify", "--inventory", vm.access.inventory]
    done = subprocess.run(whole, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-6000:]
    assert re.search(r"\d+ passed", done.stdout)


def test_second_deploy_changes_nothing(vm: Vm) -> None:
    """Nothing is left to do."""
    assert run(vm).changed == []


def test_engine_answers_and_sleeps_again(vm: Vm, gateway: Gateway) -> None:
    """A request wakes the engine, and it goes again."""
    answer = gateway.ask(
        "POST", "/v1/chat/completions", question(CHAT, "hello", max_tokens=3), timeout=600
    )
    assert answer.status == 200, answer.text
    wait_for(lambda: not engines_running(vm), HEALTHY_SECONDS, "the engine to sleep")


@pytest.mark.parametrize("power_cut", [False, True], ids=["reboot", "power cut"])
def test_everything_comes_back_after(
    vm: Vm, gateway: Gateway, progress: Progress, *, power_cut: bool
) -> None:
    """Everything is healthy again, no engine runs, no secret changed, nothing is left to do."""
    secrets, token = vm.exec(SECRETS).stdout, made_key(gateway)
    if power_cut:
        vm.exec("sync")
        vm.cut_power(progress)
    else:
        vm.reboot(progress)
    assert failing(vm) == ""
    assert engines_running(vm) == []
    assert vm.exec(SECRETS).stdout == secrets
    assert known(gateway, token)
    assert run(vm).changed == []


def test_power_cut_during_a_deploy_is_healed(vm: Vm, gateway: Gateway, progress: Progress) -> None:
    """The gateway from before serves after the boot, and the next deploy does what was asked."""
    token = made_key(gateway)
    changed = {"redis_maxmemory_mib": 128}

    def switching(log: str) -> bool:
        if "Redis | Have it healthy" not in log:
            return False
        vm.cut_power(progress)
        return True

    run(vm, settings=changed, kill_when=switching)
    assert failing(vm) == ""
    assert known(gateway, token)
    run(vm, settings=changed)
    assert "128" in vm.exec("cat /opt/gatehouse/current/redis/redis.conf").stdout
    assert known(gateway, token)
    assert run(vm, settings=changed).changed == []
