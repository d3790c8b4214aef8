"""Keys on the real gateway: made, limited, rotated, ended, revoked, declared."""

import json
from collections.abc import Iterator

import pytest

from gatehouse.checks import keys as checks
from gatehouse.lab.workstation import Workstation
from tests.deploying import deploy
from tests.gateway import Gateway
from tests.lab.conftest import failing, wanted
from tests.lab.keys import PYTHON, SELFTEST, ask, cut_short, document, keys, refused
from tests.waiting import wait_for

ALIAS = "lab-ci"
FILE = f"/root/{ALIAS}.key"
OLD = f"/root/{ALIAS}.old"
# For how long a worker believes what it knows of a key, and time for a busy machine.
AGREE_SECONDS = 30
PRICED = "chat-priced-builtin"
TEAM = {"name": "lab-team", "budget": 100.0, "budget_period": "30d", "rpm": 500}
# The settings are among what a release placed, and what it would go back to.
DECLARING = [
    "Host | Write the settings",
    "Keys | Keep what is declared",
    "Health | Remember the release as good",
]
DECLARED = {
    "keys_teams": [TEAM],
    "keys_users": [{"name": "lab-ada", "teams": ["lab-team"], "email": "ada@example.com"}],
    "keys_declared": [{"alias": "lab-bot", "team": "lab-team", "user": "lab-ada", "rotate": True}],
}
BOT = "/etc/gatehouse/keys/lab-bot"


@pytest.fixture
def made(workstation: Workstation) -> Iterator[str]:
    """Make a key whose value is in FILE; it and what becomes of it are removed in the end."""
    keys(workstation, "new", ALIAS, "--to", FILE)
    yield ALIAS
    keys(workstation, "revoke", ALIAS, "--yes")
    workstation.exec(f"rm -f {FILE} {OLD} /etc/gatehouse/keys/{ALIAS}")


def listed(workstation: Workstation) -> dict[str, dict[str, object]]:
    """Give the keys by alias."""
    found = document(keys(workstation, "list", "--json").stdout, "keys-list")
    return {key["alias"]: key for key in found["keys"]}


def wrong(workstation: Workstation) -> list[str]:
    """Give the checks of keys that do not hold, and what they found."""
    found = checks.checks(wanted(workstation))
    done = workstation.exec(["sh", "-c", found[0].command], check=False)
    results = {check.name: check.judge(done.returncode, done.stdout) for check in found}
    return [f"{name}: {result.found}" for name, result in results.items() if not result.holds]


def token(workstation: Workstation, alias: str) -> str:
    """Give the hash of a key."""
    query = f"SELECT token FROM \"LiteLLM_VerificationToken\" WHERE key_alias = '{alias}'"
    words = ["docker", "exec", "gatehouse-postgres-1", "psql", "-U", "litellm", "-d", "litellm"]
    return workstation.exec([*words, "-Atc", query]).stdout.strip()


def test_key_works_with_its_limits(workstation: Workstation) -> None:
    """A key answers the models it was made for, as often as it may, until it is revoked."""
    words = ["--models", SELFTEST, "--rpm", "2", "--tpm", "9000", "--days", "3", "--to", FILE]
    done = keys(workstation, "new", "lab-limited", *words)
    try:
        assert "sk-" not in done.stdout + done.stderr
        assert workstation.exec(f"stat -c '%a %U' {FILE}").stdout.split() == ["600", "root"]
        seen = ask(workstation, FILE, SELFTEST, times=5)
        assert seen[0] == "200"
        assert seen.count("429") >= 2
        assert set(ask(workstation, FILE, "embed-selftest-builtin")) <= {"401", "403"}
        row = listed(workstation)["lab-limited"]
        assert (row["rpm"], row["tpm"], row["models"]) == (2, 9000, [SELFTEST])
    finally:
        workstation.exec(["gatehouse", "keys", "revoke", "lab-limited", "--yes"])
    assert refused(workstation, FILE, AGREE_SECONDS)
    workstation.exec(f"rm {FILE}")


