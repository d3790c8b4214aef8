"""`gatehouse status`: each check fails for its own reason, and what follows from it is hushed."""

import json
import shlex
from dataclasses import dataclass

import jsonschema
import pytest

from gatehouse.lab.common import ROOT
from gatehouse.lab.workstation import Workstation
from tests.lab.conftest import failing
from tests.lab.status import (
    PSQL,
    broken,
    session,
    short_idle,
    status,
    wait_until_right,
)

CURRENT = "/opt/gatehouse/current"
SECRETS = "/etc/gatehouse/secrets"
WRITABLE = "host: nothing is writable for everybody"
FILES = "host: files are as rendered"
UI_PASSWORD = f"{SECRETS}/ui_password"
# Values of 400 MiB: more than the cache holds.
FILL = r"""
python3 - <<'PY'
import socket
s = socket.create_connection(("127.0.0.1", 6379))
f = s.makefile("rb")
def ask(*words):
    s.sendall(("*%d\r\n" % len(words) + "".join("$%d\r\n%s\r\n" % (len(w), w) for w in words)).encode())
    line = f.readline()
    assert line[:1] in b"+:", line
ask("AUTH", open("/etc/gatehouse/secrets/redis_password").read().strip())
for number in range(400):
    ask("SETRANGE", "filler-%d" % number, "1048575", "x")
PY"""
EMPTY = (
    "docker exec gatehouse-redis-1 sh -c 'redis-cli -a $(cat /run/secrets/redis_password) "
    "--no-auth-warning flushall' && docker restart gatehouse-redis-1"
)


def run_sql(statement: str) -> str:
    """Give a shell command that runs SQL."""
    return f"printf %s {shlex.quote(statement)} | {PSQL}"


def another_release(service: str) -> tuple[str, str]:
    """Give how to make a release current by which a service runs with other inputs, and back."""
    edit = (
        "import json, sys; p = sys.argv[1]; d = json.load(open(p)); "
        f"d['services']['{service}']['inputs'] = '0'; json.dump(d, open(p, 'w'))"
    )
    make = (
        f"readlink {CURRENT} >/run/release && cp -a $(readlink {CURRENT}) "
        f"/opt/gatehouse/releases/other && python3 -c {shlex.quote(edit)} "
        f"/opt/gatehouse/releases/other/manifest.json && "
        f"ln -sfn /opt/gatehouse/releases/other {CURRENT}"
    )
    return make, f"ln -sfn $(cat /run/release) {CURRENT}; rm -rf /opt/gatehouse/releases/other"


def replaced(path: str, value: str) -> tuple[str, str]:
    """Give how to put something else in a secret's place, and back."""
    make = (
        f"mv {path} /root/kept && printf %s {value} >{path} && chmod 440 {path} && "
        f"chown root:gatehouse-secrets {path}"
    )
    return make, f"mv /root/kept {path}"


def edited(path: str, line: str) -> tuple[str, str]:
    """Give how to change a file where it stands, so that containers see it, and back."""
    return f"cp -a {path} /root/kept && {line}", f"cat /root/kept >{path}; rm /root/kept"


def seen_otherwise(service: str, name: str, change: str) -> tuple[str, str]:
    """Give how a container comes to see a file with a change of sed's, and back.

    The file is not edited on the host: a container may still have the one of an older release.
    """
    path = f"/etc/gatehouse/{name}"
    enter = f"pid=$(docker inspect -f '{{{{.State.Pid}}}}' gatehouse-{service}-1) && nsenter -m -p -t $pid"
    make = f"{enter} sh -c \"sed '{change}' {path} >/tmp/other && mount --bind /tmp/other {path}\""
    return make, f'{enter} sh -c "umount {path} && rm /tmp/other"'


@dataclass(frozen=True)
class Case:
    """How to break something, how to undo it, and the checks that fail by themselves then."""

    make: str
    undo: str
    names: set[str]
    # Some of those that follow.
    hushed: frozenset[str] = frozenset()
    # A service comes back after it.
    restarts: bool = False


