"""Redis: only with its password, and even then only what a cache needs."""

import pytest
from testinfra.host import Host

from gatehouse.settings import Settings

INSIDE = "docker exec gatehouse-redis-1"


def redis(host: Host, command: str, password: str = "$(cat /run/secrets/redis_password)") -> str:
    """Give what Redis answers to one command."""
    script = f'REDISCLI_AUTH="{password}" exec redis-cli --no-auth-warning {command} 2>&1'
    return str(host.run(f"{INSIDE} sh -c '{script}'").stdout).strip()


def test_password_is_needed(host: Host) -> None:
    """Without the password, and with another, nothing is answered."""
    assert "NOAUTH" in host.run(f"{INSIDE} redis-cli get key 2>&1").stdout
    assert "WRONGPASS" in redis(host, "get key", "not-the-password")


def test_password_opens(host: Host) -> None:
    """With the password Redis works as a cache."""
    assert redis(host, "ping") == "PONG"
    assert redis(host, "set gatehouse-verify yes ex 60") == "OK"
    assert redis(host, "get gatehouse-verify") == "yes"
    assert redis(host, "del gatehouse-verify") == "1"


@pytest.mark.parametrize(
    "command", ["config get dir", "shutdown nosave", "acl list", "keys *", "module list", "save"]
)
def test_dangerous_commands_are_refused(host: Host, command: str) -> None:
    """Who knows the password still cannot change the server or read its files."""
    assert "NOPERM" in redis(host, command)


def test_health_user_may_only_ping(host: Host) -> None:
    """The health check needs no secret because its user can do nothing else."""
    health = f"{INSIDE} redis-cli --user health --pass '' --no-auth-warning"
    assert host.run(f"{health} ping").stdout.strip() == "PONG"
    assert "NOPERM" in host.run(f"{health} get key 2>&1").stdout


def test_memory_is_bounded(host: Host, settings: Settings) -> None:
    """Redis forgets what was used least when its memory is full, and never takes more."""
    info = dict(
        line.split(":", 1) for line in redis(host, "info memory").splitlines() if ":" in line
    )
    assert int(info["maxmemory"]) == settings.redis_maxmemory_mib * 2**20
    assert info["maxmemory_policy"].strip() == "allkeys-lru"
