"""`gatehouse status` and `gatehouse doctor` on a workstation, and ways to break it."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from gatehouse.lab.workstation import Workstation
from tests.waiting import wait_for

SECONDS = 120
PSQL = (
    "docker exec -i gatehouse-postgres-1 sh -c 'PGPASSWORD=$(cat /run/secrets/postgres_password) "
    "exec psql -h 127.0.0.1 -U litellm -d litellm -AtXq -v ON_ERROR_STOP=1'"
)


@dataclass(frozen=True)
class Seen:
    """What a command said: its exit code, and its document."""

    code: int
    document: dict[str, Any]

    @property
    def wrong(self) -> set[str]:
        """The checks that do not hold by themselves."""
        return self.named("failure") | self.named("warning")

    def named(self, state: str) -> set[str]:
        """Give the names of the checks in a state."""
        return {line["name"] for line in self.document["checks"] if line["state"] == state}


def status(workstation: Workstation, *arguments: str) -> Seen:
    """Run `gatehouse status --json` as root."""
    done = workstation.exec(["gatehouse", "status", "--json", *arguments], check=False)
    assert done.stdout, done.stderr
    return Seen(done.returncode, json.loads(done.stdout))


def doctor(workstation: Workstation, *arguments: str) -> tuple[int, dict[str, Any]]:
    """Run `gatehouse doctor --json` as root; give its exit code and its document."""
    done = workstation.exec(["gatehouse", "doctor", "--json", *arguments], check=False)
    assert done.stdout, done.stderr
    return done.returncode, json.loads(done.stdout)


def sql(workstation: Workstation, statement: str) -> str:
    """Run SQL in the gateway's database."""
    return workstation.exec(PSQL, text=statement).stdout.strip()


@contextmanager
def broken(workstation: Workstation, make: str, undo: str) -> Iterator[None]:
    """Break something, and undo it whatever happens."""
    try:
        workstation.exec(make)
        yield
    finally:
        workstation.exec(undo)


def wait_until_right(workstation: Workstation) -> None:
    """Wait until every check holds: some services take a moment to come back."""
    wait_for(
        lambda: status(workstation).wrong == set(),
        SECONDS,
        f"no check to fail: {sorted(status(workstation).wrong)}",
    )


@contextmanager
def session(workstation: Workstation, statement: str) -> Iterator[None]:
    """Keep a session of psql open that ran a statement and then idles."""
    name = f"session-{abs(hash(statement))}"
    run = f"(echo {json.dumps(statement)}; exec sleep 600) | {PSQL}"
    workstation.exec(["systemd-run", "--quiet", "--collect", "--unit", name, "bash", "-c", run])
    try:
        wait_for(
            lambda: (
                sql(
                    workstation,
                    "SELECT count(*) FROM pg_stat_activity WHERE state LIKE 'idle%' "
                    "AND application_name = 'psql' AND state_change < now() - interval '1 second'",
                )
                == "1"
            ),
            SECONDS,
            "the session to idle",
        )
        yield
    finally:
        workstation.exec(["systemctl", "stop", name], check=False)


@contextmanager
def short_idle(workstation: Workstation) -> Iterator[None]:
    """Let a session count as forgotten after a second."""
    path = "/etc/gatehouse/settings.json"
    change = f"""sed -i.kept 's/"postgres_idle_seconds": .*,/"postgres_idle_seconds": 1,/' {path}"""
    keep = f"chown root:gatehouse {path}; chmod 640 {path}"
    with broken(workstation, f"{change}; {keep}", f"mv {path}.kept {path}; {keep}"):
        yield
