"""A backup comes back: in place, with the way back kept open, and on a host that is new."""

import json
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from gatehouse.lab.common import ROOT
from gatehouse.lab.images import LabImages
from gatehouse.lab.progress import Progress
from gatehouse.lab.settings import overrides
from gatehouse.lab.workstation import Workstation
from tests.deploying import deploy, settings_of
from tests.lab.conftest import containers, failing, wait_until_healthy
from tests.lab.releases import busy
from tests.lab.test_backup import FOLDER, document, forget
from tests.lab.test_dump import sql
from tests.lab.test_rotate import api
from tests.waiting import wait_for

DECLARED = {
    "keys_teams": [{"name": "restore-team"}],
    "keys_declared": [{"alias": "restore-bot", "team": "restore-team"}],
}
KEY = "sk-restore-test-0123456789"
SECRETS = "/etc/gatehouse/secrets"
BACKUP = (ROOT / "docs/backup.md").read_text()
UPGRADE = (ROOT / "docs/upgrade.md").read_text()
SPENT = f"SELECT count(*) FROM \"LiteLLM_SpendLogs\" WHERE api_key = encode(sha256('{KEY}'), 'hex')"
LOGIN = """
curl -s -o /dev/null -w '%{http_code}' -H 'Content-Type: application/json' -d @- \
  http://127.0.0.1:4000/v2/login <<BODY
{"username": "admin", "password": "$(cat /etc/gatehouse/secrets/ui_password)"}
BODY"""


def asked(workstation: Workstation) -> int:
    """Ask the gateway with the virtual key; gives the status."""
    body = {"model": "chat-selftest-builtin", "messages": [{"role": "user", "content": "?"}]}
    return int(
        workstation.exec(
            "curl -s -o /dev/null -w '%{http_code}' -H @- -H 'Content-Type: application/json' "
            f"-d '{json.dumps(body)}' http://127.0.0.1:4000/v1/chat/completions",
            text=f"Authorization: Bearer {KEY}",
        ).stdout
    )


def used(workstation: Workstation) -> None:
    """Have a gateway with a key, a user, a stored credential and spend."""
    api(workstation, "/user/new", {"user_id": "restore-user", "auto_create_key": False})
    api(
        workstation,
        "/key/generate",
        {"key": KEY, "key_alias": "restore-test", "user_id": "restore-user"},
    )
    stored = {"api_key": "sk-stored-elsewhere"}
    api(
        workstation,
        "/credentials",
        {"credential_name": "restore-test", "credential_values": stored, "credential_info": {}},
    )
    assert asked(workstation) == 200
    wait_for(lambda: int(sql(workstation, SPENT)) > 0, 60, "the spend of one request")


def unused(workstation: Workstation) -> None:
    """Take it away again."""
    master = workstation.exec(f"cat {SECRETS}/master_key").stdout
    workstation.exec(
        "curl -s -o /dev/null -X DELETE -H @- http://127.0.0.1:4000/credentials/restore-test",
        text=f"Authorization: Bearer {master}",
    )
    api(workstation, "/key/delete", {"key_aliases": ["restore-test"]})
    api(workstation, "/user/delete", {"user_ids": ["restore-user"]})


@pytest.fixture(scope="module")
def snapshot(workstation: Workstation) -> Iterator[str]:
    """Give a snapshot of a gateway that is used."""
    forget(workstation)
    used(workstation)
    yield str(document(workstation, "backup now --json", "backup-now")["snapshot"])
    unused(workstation)
    forget(workstation)


def test_gateway_comes_back_in_place(workstation: Workstation, snapshot: str) -> None:
    """A key and a user that were deleted work again, spend is there, and what came since is kept."""
    unused(workstation)
    assert asked(workstation) == 401
    before = workstation.exec(f"find {SECRETS} -type f | sort | xargs sha256sum").stdout
    found = document(workstation, f"restore {snapshot} --yes --json", "restore")
    assert found["rows"]["credentials"] == 1
    assert found["secrets"] == []
    assert asked(workstation) == 200
    assert int(sql(workstation, SPENT)) >= 1
    assert sql(
        workstation, "SELECT user_id FROM \"LiteLLM_UserTable\" WHERE user_id = 'restore-user'"
    )
    assert workstation.exec(f"find {SECRETS} -type f | sort | xargs sha256sum").stdout == before
    listed = document(workstation, "backup list --json", "backup-list")["snapshots"]
    assert "before-restore" in {each["id"]: each["tags"] for each in listed}[found["saved"]]
    assert workstation.exec(f"ls {FOLDER}").stdout.split() == ["cache", "repository"]
    assert failing(workstation) == []


