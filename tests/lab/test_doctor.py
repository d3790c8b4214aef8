"""`gatehouse doctor`: it names the cause, and what is safe to mend it mends, asked and recorded."""

import json
from dataclasses import dataclass

import jsonschema
import pytest

from gatehouse.lab.common import ROOT
from gatehouse.lab.workstation import Workstation
from tests.lab.status import (
    broken,
    doctor,
    session,
    short_idle,
    sql,
    status,
    wait_until_right,
)
from tests.lab.test_status import run_sql

AUDIT = "/var/lib/gatehouse/audit.jsonl"
MODES = (
    "chmod 777 /opt/gatehouse/releases; chmod 755 /etc/gatehouse/secrets; "
    "chown nobody /etc/gatehouse/firewall.sh; chmod 444 /etc/gatehouse/secrets/ui_password"
)
MODES_AGAIN = (
    "chmod 755 /opt/gatehouse/releases; chmod 700 /etc/gatehouse/secrets; "
    "chown root /etc/gatehouse/firewall.sh; chmod 440 /etc/gatehouse/secrets/ui_password"
)
SKILLS = "LiteLLM_SkillsTable"
# What Postgres logs of each session that was ended from outside.
ENDED = (
    "docker logs gatehouse-postgres-1 2>&1 "
    "| grep -c 'terminating connection due to administrator command' || true"
)


@dataclass(frozen=True)
class Case:
    """How to break something, how to undo it if the doctor did not, and what fails."""

    make: str
    undo: str
    names: set[str]


CASES = {
    "service stopped": Case(
        "docker stop gatehouse-redis-1", "docker start gatehouse-redis-1", {"redis: healthy"}
    ),
    "modes": Case(
        MODES,
        MODES_AGAIN,
        {
            "host: nothing is writable for everybody",
        },
    ),
    "directory": Case(
        "chmod 755 /var/lib/gatehouse/engines",
        "chmod 750 /var/lib/gatehouse/engines",
        {"host: /var/lib/gatehouse/engines"},
    ),
    "timer": Case(
        "systemctl disable --quiet --now gatehouse-collect.timer",
        "systemctl enable --quiet --now gatehouse-collect.timer",
        {"host: units run"},
    ),
    "rules": Case(
        "iptables -t raw -D PREROUTING -j GATEHOUSE",
        "systemctl restart gatehouse-firewall",
        {"firewall: neighbours are kept out"},
    ),
    "leftovers": Case(
        "mkdir /opt/gatehouse/venvs/x.new && touch -d '2 hours ago' /opt/gatehouse/venvs/x.new",
        "rm -rf /opt/gatehouse/venvs/x.new",
        {"host: nothing half-made is left"},
    ),
    "admin": Case(
        run_sql("DELETE FROM \"LiteLLM_UserTable\" WHERE user_id = 'default_user_id'"),
        "true",
        {"litellm: the admin user is there"},
    ),
}


def actions(workstation: Workstation) -> list[dict[str, object]]:
    """Give what the audit log says of the doctor."""
    text = workstation.exec(f"cat {AUDIT} 2>/dev/null", check=False).stdout
    entries = [json.loads(line) for line in text.splitlines()]
    return [entry for entry in entries if entry["action"] == "doctor --fix"]


def mended(workstation: Workstation, names: set[str]) -> None:
    """Have it mended, and see that it is, and that it is in the audit log once."""
    before = len(actions(workstation))
    code, found = doctor(workstation, "--fix", "--yes")
    assert {each["check"] for each in found["repairs"]} == {", ".join(sorted(names))}
    assert [each["outcome"] for each in found["repairs"]] == ["done"], found["repairs"]
    wrong = [
        line["name"] for line in found["after"]["checks"] if line["state"] not in {"ok", "hushed"}
    ]
    assert (code, wrong) == (0, [])
    (entry,) = actions(workstation)[before:]
    assert (entry["result"], entry["checks"]) == ("ok", sorted(names))


@pytest.mark.parametrize("name", CASES)
def test_doctor_mends(workstation: Workstation, name: str) -> None:
    """Each repair puts right what it is for; everything holds afterwards."""
    case = CASES[name]
    with broken(workstation, case.make, case.undo):
        mended(workstation, case.names)
        assert status(workstation).wrong == set()
    wait_until_right(workstation)


@pytest.mark.parametrize(
    ("statement", "name"),
    [
        ("SELECT 1;", "postgres: no forgotten connections"),
        ("SELECT pg_advisory_lock(72707369);", "postgres: nobody sits on the migration lock"),
    ],
)
def test_doctor_ends_forgotten_sessions(
    workstation: Workstation, statement: str, name: str
) -> None:
    """A session that idles, or sits on the lock of migrations, is ended; the proxy's pool is not."""
    with short_idle(workstation), session(workstation, statement):
        before = int(workstation.exec(ENDED).stdout)
        mended(workstation, {name})
        assert int(workstation.exec(ENDED).stdout) == before + 1