REDIS_CONF = f"{CURRENT}/redis/redis.conf"
ROW = (
    'INSERT INTO "LiteLLM_SpendLogs" (request_id, call_type, "startTime", "endTime", messages) '
    "VALUES ('lab-row', 'x', {time}, {time}, '{text}')"
)
NO_ROW = run_sql("DELETE FROM \"LiteLLM_SpendLogs\" WHERE request_id = 'lab-row'")
NOW = "now() AT TIME ZONE 'UTC'"
CASES = {
    "redis stopped": Case(
        "docker stop gatehouse-redis-1",
        "docker start gatehouse-redis-1",
        {"redis: healthy"},
        frozenset(
            {
                "redis: answers",
                "redis: memory within its limit",
                "redis: refuses without its password",
                "network: redis listens on 127.0.0.1:6379 only",
            }
        ),
        restarts=True,
    ),
    "postgres stopped": Case(
        "docker stop gatehouse-postgres-1",
        "docker start gatehouse-postgres-1",
        {"postgres: healthy"},
        frozenset(
            {
                "postgres: answers",
                "litellm: no table is missing",
                "keys: all have limits",
                "network: postgres listens on 127.0.0.1:5434 only",
            }
        ),
        restarts=True,
    ),
    "litellm does not move": Case(
        "docker exec gatehouse-litellm-1 sh -c 'kill -STOP -1'",
        "docker exec gatehouse-litellm-1 sh -c 'kill -CONT -1'",
        {"litellm: alive"},
        frozenset({"litellm: answers through the self-test model", "litellm: lists its models"}),
        restarts=True,
    ),
    "container with another limit": Case(
        "docker update --pids-limit -1 gatehouse-redis-1",
        "docker update --pids-limit 64 gatehouse-redis-1",
        {"docker: containers are hardened"},
    ),
    "image replaced under its name": Case(
        "docker inspect -f '{{.Image}} {{.Config.Image}}' gatehouse-redis-1 >/run/image && "
        "docker tag $(docker inspect -f '{{.Image}}' gatehouse-postgres-1) "
        "$(cut -d ' ' -f 2 /run/image)",
        "docker tag $(cat /run/image)",
        {"docker: images are those that the containers run"},
    ),
    "container sees another file": Case(
        *seen_otherwise("redis", "redis.conf", "s/^maxmemory .*/maxmemory 1gb/"),
        {"docker: containers see the release's files"},
    ),
    **{
        f"{service} of another release": Case(
            *another_release(service), {f"{service}: of the current release"}
        )
        for service in ("postgres", "redis", "litellm")
    },
    "directory opened": Case(
        "chmod 755 /var/lib/gatehouse/state",
        "chmod 750 /var/lib/gatehouse/state",
        {"host: /var/lib/gatehouse/state"},
    ),
    "directory writable for everybody": Case(
        "chmod 777 /opt/gatehouse/releases",
        "chmod 755 /opt/gatehouse/releases",
        {WRITABLE},
        frozenset({"host: /opt/gatehouse/releases"}),
    ),
    "file with another owner": Case(
        "chown nobody /etc/gatehouse/firewall.sh",
        "chown root /etc/gatehouse/firewall.sh",
        {"host: modes of files are as rendered"},
    ),
    "file edited": Case(*edited(REDIS_CONF, f"echo '# x' >>{REDIS_CONF}"), {FILES}),
    "unit removed": Case(
        "mv /etc/systemd/system/gatehouse-collect.timer /root/kept",
        "mv /root/kept /etc/systemd/system/gatehouse-collect.timer",
        {FILES},
    ),
    "timer stopped": Case(
        "systemctl stop gatehouse-collect.timer",
        "systemctl start gatehouse-collect.timer",
        {"host: units run"},
    ),
    "job failed": Case(
        "systemctl stop gatehouse-inventory.timer; "
        "mkdir -p /run/systemd/system/gatehouse-inventory.service.d && "
        "printf '[Service]\nExecStart=\nExecStart=/bin/sh -c \"exit 3\"\n' "
        ">/run/systemd/system/gatehouse-inventory.service.d/lab.conf && systemctl daemon-reload; "
        "systemctl start gatehouse-inventory.timer; systemctl start gatehouse-inventory; true",
        "rm -r /run/systemd/system/gatehouse-inventory.service.d; systemctl daemon-reload; "
        "systemctl reset-failed gatehouse-inventory.service",
        {"host: jobs end well"},
    ),
    "half-made release": Case(
        "mkdir /opt/gatehouse/releases/x.new && "
        "touch -d '2 hours ago' /opt/gatehouse/releases/x.new",
        "rm -r /opt/gatehouse/releases/x.new",
        {"host: nothing half-made is left"},
    ),
    "rule of the firewall gone": Case(
        "iptables -t raw -D PREROUTING -j GATEHOUSE",
        "systemctl restart gatehouse-firewall",
        {"firewall: neighbours are kept out"},
    ),
    "stranger on a port": Case(
        "systemd-run --quiet --collect --unit stranger python3 -m http.server -b 127.0.0.9 6379 && "
        "for i in $(seq 100); do ss -Hltn 'src 127.0.0.9' | grep -q 6379 && break; sleep 0.1; done",
        "systemctl stop stranger",
        {"network: no port of ours is held by somebody else"},
        frozenset({"network: redis listens on 127.0.0.1:6379 only"}),
    ),
    "secret replaced on disk": Case(
        *replaced(UI_PASSWORD, "0" * 64), {"secrets: LiteLLM runs with those on disk"}
    ),
    "default password": Case(
        *replaced(UI_PASSWORD, "admin"),
        {"secrets: made, and no default"},
        frozenset({"secrets: LiteLLM runs with those on disk"}),
    ),
    "secret open": Case(
        f"chmod 444 {UI_PASSWORD}",
        f"chmod 440 {UI_PASSWORD}",
        {"secrets: readable for their readers only"},
    ),
    "secret written down": Case(
        f"cp {SECRETS}/salt_key /var/lib/gatehouse/notes",
        "rm /var/lib/gatehouse/notes",
        {"secrets: visible nowhere else"},
    ),
    "prompts would be kept": Case(
        *seen_otherwise("litellm", "config.yaml", "s/\\(store_prompts.*\\): false/\\1: true/"),
        {
            "docker: containers see the release's files",
            "privacy: the configuration that runs is as promised",
        },
    ),
    "prompt in the spend logs": Case(
        run_sql(ROW.format(time=NOW, text='{"a": "question"}')),
        NO_ROW,
        {"privacy: no prompt in the spend logs"},
    ),
    "old spend log": Case(
        run_sql(ROW.format(time=f"{NOW} - interval '100 days'", text="{}")),
        NO_ROW,
        {"postgres: old spend logs are removed"},
    ),
    "failed migration": Case(
        run_sql(
            "INSERT INTO _prisma_migrations (id, checksum, migration_name) "
            "VALUES ('lab', 'x', 'lab_migration')"
        ),
        run_sql("DELETE FROM _prisma_migrations WHERE id = 'lab'"),
        {"litellm: migrations complete"},
    ),
    "table missing": Case(
        run_sql('ALTER TABLE "LiteLLM_SkillsTable" RENAME TO kept'),
        run_sql('ALTER TABLE kept RENAME TO "LiteLLM_SkillsTable"'),
        {"litellm: no table is missing"},
    ),
    "admin missing": Case(
        run_sql("UPDATE \"LiteLLM_UserTable\" SET user_id = 'kept' WHERE user_id = 'default_user_id'"),
        run_sql("DELETE FROM \"LiteLLM_UserTable\" WHERE user_id = 'default_user_id'; "
                "UPDATE \"LiteLLM_UserTable\" SET user_id = 'default_user_id' WHERE user_id = 'kept'"),
        {"litellm: the admin user is there"},
    ),
    "cache overflows": Case(FILL, EMPTY, {"redis: large enough"}, restarts=True),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_check_fails_for_its_own_reason(workstation: Workstation, name: str) -> None:
    """What is broken is named, and nothing else; what follows from it is hushed."""
    case = CASES[name]
    with broken(workstation, case.make, case.undo):
        seen = status(workstation)
    if case.restarts:
        wait_until_right(workstation)
    assert seen.wrong == case.names
    assert seen.named("hushed") >= case.hushed
    for line in seen.document["checks"]:
        if line["state"] == "hushed":
            assert set(line["because"]) <= case.names
    assert seen.code == (1 if seen.named("failure") else 0)


def test_forgotten_session_is_noticed(workstation: Workstation) -> None:
    """Who idles too long is counted; the proxy's own pool is not."""
    with short_idle(workstation), session(workstation, "SELECT 1;"):
        assert status(workstation).wrong == {"postgres: no forgotten connections"}


def test_session_with_a_lock_is_noticed(workstation: Workstation) -> None:
    """Who sits on an advisory lock would let migrations wait; that it idles follows."""
    with short_idle(workstation), session(workstation, "SELECT pg_advisory_lock(72707369);"):
        seen = status(workstation)
    assert seen.wrong == {"postgres: nobody sits on the migration lock"}
    assert "postgres: no forgotten connections" in seen.named("hushed")


def test_little_disk_is_a_warning(workstation: Workstation) -> None:
    """A host with less room than a deploy wants is told so, and nothing else is wrong."""
    (found,) = failing(workstation, host_disk_min_gib=1000)
    assert found.startswith("host: the disk has room: ")


def test_everything_holds_again(workstation: Workstation) -> None:
    """After all that, nothing is wrong: every undoing above was one."""
    seen = status(workstation)
    assert (seen.code, seen.wrong, seen.named("hushed")) == (0, set(), set())
    assert len(seen.named("ok")) == seen.document["summary"]["ok"] > 60


def test_component_is_shown_alone(workstation: Workstation) -> None:
    """Only its checks are shown, but what they need is looked at too."""
    with broken(workstation, "docker stop gatehouse-redis-1", "docker start gatehouse-redis-1"):
        seen = status(workstation, "--component", "network")
    wait_until_right(workstation)
    assert {line["component"] for line in seen.document["checks"]} == {"network"}
    (line,) = (each for each in seen.document["checks"] if each["state"] == "hushed")
    assert line["because"] == ["redis: healthy"]
    assert sum(seen.document["summary"].values()) == len(seen.document["checks"])


def test_document_is_as_its_schema_says(workstation: Workstation) -> None:
    """Programs can rely on it; what is recorded is the same document."""
    schema = json.loads((ROOT / "docs/schemas/status.json").read_text())
    seen = status(workstation, "--record")
    jsonschema.validate(seen.document, schema)
    kept = json.loads(workstation.exec("cat /var/lib/gatehouse/state/status.json").stdout)
    assert kept.pop("written") >= seen.document["checked"]
    assert kept == seen.document
    mode = workstation.exec("stat -c '%a %G' /var/lib/gatehouse/state/status.json").stdout.split()
    assert mode == ["640", "gatehouse"]


def test_reader_sees_what_was_recorded(workstation: Workstation) -> None:
    """A member of the group gets the last result with its age, and is told how to look now."""
    workstation.exec("gatehouse status --record")
    reader = ["runuser", "-u", "operator", "-g", "gatehouse", "--", "gatehouse", "status"]
    shown = workstation.exec(reader)
    assert "checks" in shown.stdout
    assert "ago" in shown.stdout
    assert "sudo gatehouse status" in shown.stdout
    assert json.loads(workstation.exec([*reader, "--json"]).stdout)["summary"]["failures"] == 0


def test_nothing_was_recorded_yet(workstation: Workstation) -> None:
    """Then a reader is told who can look."""
    path = "/var/lib/gatehouse/state/status.json"
    reader = ["runuser", "-u", "operator", "-g", "gatehouse", "--", "gatehouse", "status"]
    workstation.exec("gatehouse status --record")
    with broken(workstation, f"mv {path} /root/kept", f"mv /root/kept {path}"):
        done = workstation.exec(reader, check=False)
    assert done.returncode == 2
    assert "nothing was recorded yet" in done.stderr


@pytest.mark.parametrize(
    ("command", "words"),
    [
        ("runuser -u nobody -- gatehouse status", "join the group"),
        ("runuser -u operator -g gatehouse -- gatehouse status --record", "sudo gatehouse status"),
        ("gatehouse status --component redsi", "there are backup, docker,"),
        ("gatehouse status --component redis --record", "leave --component away"),
        ("gatehouse status --nonsense", "No such option"),
        (
            "mv /etc/gatehouse/settings.json /root/kept; gatehouse status; code=$?; "
            "mv /root/kept /etc/gatehouse/settings.json; exit $code",
            "this host is no gateway yet",
        ),
        (
            "cp -a /etc/gatehouse/settings.json /root/kept; echo '{' >/etc/gatehouse/settings.json; "
            "gatehouse status; code=$?; mv /root/kept /etc/gatehouse/settings.json; exit $code",
            "deploy again",
        ),
    ],
)
def test_status_that_cannot_look_says_what_to_do(
    workstation: Workstation, command: str, words: str
) -> None:
    """Bad input and missing rights are exit code 2, in words, without a traceback."""
    done = workstation.exec(command, check=False)
    assert done.returncode == 2
    assert words in done.stderr
    assert "Traceback" not in done.stderr


def test_table_names_what_is_wrong(workstation: Workstation) -> None:
    """A person sees the check, what was found, and the command that says more; no colours."""
    with broken(
        workstation,
        "systemctl stop gatehouse-collect.timer",
        "systemctl start gatehouse-collect.timer",
    ):
        done = workstation.exec("gatehouse status", check=False)
    assert done.returncode == 1
    assert "gatehouse-collect.timer is inactive" in done.stdout
    assert "because of host: units run" in done.stdout
    assert "sudo gatehouse doctor" in done.stdout
    assert "\x1b" not in done.stdout