def test_rotated_key_works_and_the_old_one_ends(workstation: Workstation, made: str) -> None:
    """Both values work during the overlap, and after it the old one is refused, the new one not."""
    before = listed(workstation)[made]
    workstation.exec(f"cp -p {FILE} {OLD}")
    keys(workstation, "rotate", made, "--overlap", "8s", "--to", FILE)
    assert set(ask(workstation, OLD, times=4) + ask(workstation, FILE, times=4)) == {"200"}
    after = listed(workstation)[made]
    assert after["id"] != before["id"]
    assert {after[each] == before[each] for each in ("team", "rpm", "tpm", "models")} == {True}
    assert refused(workstation, OLD, 8 + AGREE_SECONDS)
    assert set(ask(workstation, FILE, times=8)) == {"200"}
    old = [alias for alias in listed(workstation) if alias.startswith(f"{made}@")]
    assert document(keys(workstation, "prune", "--yes", "--json").stdout, "keys-removed")[
        "removed"
    ] == sorted(old)
    assert set(listed(workstation)) >= {made}


@pytest.mark.parametrize("step", [1, 2])
def test_rotation_that_is_killed_is_gone_on_with(
    workstation: Workstation, made: str, step: int
) -> None:
    """Killed with the new key made, or with the alias free, both values work; the next call ends it."""
    workstation.exec(f"cp -p {FILE} {OLD}")
    cut_short(workstation, step, "rotate", made, "--overlap", "60s", "--to", FILE)
    assert set(ask(workstation, OLD, times=4) + ask(workstation, FILE, times=4)) == {"200"}
    value = workstation.exec(f"sha256sum <{FILE}").stdout
    done = keys(workstation, "rotate", made, "--overlap", "60s", "--to", FILE)
    assert "finished the rotation that was broken off" in done.stderr
    assert workstation.exec(f"sha256sum <{FILE}").stdout == value
    found = listed(workstation)
    assert not [alias for alias in found if alias.endswith("@new")]
    assert str(found[made]["id"]) == token(workstation, made)[:12]
    assert set(ask(workstation, FILE, times=4)) == {"200"}


def test_timer_rotates_what_is_marked(workstation: Workstation, gateway: Gateway) -> None:
    """A marked key near its end has a new value in its file, and the host notes what it did."""
    keys(workstation, "new", ALIAS, "--rotate", "--days", "2")
    kept = f"/etc/gatehouse/keys/{ALIAS}"
    try:
        workstation.exec(f"cp -p {kept} {OLD}")
        keys(workstation, "check", "--record", "--rotate")
        noted = json.loads(workstation.exec("cat /var/lib/gatehouse/state/keys.json").stdout)
        assert (noted["rotated"], noted["failed"]) == ([ALIAS], [])
        assert set(ask(workstation, kept, times=2) + ask(workstation, OLD, times=2)) == {"200"}
        assert workstation.exec(f"cmp -s {kept} {OLD}", check=False).returncode == 1
        assert workstation.exec(f"stat -c '%a %U' {kept}").stdout.split() == ["600", "root"]
        assert workstation.exec("stat -c %a /etc/gatehouse/keys").stdout.strip() == "700"
    finally:
        keys(workstation, "revoke", ALIAS, "--yes")
        workstation.exec(f"rm -f {OLD}")
    assert workstation.exec(f"test -e {kept}", check=False).returncode == 1


