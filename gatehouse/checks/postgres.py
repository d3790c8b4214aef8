"""Postgres."""

from typing import Any

from gatehouse.checks.check import Check, Result
from gatehouse.checks.docker import current
from gatehouse.checks.probe import of, probe
from gatehouse.checks.service import healthy
from gatehouse.settings import Settings

ANSWERS = "postgres: answers"
LOCK = "postgres: nobody sits on the migration lock"
_MIB = 2**20
_FULL = 0.8
_DAYS_FOR_EVER = 365
# The cleaning job runs once a day, and not while the proxy is down.
_LATE_DAYS = 3
Answer = dict[str, Any]


def database(settings: Settings) -> str:
    """Give the command that asks Postgres everything."""
    return probe("database", str(settings.postgres_idle_seconds))


def _end(settings: Settings, which: str) -> str:
    """End the sessions that the condition is true of."""
    idle = f"state_change < now() - make_interval(secs => {settings.postgres_idle_seconds})"
    return (
        "docker exec -i gatehouse-postgres-1 sh -c "
        "'PGPASSWORD=$(cat /run/secrets/postgres_password) exec psql -h 127.0.0.1 "
        "-U litellm -d litellm -AtXq -v ON_ERROR_STOP=1 "
        '-v proxy="$(getent hosts litellm | cut -d " " -f 1)" -f -\' >/dev/null <<SQL\n'
        f"SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE {idle} AND {which};\n"
        "SQL"
    )


def checks(settings: Settings) -> list[Check]:
    """Give the checks of the database."""
    command = database(settings)
    most, size = settings.postgres_connections, settings.postgres_size_warn_mib
    seconds, days = settings.postgres_idle_seconds, settings.litellm_spend_log_days

    def limit(server: Answer) -> Result:
        return Result(server["limit"] == most, str(server["limit"]))

    def used(server: Answer) -> Result:
        return Result(server["connections"] <= most * _FULL, f"{server['connections']} of {most}")

    def idle(server: Answer) -> Result:
        return Result(
            not server["idle"],
            f"{server['idle']} forgotten ones, {server['pooled']} of the proxy's pool",
        )

    def pool(server: Answer) -> Result:
        mine = server["pooled"]
        return Result(mine <= settings.litellm_pool_connections, f"{mine} connections")

    def lock(server: Answer) -> Result:
        return Result(not server["locks"], f"{server['locks']} sessions")

    def small(server: Answer) -> Result:
        found = server["bytes"] // _MIB
        return Result(found <= size, f"{found} MiB")

    def growth(spend: Answer) -> Result:
        row = spend["bytes"] / max(spend["rows"], spend["day"], 1)
        later = row * spend["day"] * (days or _DAYS_FOR_EVER) / _MIB
        words = (
            f"{spend['bytes'] / _MIB:.0f} MiB, {spend['day']} rows in a day, {later:.0f} MiB then"
        )
        # A small table says little of how large a row is.
        return Result(later <= size or spend["bytes"] < size * _MIB / 100, words)

    def kept(spend: Answer) -> Result:
        oldest = spend["oldest_days"] or 0
        return Result(oldest <= (days or oldest) + _LATE_DAYS, f"{oldest:.0f} days old")

    found = [
        healthy("postgres"),
        current("postgres"),
        Check(
            name=ANSWERS,
            component="postgres",
            expected="an answer to a question",
            command=command,
            judge=of("server", lambda server: Result(bool(server), "an answer")),
            fix="cd /opt/gatehouse/current && docker compose logs --tail 50 postgres",
            needs=("postgres: healthy",),
        ),
        Check(
            name="postgres: takes as many connections as set",
            component="postgres",
            expected=str(most),
            command=command,
            judge=of("server", limit),
            fix="deploy again: pyinfra inventory deploy.py",
            needs=(ANSWERS,),
        ),
        Check(
            name="postgres: connections are left",
            component="postgres",
            expected=f"at most {most * _FULL:.0f} of {most} in use",
            command=command,
            judge=of("server", used),
            fix="raise postgres_connections, or lower litellm_pool_connections, and deploy again",
            severity="warning",
            needs=(ANSWERS,),
        ),
        Check(
            name=LOCK,
            component="postgres",
            expected=f"no session that idles for {seconds} s holds an advisory lock",
            command=command,
            judge=of("server", lock),
            fix="sudo gatehouse doctor --fix ends these sessions",
            needs=(ANSWERS,),
            repair=_end(
                settings,
                "state LIKE 'idle%' AND pid IN "
                "(SELECT pid FROM pg_locks WHERE locktype = 'advisory' AND granted)",
            ),
        ),
        Check(
            name="postgres: no forgotten connections",
            component="postgres",
            expected=f"nobody but the proxy's pool idles for {seconds} s",
            command=command,
            judge=of("server", idle),
            fix="sudo gatehouse doctor --fix ends these sessions",
            severity="warning",
            needs=(ANSWERS, LOCK),
            repair=_end(
                settings,
                "(state LIKE 'idle in%' OR state = 'idle' "
                "AND host(client_addr) IS DISTINCT FROM NULLIF(:'proxy', ''))",
            ),
        ),
        Check(
            name="postgres: the proxy keeps to its pool",
            component="postgres",
            expected=f"at most {settings.litellm_pool_connections} connections",
            command=command,
            judge=of("server", pool),
            fix="cd /opt/gatehouse/current && docker compose restart litellm",
            severity="warning",
            needs=(ANSWERS,),
        ),
        Check(
            name="postgres: small enough",
            component="postgres",
            expected=f"at most {size} MiB",
            command=command,
            judge=of("server", small),
            fix="lower litellm_spend_log_days, or raise postgres_size_warn_mib, and deploy again",
            severity="warning",
            needs=(ANSWERS,),
        ),
        Check(
            name="postgres: spend logs stay small enough",
            component="postgres",
            expected=f"at most {size} MiB after {days or _DAYS_FOR_EVER} days like the last",
            command=command,
            judge=of("spend", growth),
            fix="lower litellm_spend_log_days, or raise postgres_size_warn_mib, and deploy again",
            severity="warning",
            needs=(ANSWERS, "litellm: no table is missing"),
        ),
    ]
    if days:
        found.append(
            Check(
                name="postgres: old spend logs are removed",
                component="postgres",
                expected=f"none older than {days + _LATE_DAYS} days",
                command=command,
                judge=of("spend", kept),
                fix="cd /opt/gatehouse/current && docker compose logs litellm | grep -i cleanup",
                severity="warning",
                needs=(ANSWERS, "litellm: no table is missing"),
            )
        )
    return found