def test_restore_that_fails_leaves_the_state_from_before(
    workstation: Workstation, snapshot: str
) -> None:
    """A gateway that does not come up with the snapshot serves with what it had."""
    api(workstation, "/user/new", {"user_id": "restore-later", "auto_create_key": False})
    # Nobody is let in any more: the doors do not open, and the way back is taken.
    broken = "/root/broken"
    workstation.exec(
        f"install -d {broken} && cat >{broken}/docker && chmod 755 {broken}/docker",
        text="#!/bin/sh\n"
        f'if [ "$1 $2" = "start gatehouse-litellm-1" ] && [ ! -e {broken}/done ]; then\n'
        f'    touch {broken}/done; echo "no such image" >&2; exit 1\nfi\nexec /usr/bin/docker "$@"\n',
    )
    try:
        done = workstation.exec(
            f"PATH={broken}:$PATH gatehouse restore {snapshot} --yes --without-saving", check=False
        )
    finally:
        workstation.exec(f"rm -r {broken}")
    assert done.returncode == 1
    assert "the state from before serves again. `docker start` failed: no such image" in done.stderr
    assert sql(
        workstation, "SELECT user_id FROM \"LiteLLM_UserTable\" WHERE user_id = 'restore-later'"
    )
    assert asked(workstation) == 200
    assert workstation.exec(f"ls {FOLDER}").stdout.split() == ["cache", "repository"]
    last = json.loads(workstation.exec("gatehouse log --json -n 5").stdout)["entries"]
    assert ("restore", "failed") in [(each["action"], each["result"]) for each in last]
    api(workstation, "/user/delete", {"user_ids": ["restore-later"]})


@pytest.mark.parametrize("power_cut", [False, True], ids=["kill", "power cut"])
def test_killed_restore_is_taken_back_by_the_host(
    workstation: Workstation, snapshot: str, *, power_cut: bool
) -> None:
    """Nobody runs it again: the database from before serves; the other one is told, and kept."""
    api(workstation, "/user/new", {"user_id": "restore-later", "auto_create_key": False})
    databases = "SELECT datname FROM pg_database WHERE datname LIKE 'litellm%'"
    workstation.exec(
        "systemd-run --quiet --collect --unit killed "
        f"gatehouse restore {snapshot} --yes --without-saving"
    )
    wait_for(lambda: "_replaced" in sql(workstation, databases, "postgres"), 120, "the switch")
    if power_cut:
        workstation.restart(power_cut=True)
    else:
        workstation.exec("systemctl kill --signal=KILL killed")
    begin = time.monotonic()
    alive = "curl -sf -o /dev/null http://127.0.0.1:4000/health/liveliness"
    wait_for(
        lambda: (
            "_replaced" not in sql(workstation, databases, "postgres")
            and workstation.exec(alive, check=False).returncode == 0
        ),
        300,
        "the gateway to serve from the database from before",
    )
    assert time.monotonic() - begin < 60 * busy()
    assert asked(workstation) == 200
    assert sql(
        workstation, "SELECT user_id FROM \"LiteLLM_UserTable\" WHERE user_id = 'restore-later'"
    )
    wait_for(
        lambda: (
            workstation.exec(
                "cat /run/gatehouse/deploy.lock; ls /etc/gatehouse/secrets/.restore", check=False
            ).stdout
            == ""
        ),
        60,
        "the way back to end",
    )
    last = json.loads(workstation.exec("gatehouse log --json -n 5").stdout)["entries"]
    assert ("way back", "ok") in [(each["action"], each["result"]) for each in last]
    api(workstation, "/user/delete", {"user_ids": ["restore-later"]})
    left = sql(workstation, databases, "postgres").split()
    (aside,) = set(left) - {"litellm"}
    (told,) = failing(workstation)
    assert told.startswith(f"backup: no database was put aside: {aside} (")
    said = re.findall(
        r"^    sudo (docker exec gatehouse-postgres-1 dropdb .+)$", BACKUP, re.MULTILINE
    )
    workstation.exec(said[0].replace("litellm_aside_DATE_TIME", aside))
    assert failing(workstation) == []