def test_each_check_of_keys_fails_for_its_own_reason(
    workstation: Workstation, gateway: Gateway, made: str
) -> None:
    """A key without limits, one that ends soon and one that has ended are three things."""
    hashed = token(workstation, made)
    assert wrong(workstation) == []
    for change, name in (
        ({"rpm_limit": None}, "keys: all have limits"),
        ({"rpm_limit": 5, "duration": "13d"}, "keys: none ends soon"),
        ({"duration": "1s"}, "keys: none has ended"),
    ):
        body = {"key": hashed, **change}
        assert gateway.ask("POST", "/key/update", body).status == 200
        wait_for(
            lambda name=name: wrong(workstation) == [f"{name}: {made}"],
            AGREE_SECONDS,
            f"{name} to fail alone",
        )
    assert f"{made}: has ended" in keys(workstation, "check", code=1).stdout
    document(keys(workstation, "check", "--json", code=1).stdout, "keys-check")
    assert failing(workstation) == [f"keys: none has ended: {made}"]
    assert made in keys(workstation, "prune", "--yes").stdout
    assert wrong(workstation) == []
    keys(workstation, "new", made, "--to", FILE)


def test_session_of_the_web_interface_is_no_key(workstation: Workstation, gateway: Gateway) -> None:
    """Who is logged in to the web interface appears in no list, and in no check."""
    before = listed(workstation)
    user = wanted(workstation).litellm_admin_user
    form = {"username": user, "password": "{ui_password}"}
    seen = gateway.ask("POST", "/login", key="", form=form, keep_session="session")
    assert seen.status == 303
    try:
        sessions = (
            'SELECT count(*) FROM "LiteLLM_VerificationToken" WHERE team_id = $$litellm-dashboard$$'
        )
        counted = workstation.exec(
            f"docker exec gatehouse-postgres-1 psql -U litellm -d litellm -Atc '{sessions}'"
        )
        assert int(counted.stdout) >= 1, "nobody is logged in"
        assert listed(workstation) == before
        assert wrong(workstation) == []
    finally:
        gateway.ask("POST", "/key/delete", {"keys": ["{session}"]})


def test_value_is_nowhere_but_in_its_file(workstation: Workstation, made: str) -> None:
    """No log, no state, no database and no audit line holds the value of a key."""
    keys(workstation, "rotate", made, "--overlap", "60s", "--to", FILE)
    script = f"""
    value=$(cat {FILE})
    docker logs gatehouse-litellm-1 2>&1 | grep -c -e "$value"
    journalctl --no-pager 2>/dev/null | grep -c -e "$value"
    grep -rc -e "$value" /var/lib/gatehouse/audit.jsonl
    grep -rl -e "$value" /var/lib/gatehouse/state /etc/gatehouse /opt/gatehouse/current/ | wc -l
    docker exec gatehouse-postgres-1 pg_dump -U litellm litellm | grep -c -e "$value"
    true"""
    assert workstation.exec(script).stdout.split() == ["0"] * 5


@pytest.fixture(scope="module")
def declared(workstation: Workstation) -> Iterator[None]:
    """Deploy with a declared team, user and key, and take it back."""
    done = deploy(workstation, settings=DECLARED)
    assert done.changed == DECLARING
    assert "sk-" not in done.log
    yield
    keys(workstation, "revoke", "lab-bot", "--yes")
    back = deploy(workstation)
    assert "team lab-team: no longer declared" in back.words
    program = (
        "from gatehouse.tool.here import Gateway, settings; g = Gateway(settings()); "
        "g.post('/team/delete', {'team_ids': ['lab-team']}); "
        "g.post('/user/delete', {'user_ids': ['lab-ada']})"
    )
    workstation.exec([PYTHON, "-I", "-c", program])
    keys(workstation, "declare")


@pytest.mark.usefixtures("declared")
def test_declared_key_works_and_stays_declared(workstation: Workstation) -> None:
    """Team, user and key are there as declared, the value in a file of root's, and stay so."""
    row = listed(workstation)["lab-bot"]
    assert (row["team"], row["user"], row["rotate"]) == ("lab-team", "lab-ada", True)
    assert set(ask(workstation, BOT, times=2)) == {"200"}
    keys(workstation, "rotate", "lab-bot", "--overlap", "1s")
    plan = document(keys(workstation, "declare", "--plan", "--json").stdout, "keys-declare")
    assert plan == {"changes": [], "reports": [], "left": []}


