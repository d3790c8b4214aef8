"""Redis."""

from gatehouse.checks.check import Check, Result
from gatehouse.checks.docker import current
from gatehouse.checks.probe import of, probe
from gatehouse.checks.service import healthy
from gatehouse.settings import Settings

_AGAIN = "deploy again: pyinfra inventory deploy.py"
_SLOW_MILLISECONDS = 50.0
# Fewer evictions than this since Redis started are no pattern.
_FEW = 100
_MIB = 2**20
Info = dict[str, str]


def checks(settings: Settings) -> list[Check]:
    """Give the checks of the cache."""
    address = settings.network_bind_address
    host = "127.0.0.1" if address.is_unspecified else str(address)
    command = probe("cache", host, str(settings.redis_port))
    limit = settings.redis_maxmemory_mib

    def memory(info: Info) -> Result:
        used, most = int(info["used_memory"]) // _MIB, int(info["maxmemory"]) // _MIB
        # The limit is on data; buffers of clients come on top.
        return Result(most == limit and used <= most * 1.25, f"{used} of {most} MiB")

    def evictions(info: Info) -> Result:
        evicted, expired = int(info["evicted_keys"]), int(info["expired_keys"])
        few = evicted < max(_FEW, expired)
        return Result(few, f"{evicted} keys evicted, {expired} expired since Redis started")

    return [
        healthy("redis"),
        current("redis"),
        Check(
            name="redis: answers",
            component="redis",
            expected="it takes its password",
            command=command,
            judge=of("login", lambda seen: Result(seen == "+OK", seen.lstrip("+-"))),
            fix="docker restart gatehouse-redis-1 (it reads the password when it starts)",
            needs=("redis: healthy",),
        ),
        Check(
            name="redis: answers quickly",
            component="redis",
            expected=f"a ping in {_SLOW_MILLISECONDS:.0f} ms",
            command=command,
            judge=of(
                "milliseconds", lambda took: Result(took <= _SLOW_MILLISECONDS, f"{took:.1f} ms")
            ),
            fix="look for what loads the host (uptime, iostat), or raise redis_cpus",
            severity="warning",
            needs=("redis: answers",),
        ),
        Check(
            name="redis: memory within its limit",
            component="redis",
            expected=f"at most {limit} MiB, as set",
            command=command,
            judge=of("info", memory),
            fix=_AGAIN,
            needs=("redis: answers",),
        ),
        Check(
            name="redis: large enough",
            component="redis",
            expected="answers leave the cache because they are old, not for lack of room",
            command=command,
            judge=of("info", evictions),
            fix="raise redis_maxmemory_mib and redis_memory_mib, and deploy again",
            severity="warning",
            needs=("redis: answers",),
        ),
        Check(
            name="redis: refuses without its password",
            component="redis",
            expected="NOAUTH",
            command=command,
            judge=of("anonymous", lambda seen: Result("NOAUTH" in seen, seen)),
            fix=_AGAIN,
            needs=("redis: healthy",),
        ),
    ]
