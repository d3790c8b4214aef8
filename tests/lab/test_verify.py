"""`gatehouse verify`: proves hosts over SSH, and says clearly when it cannot."""

import pprint
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from gatehouse.lab.common import ROOT
from gatehouse.lab.images import LabImages
from gatehouse.lab.progress import Progress
from gatehouse.lab.workstation import Workstation
from tests.agent import AGENT
from tests.deploying import settings_of
from tests.host.conftest import SQL

SECONDS = 300
INSIDE = "docker exec gatehouse-litellm-1 ls /tmp"


def verify(inventory: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the command with pytest's arguments, and keep what it says."""
    return subprocess.run(
        [sys.executable, "-m", "gatehouse", "verify", "--inventory", inventory, *arguments],
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )


def inventory(folder: Path, hosts: dict[str, dict[str, object]]) -> Path:
    """Write an inventory."""
    path = folder / "inventory"
    path.write_text(f"workstations = {pprint.pformat(list(hosts.items()))}\n")
    return path


def test_verify_proves_several_hosts(workstation: Workstation, tmp_path: Path) -> None:
    """Every host of the inventory is looked at, as root and with sudo, each with its settings."""
    data = settings_of(workstation)
    hosts = {"by-root": data, "by-sudo": data | {"ssh_user": "operator"}}
    found = verify(inventory(tmp_path, hosts), "--", "-v", "-k", "test_redis or test_health")
    assert found.returncode == 0, found.stdout + found.stderr
    assert "test_password_opens[ssh://by-root]" in found.stdout
    assert "test_password_opens[ssh://by-sudo?sudo=true]" in found.stdout
    assert "test_check_holds[ssh://by-sudo?sudo=true-redis: healthy] PASSED" in found.stdout


def test_verify_removes_what_it_makes(workstation: Workstation) -> None:
    """No key, team, user or row of spend is left of the proofs."""
    count = " union all ".join(
        f'select count(*) from "LiteLLM_{table}"'
        for table in ("VerificationToken", "TeamTable", "UserTable")
    )
    rows = f"select count(*) from \"LiteLLM_SpendLogs\" where metadata->>'user_agent' = '{AGENT}'"
    before = workstation.exec(f"{SQL} {shlex.quote(count)}").stdout
    found = verify(
        workstation.access.inventory, "--", "-q", "-k", "test_litellm and not every_route"
    )
    assert found.returncode == 0, found.stdout + found.stderr
    assert workstation.exec(f"{SQL} {shlex.quote(count)}").stdout == before
    assert workstation.exec(f"{SQL} {shlex.quote(rows)}").stdout.strip() == "0"
    assert "gatehouse-verify" not in workstation.exec(INSIDE).stdout


def test_verify_limits_itself_to_a_host(workstation: Workstation, tmp_path: Path) -> None:
    """Only the host that is named is looked at."""
    data = settings_of(workstation)
    hosts = {"one": data, "other": data | {"ssh_port": 1}}
    path = inventory(tmp_path, hosts)
    found = verify(path, "--limit", "one", "--", "-q", "-k", "test_memory_is_bounded")
    assert found.returncode == 0, found.stdout + found.stderr
    wrong = verify(path, "--limit", "nobody")
    assert wrong.returncode == 2
    assert "the hosts are one, other" in wrong.stderr


def test_verify_finds_what_differs_from_the_settings(
    workstation: Workstation, tmp_path: Path
) -> None:
    """What the operator wants counts, not what the host says of itself."""
    hosts = {"one": settings_of(workstation) | {"redis_maxmemory_mib": 99}}
    found = verify(inventory(tmp_path, hosts), "--", "-q", "-k", "test_memory_is_bounded")
    assert found.returncode == 1
    assert "test_memory_is_bounded" in found.stdout


def test_verify_says_what_is_broken(workstation: Workstation, tmp_path: Path) -> None:
    """A service that does not run fails the proof by name, with the way to find out more."""
    workstation.exec("docker stop gatehouse-redis-1")
    try:
        found = verify(workstation.access.inventory, "--", "-q", "-k", "test_health")
    finally:
        workstation.exec("docker start gatehouse-redis-1")
    assert found.returncode == 1
    assert "redis: healthy" in found.stdout
    assert "docker compose logs" in found.stdout


def test_verify_cannot_look_at_a_host_that_is_away(tmp_path: Path) -> None:
    """A host that nobody answers for is no failure of it: exit code 2, and where to look."""
    hosts: dict[str, dict[str, object]] = {"away": {"ssh_hostname": "127.0.0.1", "ssh_port": 1}}
    found = verify(inventory(tmp_path, hosts))
    assert found.returncode == 2
    assert "away cannot be reached" in found.stderr
    assert "ssh_hostname" in found.stderr
    assert not found.stdout


@pytest.mark.parametrize("user", ["root", "operator"])
def test_verify_cannot_look_at_a_host_without_a_gateway(
    lab_images: LabImages, progress: Progress, user: str
) -> None:
    """A host that was never deployed to is named, with the command that is missing."""
    with Workstation.start("bare", image=lab_images.bare, user=user, progress=progress) as bare:
        path = bare.access.inventory
        found = verify(path)
        bare.exec("rm /etc/sudoers.d/operator")
        shut_out = verify(path) if user == "operator" else None
    assert found.returncode == 2
    assert "is not provisioned" in found.stderr
    assert "pyinfra inventory deploy.py" in found.stderr
    if shut_out:
        assert shut_out.returncode == 2
        assert "may not use sudo without a password" in shut_out.stderr