def test_doctor_runs_missing_migrations(workstation: Workstation) -> None:
    """A table that an upgrade left out is made by the migration that was not run."""
    migrations = "/app/.venv/lib/python3*/site-packages/litellm_proxy_extras/migrations"
    name = workstation.exec(
        f"docker exec gatehouse-litellm-1 sh -c "
        f"'grep -l \"CREATE TABLE .*{SKILLS}\" {migrations}/*/migration.sql'"
    ).stdout.split("/")[-2]
    columns = (
        "SELECT string_agg(column_name, ' ' ORDER BY column_name) FROM information_schema.columns "
        f"WHERE table_name = '{SKILLS}'"
    )
    before = sql(workstation, columns)
    later = workstation.exec(
        f"docker exec gatehouse-litellm-1 sh -c 'grep -l {SKILLS} {migrations}/*/migration.sql'"
    ).stdout.split()
    names = ", ".join(f"'{path.split('/')[-2]}'" for path in later)
    sql(workstation, f'DROP TABLE "{SKILLS}"')
    sql(workstation, f"DELETE FROM _prisma_migrations WHERE migration_name IN ({names})")
    assert name in names
    seen = status(workstation)
    assert seen.wrong == {"litellm: migrations complete"}
    assert "litellm: no table is missing" in seen.named("hushed")
    mended(workstation, {"litellm: migrations complete"})
    assert sql(workstation, columns) == before


def test_doctor_explains_and_changes_nothing(workstation: Workstation) -> None:
    """Without --fix it says what is the cause, what follows, and what to do; nothing is touched."""
    before = len(actions(workstation))
    with broken(workstation, "docker stop gatehouse-redis-1", "docker start gatehouse-redis-1"):
        done = workstation.exec("gatehouse doctor", check=False)
        state = workstation.exec("docker inspect -f '{{.State.Status}}' gatehouse-redis-1").stdout
    wait_until_right(workstation)
    assert done.returncode == 1
    assert state.strip() == "exited"
    assert len(actions(workstation)) == before
    words = " ".join(done.stdout.split())
    assert words.startswith("failure redis: healthy expected running healthy found exited")
    assert "fix cd /opt/gatehouse/current && docker compose logs --tail 50 redis" in words
    assert "so fail" in words
    assert words.count("failure ") == 1


def test_doctor_says_that_nothing_is_wrong(workstation: Workstation) -> None:
    """A right host is told so, the login to the web interface included."""
    code, found = doctor(workstation)
    assert (code, found["repairs"], found["after"]) == (0, [], None)
    names = {line["name"]: line["state"] for line in found["before"]["checks"]}
    assert names["litellm: lets the admin in"] == "ok"
    left = "SELECT count(*) FROM \"LiteLLM_VerificationToken\" WHERE team_id = 'litellm-dashboard'"
    assert sql(workstation, left) == "0"
    jsonschema.validate(found, json.loads((ROOT / "docs/schemas/doctor.json").read_text()))
    assert "nothing is wrong" in workstation.exec("gatehouse doctor --fix --yes").stdout


def test_repair_that_fails_is_told_and_recorded(workstation: Workstation) -> None:
    """What could not be mended stays a failure, in the document and in the audit log."""
    program = "/etc/gatehouse/firewall.sh"
    with broken(
        workstation,
        f"cp -a {program} /root/kept && echo exit 1 >{program} && "
        "iptables -t raw -D PREROUTING -j GATEHOUSE",
        f"cat /root/kept >{program}; systemctl restart gatehouse-firewall",
    ):
        before = len(actions(workstation))
        code, found = doctor(workstation, "--fix", "--yes")
        (entry,) = actions(workstation)[before:]
    assert code == 1
    assert [each["outcome"] for each in found["repairs"]] == ["failed"]
    assert entry["result"] == "failed"
    wait_until_right(workstation)


@pytest.mark.parametrize(
    ("command", "words"),
    [
        ("runuser -u operator -- gatehouse doctor", "sudo gatehouse doctor"),
        ("gatehouse doctor --yes", "--yes is for --fix"),
        ("gatehouse doctor --nonsense", "No such option"),
        ("gatehouse doctor --fix </dev/null", "say --yes"),
    ],
)
def test_doctor_that_may_not_says_why(workstation: Workstation, command: str, words: str) -> None:
    """Missing rights, bad input, and nobody who could be asked: exit code 2, nothing changed."""
    before = len(actions(workstation))
    with broken(
        workstation,
        "systemctl stop gatehouse-collect.timer",
        "systemctl start gatehouse-collect.timer",
    ):
        done = workstation.exec(command, check=False)
        state = workstation.exec("systemctl is-active gatehouse-collect.timer", check=False).stdout
    assert (done.returncode, state.strip()) == (2, "inactive")
    assert words in done.stderr
    assert "Traceback" not in done.stderr
    assert len(actions(workstation)) == before
