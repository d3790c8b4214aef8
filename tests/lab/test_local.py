"""A deploy on the spot: pyinfra runs on the host itself, with the inventory that is shipped."""

import json
import re
import subprocess
import tomllib

import pytest

from gatehouse.lab.common import ROOT
from gatehouse.lab.workstation import Workstation
from tests.deploying import settings_of
from tests.lab.conftest import containers

CHECKOUT = "/srv/gatehouse"
VENV = "/srv/venv"
DEPLOY = f"cd {CHECKOUT} && PYINFRA_PROGRESS=off {VENV}/bin/pyinfra inventory deploy.py -y"
VERIFY = (
    f"cd {CHECKOUT} && {VENV}/bin/python -m gatehouse verify -- -q -k 'test_redis or test_health'"
)


@pytest.fixture(scope="module")
def pyinfra(workstation: Workstation) -> str:
    """Give the command that runs in a checkout on the workstation, with the locked versions."""
    packed = ["tar", "--create", "--exclude-vcs", "--exclude=./build", "--exclude=./.venv", "."]
    tar = subprocess.run(packed, cwd=ROOT, capture_output=True, check=True).stdout
    workstation.exec(f"rm -rf {CHECKOUT} {VENV} && mkdir {CHECKOUT}")
    unpack = ["docker", "exec", "-i", workstation.container, "tar", "--extract", "-C", CHECKOUT]
    subprocess.run(unpack, input=tar, check=True)
    lock = (ROOT / "requirements.lock").read_text()
    versions = "\n".join(re.findall(r"^[a-z][\w.-]*==[\w.+!]+", lock, re.MULTILINE))
    wanted = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    workstation.exec(f"cat >{VENV}.txt", text=versions)
    packages = " ".join(f"'{each}'" for each in [*wanted, "pytest", "pytest-testinfra"])
    workstation.exec(
        f"python3 -m venv {VENV} && {VENV}/bin/pip install -q -c {VENV}.txt {packages}"
    )
    data = {k: v for k, v in settings_of(workstation).items() if not k.startswith("ssh_")}
    text = f"workstation = [('@local', {data!r})]\n"
    workstation.exec(f"cat >{CHECKOUT}/inventory", text=text)
    return DEPLOY


def test_deploy_on_the_spot_finds_the_same_host(workstation: Workstation, pyinfra: str) -> None:
    """What was deployed over SSH is what the host itself finds: nothing changes."""
    before = containers(workstation)
    done = workstation.exec(pyinfra)
    assert re.search(r"Grand total +\d+ +- +- +\d+", done.stdout + done.stderr), done.stdout
    assert containers(workstation) == before


def test_upgrade_is_looked_at_with_the_settings_of_the_checkout(
    workstation: Workstation, pyinfra: str
) -> None:
    """On the host itself, too: what it was deployed with says nothing of what is wanted now."""
    assert CHECKOUT in pyinfra
    here = f"cd {CHECKOUT} && {VENV}/bin/python -m gatehouse.tool upgrade --preview --json"
    assert list(json.loads(workstation.exec(here).stdout)) == ["@local"]
    own = f"cd {CHECKOUT} && gatehouse upgrade --preview --json"
    assert "images" in json.loads(workstation.exec(own).stdout)


def test_user_with_sudo_deploys_and_verifies_on_the_spot(
    workstation: Workstation, pyinfra: str
) -> None:
    """A person's own account, which may use sudo, does both, too."""
    workstation.exec(f"chown -R operator {CHECKOUT}")
    done = workstation.exec(["su", "operator", "-s", "/bin/sh", "-c", pyinfra])
    assert re.search(r"Grand total +\d+ +- +- +\d+", done.stdout + done.stderr), done.stdout
    workstation.exec(["su", "operator", "-s", "/bin/sh", "-c", VERIFY])