def test_way_back_that_fails_is_told_and_harms_nobody(
    workstation: Workstation, snapshot: str
) -> None:
    """Who was served meanwhile loses nothing: neither by another restore, nor by the way back."""
    api(workstation, "/user/new", {"user_id": "restore-before", "auto_create_key": False})
    users = "SELECT user_id FROM \"LiteLLM_UserTable\" WHERE user_id LIKE 'restore-%'"
    databases = "SELECT datname FROM pg_database WHERE datname LIKE 'litellm%'"
    settings = "/etc/gatehouse/settings.json"
    workstation.exec(
        "systemd-run --quiet --collect --unit killed "
        f"gatehouse restore {snapshot} --yes --without-saving"
    )
    wait_for(lambda: "_replaced" in sql(workstation, databases, "postgres"), 120, "the switch")
    # Whoever goes back finds no settings, as often as it tries.
    workstation.exec(f"mv {settings} {settings}.away; systemctl kill --signal=KILL killed")
    wait_for(
        lambda: (
            "the way back failed" in workstation.exec("journalctl -u gatehouse-restore-back").stdout
        ),
        60,
        "the way back to fail",
    )
    workstation.exec(f"systemctl stop gatehouse-restore-back; mv {settings}.away {settings}")
    workstation.exec("docker start gatehouse-litellm-1")
    wait_until_healthy(workstation)
    assert failing(workstation) == ["backup: no restore was broken off: broken off"]
    api(workstation, "/user/new", {"user_id": "restore-meanwhile", "auto_create_key": False})
    done = workstation.exec(f"gatehouse restore {snapshot} --yes", check=False)
    assert done.returncode == 2
    assert "gatehouse restore --recover" in done.stderr
    said = workstation.exec("gatehouse restore --recover --yes").stdout
    (aside,) = re.findall("litellm_aside_[0-9_]+", said)
    assert set(sql(workstation, users).split()) == {"restore-user", "restore-before"}
    assert set(sql(workstation, users, aside).split()) == {"restore-user", "restore-meanwhile"}
    assert asked(workstation) == 200
    # Nobody is asked about what is not there.
    done = workstation.exec("gatehouse restore --recover", check=False)
    assert (done.returncode, done.stderr) == (
        2,
        "Error: no restore was broken off, nothing was touched\n",
    )
    workstation.exec(f"docker exec gatehouse-postgres-1 dropdb -U litellm {aside}")
    api(workstation, "/user/delete", {"user_ids": ["restore-before"]})
    assert failing(workstation) == []


def test_data_move_to_another_server(workstation: Workstation, snapshot: str) -> None:
    """Another major version is refused untouched; by way of a snapshot, as documented, it works."""
    image, newer = settings_of(workstation)["postgres_image"], "gatehouse-lab/postgres:18-newer"
    workstation.exec(
        f"docker create --name newer {image} && docker rmi -f {newer}; "
        f"docker commit --change 'ENV PG_MAJOR=18' newer {newer} && docker rm newer"
    )
    running, settings = containers(workstation), {"postgres_image": newer}
    try:
        refused = deploy(workstation, settings=settings, expect=1)
        assert f"{newer} is PostgreSQL 18, the data are of 17" in refused.words
        assert containers(workstation) == running
        said = re.findall(
            r"^    ((?:sudo|cd) .+)$", UPGRADE.partition("## Another Postgres")[2], re.MULTILINE
        )
        saved, proven, gone, restored = said
        assert (saved, proven) == ("sudo gatehouse backup now", "sudo gatehouse drill")
        workstation.exec(gone)
        deploy(workstation, settings=settings)
        assert asked(workstation) == 401
        assert restored == "sudo gatehouse restore"
        workstation.exec(f"{restored} {snapshot} --yes")
        assert asked(workstation) == 200
        assert int(sql(workstation, SPENT)) >= 1
        assert failing(workstation, **settings) == []
    finally:
        deploy(workstation)
        workstation.exec(f"docker rmi {newer}", check=False)
    assert asked(workstation) == 200


