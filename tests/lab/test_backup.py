"""Backups on a real gateway: made, kept, damaged, refused, and seen to come back."""

import json
import re
from collections.abc import Iterator
from typing import Any

import jsonschema
import pytest

from gatehouse.lab import images
from gatehouse.lab.common import LABEL, ROOT
from gatehouse.lab.engine import engine
from gatehouse.lab.progress import Progress
from gatehouse.lab.workstation import Workstation
from tests.deploying import deploy
from tests.lab.test_rotate import api
from tests.waiting import wait_for

FOLDER = "/var/lib/gatehouse/backup"
REPOSITORY = f"{FOLDER}/repository"
STATES = "/var/lib/gatehouse/state"
SCRATCH = "docker ps -aq --filter name=gatehouse-drill"
RESTIC = f"RESTIC_REPOSITORY={REPOSITORY} RESTIC_PASSWORD_FILE=/etc/gatehouse/secrets/backup_password restic"
VALUE = "sk-stored-with-the-salt-key"
REST_PORT, REST_PASSWORD = 8400, "let-me-in-to-the-repository"
REST = "RESTIC_REST_USERNAME=backup\nRESTIC_REST_PASSWORD={password}\n"


@pytest.fixture(scope="module", autouse=True)
def backed_up(workstation: Workstation) -> Iterator[dict[str, Any]]:
    """Give a first backup, of a gateway with a stored credential; nothing of it stays."""
    body = {
        "credential_name": "backup-test",
        "credential_values": {"api_key": VALUE},
        "credential_info": {},
    }
    api(workstation, "/credentials", body)
    forget(workstation)
    try:
        yield document(workstation, "backup now --json", "backup-now")
    finally:
        forget(workstation)
        unstore(workstation)


def unstore(workstation: Workstation) -> None:
    """Remove the stored credential."""
    workstation.exec(
        "curl -sSf -o /dev/null -X DELETE -H @- http://127.0.0.1:4000/credentials/backup-test",
        text=f"Authorization: Bearer {workstation.exec('cat /etc/gatehouse/secrets/master_key').stdout}",
    )


def forget(workstation: Workstation) -> None:
    """Have a host that never made a backup."""
    workstation.exec(
        f"systemctl stop gatehouse-backup gatehouse-drill; rm -rf {FOLDER}/* "
        f"{STATES}/backup.json {STATES}/drill.json"
    )


def document(workstation: Workstation, words: str, schema: str) -> dict[str, Any]:
    """Run a command and give its document, which is as its schema says."""
    found: dict[str, Any] = json.loads(workstation.exec(f"gatehouse {words}").stdout)
    jsonschema.validate(found, json.loads((ROOT / f"docs/schemas/{schema}.json").read_text()))
    return found


def failed(workstation: Workstation, words: str, code: int = 1) -> str:
    """Run a command that does not work; give what it says, in one line."""
    done = workstation.exec(f"gatehouse {words}", check=False)
    assert done.returncode == code, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    return " ".join((done.stdout + done.stderr).split())


def states(workstation: Workstation) -> dict[str, str]:
    """Give the states of the checks of backups."""
    done = workstation.exec("gatehouse status --component backup --json", check=False)
    return {
        each["name"].removeprefix("backup: "): each["state"]
        for each in json.loads(done.stdout)["checks"]
    }


def test_snapshot_holds_everything_together(
    workstation: Workstation, backed_up: dict[str, Any]
) -> None:
    """Database, roles, manifest, release, settings and secrets with the salt key are in one."""
    assert backed_up["rows"]["credentials"] == 1
    assert backed_up["rows"]["users"] >= 1
    found = document(workstation, "backup list --json", "backup-list")
    ((tag, machine),) = [each["tags"] for each in found["snapshots"]]
    assert tag == "gatehouse"
    assert re.fullmatch("machine-[0-9a-f]{12}", machine)
    assert found["snapshots"][0]["id"] == backed_up["snapshot"]
    assert found["bytes"] > 10_000
    listed = workstation.exec(f"{RESTIC} ls latest").stdout
    release = workstation.exec("readlink /opt/gatehouse/current").stdout.strip()
    for path in (
        f"{FOLDER}/staging/litellm.dump",
        f"{FOLDER}/staging/globals.sql",
        f"{FOLDER}/staging/manifest.json",
        f"{release}/compose.yaml",
        "/etc/gatehouse/settings.json",
        "/etc/gatehouse/secrets/salt_key",
        "/etc/gatehouse/secrets/master_key",
    ):
        assert f"{path}\n" in listed
    assert workstation.exec(f"ls {FOLDER}").stdout.split() == ["cache", "repository"]
    assert workstation.exec(f"stat -c %a {REPOSITORY}/config").stdout == "400\n"