@pytest.mark.usefixtures("declared")
def test_declared_budget_is_changed_and_enforced(workstation: Workstation) -> None:
    """A smaller budget comes with the next deploy, alone, and who has spent it is refused."""
    assert ask(workstation, BOT, PRICED) == ["200"]
    report = ["gatehouse", "spend", "--days", "1", "--by", "team", "--json"]
    spent = wait_for(
        lambda: {
            line["name"]: line["spend"]
            for line in document(workstation.exec(report).stdout, "spend")["lines"]
        }.get("lab-team"),
        AGREE_SECONDS,
        "the spend to be written",
    )
    assert 0.0001 < spent < 0.1
    teams = [TEAM | {"budget": 0.0001}]
    settings = DECLARED | {"keys_teams": teams}
    done = deploy(workstation, settings=settings)
    assert done.changed == DECLARING
    assert "max_budget 100.0 → 0.0001" in done.words
    wait_for(
        lambda: set(ask(workstation, BOT, PRICED, times=4)) == {"422"},
        AGREE_SECONDS,
        "the budget to be enforced",
    )
    assert deploy(workstation, settings=settings).changed == []


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["rotate", "lab-nobody"], 1, "there is no key 'lab-nobody'"),
        (["revoke", "lab-nobody", "--yes"], 1, "there is no key 'lab-nobody'"),
        (["new", "lab-x", "--team", "lab-nobody"], 1, "there is no team 'lab-nobody'"),
        (["new", "lab-x", "--models", "embed-selftst-builtin"], 1, "did you mean 'embed-selftest"),
        (["new", "lab-x", "--user", "lab-nobody"], 1, "there is no user 'lab-nobody'"),
        (["new", "lab-x", "--to", "/etc/passwd"], 1, "others own it or may read it"),
    ],
)
def test_what_cannot_be_is_said(
    workstation: Workstation, words: list[str], code: int, said: str
) -> None:
    """A wrong name or file is refused in one line, and nothing is made."""
    done = keys(workstation, *words, code=code)
    assert said in " ".join(done.stderr.split())
    assert "Traceback" not in done.stderr
    assert "lab-x" not in listed(workstation)


@pytest.mark.parametrize("command", ["list", "check", "prune", "declare", "revoke x", "rotate x"])
def test_without_permission_sudo_is_named(workstation: Workstation, command: str) -> None:
    """Who is not root is told how to be."""
    done = workstation.ssh(f"gatehouse keys {command}", user="operator", check=False)
    assert done.returncode == 2
    assert f"sudo gatehouse keys {command}" in done.stderr


@pytest.mark.parametrize(
    ("content", "said"),
    [("{", "deploy again"), (None, "this host is no gateway yet"), ("port", "cannot be reached")],
)
def test_host_that_cannot_be_looked_at_is_said(
    workstation: Workstation, content: str | None, said: str
) -> None:
    """Malformed settings, none, and a gateway that does not answer are exit code 2, in words."""
    place = "/tmp/lab-settings.json"  # noqa: S108 - on the workstation
    change = {
        "{": f"echo '{{' >{place}",
        None: f"rm -f {place}",
        "port": f'sed \'s/"litellm_port": 4000/"litellm_port": 4999/\' '
        f"/etc/gatehouse/settings.json >{place}",
    }[content]
    program = (
        "import pathlib; from gatehouse.tool import here, keys; "
        f"here.SETTINGS = pathlib.Path('{place}'); keys.keys(['list'])"
    )
    done = workstation.exec(f'{change}\n{PYTHON} -I -c "{program}"', check=False)
    workstation.exec(f"rm -f {place}")
    assert done.returncode == 2, done.stderr
    assert said in " ".join(done.stderr.split())
    assert "Traceback" not in done.stderr
