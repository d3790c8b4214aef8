"""Redis: room for its data, and a start without its password in sight."""

import hashlib
import subprocess
from pathlib import Path

import pytest

from gatehouse.checks.redis import checks
from gatehouse.render.template import plain
from tests.given import problems, rendered, settings
from tests.probes import printed


@pytest.mark.parametrize(("data", "limit", "fits"), [(288, 384, True), (289, 384, False)])
def test_data_leave_room_in_the_container(data: int, limit: int, *, fits: bool) -> None:
    """At most three quarters of the container's memory are data."""
    found = problems(redis_maxmemory_mib=data, redis_memory_mib=limit)
    assert list(found) == ([] if fits else ["redis_maxmemory_mib"])


def test_configuration_evicts_and_does_not_log_each_write() -> None:
    """A cache forgets the oldest, and is written to disk now and then."""
    lines = rendered(redis_maxmemory_mib=128).release["redis/redis.conf"].content.splitlines()
    assert "maxmemory 128mb" in lines
    assert "maxmemory-policy allkeys-lru" in lines
    assert "appendonly no" in lines


def start(place: Path) -> subprocess.CompletedProcess[str]:
    """Run start.sh with its secret and its users' file in `place`, and `echo` as the server."""
    script = plain("redis/start.sh").replace("/run/secrets", str(place))
    script = script.replace("/tmp/users.acl", str(place / "users.acl"))  # noqa: S108 - moved
    return subprocess.run(
        ["sh", "-c", script, "start.sh", "echo", "redis-server", "/etc/gatehouse/redis.conf"],
        capture_output=True,
        text=True,
        check=False,
    )


def test_start_writes_the_hash_of_the_password_only(tmp_path: Path) -> None:
    """The users' file holds the password's hash; the server is started with what it was given."""
    (tmp_path / "redis_password").write_text("not-shown")
    assert start(tmp_path).stdout == "redis-server /etc/gatehouse/redis.conf\n"
    written = tmp_path / "users.acl"
    users = {line.split()[1]: line.split()[2:] for line in written.read_text().splitlines()}
    assert users["default"][1] == f"#{hashlib.sha256(b'not-shown').hexdigest()}"
    assert users["health"] == ["on", "nopass", "resetchannels", "-@all", "+ping"]
    assert written.stat().st_mode & 0o077 == 0


@pytest.mark.parametrize("password", [None, "", "\n"], ids=["missing", "empty", "line break"])
def test_start_fails_without_its_password(tmp_path: Path, password: str | None) -> None:
    """No password, no server: it never starts open."""
    if password is not None:
        (tmp_path / "redis_password").write_text(password)
    done = start(tmp_path)
    assert done.returncode != 0
    assert not done.stdout


def test_check_wants_a_refusal() -> None:
    """The cache is right when it answers nobody without a password."""
    found = {check.name: check for check in checks(settings())}
    judge = found["redis: refuses without its password"].judge
    assert judge(0, printed({"anonymous": "-NOAUTH Authentication required."})).holds
    assert not judge(0, printed({"anonymous": ""})).holds