def test_backup_is_told_and_password_is_in_nothing(workstation: Workstation) -> None:
    """The password is shown to who asks for it, and is in no list of processes, log or state."""
    password = workstation.exec("cat /etc/gatehouse/secrets/backup_password").stdout.strip()
    shown = workstation.exec("gatehouse backup password").stdout.strip()
    assert shown == password
    seen = workstation.exec(
        "gatehouse backup now --no-verify >/dev/null 2>&1 & "
        "while kill -0 $! 2>/dev/null; do "
        "cat /proc/[0-9]*/cmdline 2>/dev/null | tr '\\0' ' '; sleep 0.1; done",
        timeout_seconds=60,
    ).stdout
    assert "restic" in seen
    assert password not in seen
    assert VALUE not in seen
    for place in (STATES, "/var/lib/gatehouse/audit.jsonl"):
        assert workstation.exec(f"grep -r -- {password} {place}", check=False).returncode == 1
    actions = [
        e["action"] for e in json.loads(workstation.exec("gatehouse log --json").stdout)["entries"]
    ]
    assert {"backup now", "backup password"} <= set(actions)
    assert states(workstation)["the last one is good and new"] == "ok"


def test_policy_keeps_what_it_says(workstation: Workstation, backed_up: dict[str, Any]) -> None:
    """Of four snapshots of older days and weeks, those go that no rule keeps; others' stay.

    So do all that were saved before restores of one day. This host's own are no days of theirs.
    """
    workstation.exec(f"install -d {FOLDER}/old && echo old >{FOLDER}/old/file")
    for day in ("2024-01-01", "2024-01-02", "2024-03-05", "2024-03-06"):
        workstation.exec(
            f"{RESTIC} backup --quiet --host gatehouse --tag gatehouse --time '{day} 02:00:00' {FOLDER}/old"
        )
    workstation.exec(f"{RESTIC} backup --quiet --host gatehouse --tag mine {FOLDER}/old")
    for hour in ("10", "11"):
        workstation.exec(
            f"{RESTIC} backup --quiet --host gatehouse --tag before-restore "
            f"--time '2024-03-06 {hour}:00:00' {FOLDER}/old"
        )
    settings = "/etc/gatehouse/settings.json"
    workstation.exec(f"cp -p {settings} /root/settings.json")
    try:
        workstation.exec(
            f'sed -i -E \'s/(backup_keep_daily"): [0-9]+/\\1: 1/; s/(backup_keep_weekly"): [0-9]+/\\1: 0/; '
            f"s/(backup_keep_monthly\"): [0-9]+/\\1: 2/' {settings}"
        )
        document(workstation, "backup prune --json", "backup-prune")
    finally:
        workstation.exec(f"mv /root/settings.json {settings}")
    kept = json.loads(workstation.exec(f"{RESTIC} snapshots --json").stdout)
    days = sorted(each["time"][:10] for each in kept if each["tags"] == ["gatehouse"])
    assert days == ["2024-01-02", "2024-03-06"]
    assert len([each for each in kept if each["tags"] == ["mine"]]) == 1
    before = [each["time"][:13] for each in kept if each["tags"] == ["before-restore"]]
    assert sorted(before) == ["2024-03-06T10", "2024-03-06T11"]
    # All of that was made elsewhere, or nobody knows by whom; what is not the gateway's stays.
    assert workstation.exec("gatehouse backup prune --others", check=False).returncode == 2
    workstation.exec("gatehouse backup prune --others --yes")
    kept = json.loads(workstation.exec(f"{RESTIC} snapshots --json").stdout)
    own = [each for each in kept if each["tags"][0] == "gatehouse"]
    assert backed_up["snapshot"] in {each["short_id"] for each in own}
    (other,) = [each["id"] for each in kept if each not in own]
    assert all(len(each["tags"]) == len(("gatehouse", "machine")) for each in own)
    workstation.exec(f"rm -r {FOLDER}/old; {RESTIC} forget --quiet {other}")


def test_drill_gets_everything_back(workstation: Workstation, backed_up: dict[str, Any]) -> None:
    """Every row that was noted, and the stored credential with the saved salt key; nothing stays."""
    volumes = workstation.exec("docker volume ls -q").stdout
    found = document(workstation, "drill --json", "drill")
    assert found["rows"]["users"] == backed_up["rows"]["users"]
    assert found["credentials"] == 1
    assert found["seconds"] > 0
    assert workstation.exec(SCRATCH).stdout == ""
    assert workstation.exec(f"ls {FOLDER}").stdout.split() == ["cache", "repository"]
    assert workstation.exec("docker volume ls -q").stdout == volumes
    assert states(workstation)["it comes back"] == "ok"