def test_restore_asks_and_refuses(workstation: Workstation, snapshot: str) -> None:
    """Nothing is begun without a yes, on a host that is in use, or with a wrong password."""
    done = workstation.exec(f"gatehouse restore {snapshot}", check=False)
    assert (done.returncode, "say --yes" in done.stderr) == (2, True)
    assert "restic" not in done.stdout
    done = workstation.exec("gatehouse restore --to-empty-host --yes", check=False)
    assert (done.returncode, "this host is not empty" in done.stderr) == (2, True)
    place = f"--repository {FOLDER}/repository"
    done = workstation.exec(f"gatehouse restore {place} --yes", check=False, text="wrong\n")
    assert (done.returncode, "another password" in done.stderr) == (1, True)
    # What cannot be saved is not given up: another password than the repository's is this host's.
    password, started = f"{SECRETS}/backup_password", "docker inspect -f {{.State.StartedAt}} "
    before = workstation.exec(f"cp -p {password} /root/password; {started} gatehouse-litellm-1")
    workstation.exec(f"printf wrong >{password}")
    try:
        done = workstation.exec(
            f"gatehouse restore {snapshot} {place} --yes </root/password", check=False
        )
    finally:
        workstation.exec(f"cat /root/password >{password}; rm /root/password")
    assert (done.returncode, "--without-saving" in done.stderr) == (2, True)
    after = workstation.exec(f"{started} gatehouse-litellm-1")
    assert after.stdout == before.stdout
    done = workstation.exec("gatehouse restore ffffffff --yes", check=False)
    assert (done.returncode, "no snapshot begins" in done.stderr) == (1, True)


@pytest.fixture
def new_host(lab_images: LabImages, archive: Path, progress: Progress) -> Iterator[Workstation]:
    """A second workstation, just deployed, with a team and a key that its settings declare."""
    with Workstation.start(
        "restored",
        image=lab_images.host,
        preload=lab_images,
        settings=overrides(lab_images, archive),
        progress=progress,
    ) as started:
        with progress.step("provisioning it"):
            deploy(started, settings=DECLARED)
        yield started


def test_gateway_comes_back_on_a_new_host(
    workstation: Workstation, snapshot: str, new_host: Workstation
) -> None:
    """With the repository and its password: keys, spend, the web interface and credentials."""
    password = workstation.exec(f"cat {SECRETS}/backup_password").stdout
    moved = workstation.exec(f"tar -C {FOLDER} -cf - repository | base64 -w 0").stdout
    new_host.exec("base64 -d | tar -C /root -xf - && mv /root/repository /root/old", text=moved)
    assert asked(new_host) == 401
    assert sql(new_host, 'SELECT key_alias FROM "LiteLLM_VerificationToken"') == "restore-bot"
    own = new_host.exec(f"cat {SECRETS}/salt_key").stdout
    # Hosts are told apart by it.
    machine = "cat /etc/machine-id"
    assert new_host.exec(machine).stdout != workstation.exec(machine).stdout
    done = new_host.exec(
        f"gatehouse restore {snapshot} --to-empty-host --repository /root/old --yes --json",
        text=password,
    )
    found: dict[str, Any] = json.loads(done.stdout)
    jsonschema.validate(found, json.loads((ROOT / "docs/schemas/restore.json").read_text()))
    assert set(found["secrets"]) == {"master_key", "salt_key", "ui_password"}
    assert new_host.exec(f"cat {SECRETS}/salt_key").stdout != own
    for name in ("master_key", "salt_key", "ui_password"):
        theirs = workstation.exec(f"sha256sum <{SECRETS}/{name}").stdout
        assert new_host.exec(f"sha256sum <{SECRETS}/{name}").stdout == theirs
    assert asked(new_host) == 200
    assert int(sql(new_host, SPENT)) >= 1
    assert new_host.exec(LOGIN).stdout == "200"
    # Its own backups, with its own repository, come back as well: credentials with this salt key.
    new_host.exec("gatehouse backup now")
    assert document(new_host, "drill --json", "drill")["credentials"] == 1
    assert failing(new_host, **DECLARED) == []
    # What the snapshot does not know of is made again.
    assert "Keys | Keep what is declared" in deploy(new_host, settings=DECLARED).changed
    again = deploy(new_host, settings=DECLARED)
    assert again.changed == []
