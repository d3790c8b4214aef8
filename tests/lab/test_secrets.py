"""Secrets: born once, taken over from the operator, never lost by a deploy."""

from collections.abc import Iterator

import pytest

from gatehouse.lab.workstation import Workstation
from tests.deploying import deploy
from tests.gateway import Gateway
from tests.given import PROVIDER_KEY
from tests.lab.conftest import containers, failing, recreated

DIRECTORY = "/etc/gatehouse/secrets"
KEY = "canary-provider-key-0123456789abcdef"
CLOUD_MODELS = {"qwen3-coder-480b-cloud", "kimi-k2-1t-cloud", "deepseek-v3.1-671b-cloud"}


def sums(workstation: Workstation) -> str:
    """Give the hashes of the host's own secrets."""
    return workstation.exec(f"cd {DIRECTORY} && sha256sum *_key *_password").stdout


def offered(gateway: Gateway) -> set[str]:
    """Give the models that clients are told of."""
    return {each["id"] for each in gateway.ask("GET", "/v1/models").json()["data"]}


@pytest.fixture
def _without_provider_key(workstation: Workstation) -> Iterator[None]:
    """Take the provider key away again afterwards."""
    yield
    workstation.exec(f"rm -f {DIRECTORY}/providers/{PROVIDER_KEY}")
    deploy(workstation)


@pytest.mark.usefixtures("_without_provider_key")
def test_provider_key_switches_the_cloud_models_on(
    workstation: Workstation, gateway: Gateway
) -> None:
    """A key from the environment reaches the host once, for its readers only, and stays there."""
    own, before = sums(workstation), containers(workstation)
    assert not CLOUD_MODELS & offered(gateway)
    given = deploy(workstation, environment={PROVIDER_KEY: KEY})
    assert "Secrets | Take over provider keys" in given.changed
    assert KEY not in given.log + given.summary
    path = f"{DIRECTORY}/providers/{PROVIDER_KEY}"
    assert workstation.exec(f"stat -c '%a %U:%G' {path}; cat {path}").stdout.split() == [
        "440",
        "root:gatehouse-secrets",
        KEY,
    ]
    assert recreated(before, containers(workstation)) == {"litellm"}
    assert offered(gateway) >= CLOUD_MODELS
    assert failing(workstation) == []
    after = containers(workstation)
    assert deploy(workstation).changed == []
    assert deploy(workstation, environment={PROVIDER_KEY: KEY}).changed == []
    assert containers(workstation) == after
    assert sums(workstation) == own


def test_secret_that_the_data_need_is_not_replaced(workstation: Workstation) -> None:
    """Where the salt key is lost and the database is not, a deploy refuses and makes no new one."""
    before = containers(workstation)
    workstation.exec(f"mv {DIRECTORY}/salt_key /root/salt_key")
    try:
        refused = deploy(workstation, expect=1)
        made = workstation.exec(f"test -e {DIRECTORY}/salt_key", check=False).returncode == 0
    finally:
        workstation.exec(f"mv /root/salt_key {DIRECTORY}/salt_key")
    assert "salt_key" in refused.words
    assert "put them back from a backup" in refused.words
    assert "Traceback" not in refused.words
    assert not made
    assert containers(workstation) == before
    assert deploy(workstation).changed == []


def test_secret_in_the_wrong_place_is_noticed(workstation: Workstation) -> None:
    """The check of secrets finds one that somebody has written down."""
    leak = "/var/lib/gatehouse/notes"
    workstation.exec(f"cat {DIRECTORY}/redis_password >{leak}")
    try:
        found = failing(workstation)
    finally:
        workstation.exec(f"rm {leak}")
    assert found == ["secrets: visible nowhere else: a secret shows in a rendered file"]


def test_modes_are_put_right(workstation: Workstation) -> None:
    """A deploy mends what somebody has opened."""
    workstation.exec(f"chmod 644 {DIRECTORY}/master_key; chmod 755 {DIRECTORY}")
    assert len(failing(workstation)) >= 2
    deploy(workstation)
    assert failing(workstation) == []