def test_killed_drill_leaves_nothing(workstation: Workstation) -> None:
    """What its unit started goes with it, even when it was killed."""
    workstation.exec("systemctl start --no-block gatehouse-drill")
    wait_for(lambda: workstation.exec(SCRATCH).stdout, 60, "the scratch database")
    workstation.exec("systemctl kill --signal=KILL gatehouse-drill")
    wait_for(lambda: not workstation.exec(SCRATCH).stdout, 60, "its removal")
    workstation.exec("systemctl reset-failed gatehouse-drill; systemctl start gatehouse-drill")
    assert states(workstation)["it comes back"] == "ok"


def test_drill_of_the_timer_leaves_the_one_of_a_person_alone(workstation: Workstation) -> None:
    """It is refused, and what its unit removes when it ends is not the other one's server."""
    # Not collected: of a unit that is gone systemd says that it has ended well.
    unit = "systemd-run --quiet --property=RemainAfterExit=yes --unit by-hand"
    workstation.exec(f"{unit} gatehouse drill")
    wait_for(lambda: workstation.exec(SCRATCH).stdout, 60, "the scratch database")
    done = workstation.exec("systemctl start gatehouse-drill", check=False)
    state = "systemctl show --value -p {} by-hand"
    wait_for(
        lambda: workstation.exec(state.format("SubState")).stdout.strip() != "running",
        120,
        "the drill to end",
    )
    result = workstation.exec(state.format("Result")).stdout.strip()
    workstation.exec("systemctl stop by-hand; systemctl reset-failed by-hand", check=False)
    assert done.returncode != 0
    assert result == "success"
    workstation.exec("systemctl start gatehouse-drill")


def test_folder_of_the_repository_is_made_by_the_deploy(workstation: Workstation) -> None:
    """The timer's unit, which may make none, makes the repository in it."""
    place = "/srv/backups-of-a-test"
    try:
        made = deploy(workstation, settings={"backup_repository": f"{place}/gatehouse"})
        assert "Backup | Have the folder that the repository is in" in made.changed
        workstation.exec("systemctl start gatehouse-backup")
        assert states(workstation)["the last one is good and new"] == "ok"
        assert workstation.exec(f"stat -c %a {place}").stdout == "700\n"
    finally:
        workstation.exec(f"rm -rf {place}")
        forget(workstation)
        deploy(workstation)
    workstation.exec("gatehouse backup now --no-verify && gatehouse drill")


def test_credential_of_another_salt_key_is_seen(workstation: Workstation) -> None:
    """A backup whose salt key does not open what is stored is no backup: the drill says so."""
    salt = "/etc/gatehouse/secrets/salt_key"
    workstation.exec(f"cp -p {salt} /root/salt_key && printf sk-salt-another-one >{salt}")
    try:
        workstation.exec("gatehouse backup now --no-verify")
        said = failed(workstation, "drill")
    finally:
        workstation.exec(f"cat /root/salt_key >{salt}; rm /root/salt_key")
    assert "1 of 1 stored credentials are not opened by the salt key" in said
    assert states(workstation)["it comes back"] == "failure"
    workstation.exec("gatehouse backup now --no-verify && gatehouse drill")


def test_damaged_repository_is_seen(workstation: Workstation) -> None:
    """A pack that lost its content is told by the drill and by the verification, and by checks."""
    workstation.exec(f"cp -a {REPOSITORY} /root/repository")
    try:
        workstation.exec(
            f"for pack in $(find {REPOSITORY}/data -type f); do chmod u+w $pack; "
            "yes damaged | head -c $(($(stat -c %s $pack) / 2)) | "
            "dd of=$pack bs=1M iflag=fullblock oflag=seek_bytes seek=64 conv=notrunc status=none; done"
        )
        failed(workstation, "drill")
        assert states(workstation)["it comes back"] == "failure"
        said = failed(workstation, "backup verify --all")
        assert "restic check failed" in said
        found = states(workstation)
        assert found["what it holds can be read"] == "failure"
        assert found["it comes back"] == "hushed"
    finally:
        workstation.exec(f"rm -rf {REPOSITORY} && mv /root/repository {REPOSITORY}")
    workstation.exec("gatehouse backup verify --all && gatehouse drill")
    assert set(states(workstation).values()) == {"ok"}


def test_full_disk_harms_nothing(workstation: Workstation) -> None:
    """A backup that does not fit is refused, or broken off: older ones and the gateway go on."""
    settings, before = "/etc/gatehouse/settings.json", snapshots(workstation)
    workstation.exec(f"mv {FOLDER} /root/backup && install -d -m 700 {FOLDER}")
    workstation.exec(
        f"mount -t tmpfs -o size=64m,mode=700 none {FOLDER} && cp -a /root/backup/. {FOLDER}/ && "
        f"cp -p {settings} /root/settings.json"
    )
    try:
        assert "backup_reserve_mib" in failed(workstation, "backup now")
        assert states(workstation)["the last one is good and new"] == "failure"
        # There is room when it begins, and none when restic writes.
        workstation.exec(
            f"sed -i -E 's/(backup_reserve_mib\"): [0-9]+/\\1: 0/' {settings} && "
            "install -d /root/full && cat >/root/full/restic && chmod 755 /root/full/restic",
            text=f"#!/bin/sh\n[ $1 != backup ] || cat /dev/zero >{FOLDER}/filler\n"
            'exec /usr/bin/restic "$@"\n',
        )
        done = workstation.exec("PATH=/root/full:$PATH gatehouse backup now", check=False)
        assert done.returncode == 1
        assert "no space left on device" in done.stderr
        assert workstation.exec(f"ls {FOLDER}").stdout.split() == ["cache", "filler", "repository"]
        workstation.exec("curl -sSf http://127.0.0.1:4000/health/liveliness")
        assert snapshots(workstation) == before
        workstation.exec(
            f"rm {FOLDER}/filler && gatehouse backup now && gatehouse backup verify --all"
        )
    finally:
        workstation.exec(
            f"mv /root/settings.json {settings}; rm -rf /root/full; umount {FOLDER} && "
            f"rmdir {FOLDER} && mv /root/backup {FOLDER}"
        )
    workstation.exec("gatehouse backup now --no-verify")
    assert set(states(workstation).values()) == {"ok"}


def snapshots(workstation: Workstation) -> list[str]:
    """Give the snapshots that there are."""
    found = json.loads(workstation.exec(f"{RESTIC} snapshots --no-lock --json").stdout)
    return [each["id"] for each in found]


def test_repository_that_is_away_is_missed(workstation: Workstation) -> None:
    """Its disk is not mounted: no second repository is begun, and the check names the first."""
    workstation.exec(f"mv {REPOSITORY} /root/repository")
    try:
        assert "is gone: mount its disk" in failed(workstation, "backup now")
        found = states(workstation)
        assert found["the repository is there"] == "failure"
        assert found["the last one is good and new"] == "hushed"
    finally:
        workstation.exec(f"rm -rf {REPOSITORY}; mv /root/repository {REPOSITORY}")
    workstation.exec("gatehouse backup now --no-verify")


@pytest.fixture
def elsewhere(workstation: Workstation, progress: Progress) -> Iterator[str]:
    """A machine on the LAN that serves repositories over HTTP to who has a password; its place."""
    client = engine(progress)
    server = client.containers.run(
        images.ensure_supply(client, progress),
        [
            *("rclone", "serve", "restic", "--addr", f":{REST_PORT}", "--user", "backup"),
            *("--pass", REST_PASSWORD, "/srv"),
        ],
        network=workstation.container,
        labels={LABEL: workstation.name},
        detach=True,
    )
    try:
        server.reload()
        networks = server.attrs["NetworkSettings"]["Networks"]
        place = f"http://{networks[workstation.container]['IPAddress']}:{REST_PORT}/"
        code = f"curl -s -o /dev/null -w '%{{http_code}}' {place}"
        wait_for(lambda: workstation.exec(code, check=False).stdout == "401", 30, "the server")
        yield f"rest:{place}"
    finally:
        server.remove(force=True)


def test_repository_elsewhere_takes_who_has_its_password(
    workstation: Workstation, elsewhere: str
) -> None:
    """Without it nothing is begun there; with it backups and drills go there, and no log has it."""
    credentials = "gatehouse backup credentials"
    try:
        deploy(workstation, settings={"backup_repository": elsewhere})
        refused = f"{elsewhere} does not let this host in"
        assert refused in failed(workstation, "backup now")
        workstation.exec(credentials, text=REST.format(password="wrong-" + REST_PASSWORD))
        assert refused in failed(workstation, "backup now")
        kept = workstation.exec(credentials, text=REST.format(password=REST_PASSWORD)).stdout
        assert kept == "kept: RESTIC_REST_PASSWORD, RESTIC_REST_USERNAME\n"
        assert document(workstation, "backup now --json", "backup-now")["rows"]["credentials"] == 1
        assert len(document(workstation, "backup list --json", "backup-list")["snapshots"]) == 1
        assert document(workstation, "drill --json", "drill")["credentials"] == 1
        assert states(workstation)["the last one is good and new"] == "ok"
        for place in (STATES, "/var/lib/gatehouse/audit.jsonl", "/etc/gatehouse/settings.json"):
            found = workstation.exec(f"grep -rl {REST_PASSWORD} {place}", check=False)
            assert found.returncode == 1
        said = workstation.exec(
            f"journalctl -o cat --no-pager | grep -c {REST_PASSWORD}", check=False
        )
        assert said.stdout == "0\n"
    finally:
        workstation.exec("rm -f /etc/gatehouse/secrets/backup_credentials")
        forget(workstation)
        deploy(workstation)
