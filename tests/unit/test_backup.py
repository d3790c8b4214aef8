"""Backups: what is judged good, what restic is told, and what never is shown."""

import errno
import io
import json
import os
import tarfile
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from gatehouse import audit, state
from gatehouse.checks import backup as checks
from gatehouse.checks import every
from gatehouse.probes import backup as probe
from gatehouse.render import timers
from gatehouse.tool import backup_make, drill, lock, restic, restore_back
from gatehouse.tool.__main__ import main
from gatehouse.tool.audited import audited
from gatehouse.tool.backup import backup
from gatehouse.tool.errors import CannotLookError, ProblemError
from gatehouse.tool.restic import NoRepositoryError, Repository
from tests.given import problems, settings
from tests.probes import remembered

DAY, HOUR = 86400, 3600
NOW = remembered()["now"]
# Notes what it was called with, and answers as a test wants it to.
RESTIC = """
echo "$*" >>"$PLAYED/calls"
env | grep RESTIC_ | sort >>"$PLAYED/environment"
[ ! -e "$PLAYED/$1" ] || . "$PLAYED/$1"
"""


@pytest.fixture(autouse=True)
def played(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Have a `restic` that is played, and state of the test's own."""
    programs, folder = tmp_path / "bin", tmp_path / "played"
    programs.mkdir()
    folder.mkdir()
    (programs / "restic").write_text(f"#!/bin/sh\nPLAYED={folder}\n{RESTIC}")
    (programs / "restic").chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}:{os.environ['PATH']}")
    monkeypatch.setattr(state, "FOLDER", tmp_path / "state")
    monkeypatch.setattr(restic, "FOLDER", tmp_path / "backup")
    return folder


def known(**changes: Any) -> dict[str, Any]:  # noqa: ANN401 - any JSON
    """Give what is remembered, with changes of what is remembered of backups."""
    found = remembered()
    return found | {"backup": found["backup"] | changes}


def at(age: float, error: str = "") -> dict[str, Any]:
    """Give a result of some time ago."""
    return {
        "at": NOW - age,
        "ok": not error,
        "error": error,
        "snapshot": "0123abcd",
        "seconds": 4.0,
    }


NEW_HOST = {"backup": {}, "drill": {}, "since": NOW - HOUR}


@pytest.mark.parametrize(
    ("seen", "holds", "found"),
    [
        (known(), True, "0123abcd, 60 min ago"),
        (known(good=at(27 * HOUR), last=at(27 * HOUR)), False, "0123abcd, 27 h ago"),
        (known(last=at(60, "no space")), False, "it failed 1 min ago: no space"),
        (remembered() | NEW_HOST, True, "none yet, due in 25 h"),
        (remembered() | NEW_HOST | {"since": NOW - 2 * DAY}, False, "none yet"),
    ],
)
def test_backup_that_is_missing_or_old_fails(
    seen: dict[str, Any],
    holds: bool,  # noqa: FBT001 - a fact
    found: str,
) -> None:
    """A good one that is new holds; on a new host the first one has until it is due."""
    result = checks.made(26)(seen)
    assert (result.holds, result.found) == (holds, found)


@pytest.mark.parametrize(
    ("seen", "holds", "found"),
    [
        (remembered(), True, "0123abcd came back in 4 s, 60 min ago"),
        (remembered(drill={"good": at(9 * DAY), "last": at(9 * DAY)}), False, "9 days ago"),
        (remembered(drill={"good": at(DAY), "last": at(HOUR, "damaged")}), False, "damaged"),
        (remembered(drill={}), False, "none yet"),
        (known(first=NOW - 2 * DAY) | {"drill": {}}, True, "none yet, due in 6 days"),
        (remembered() | NEW_HOST, True, "no backup yet"),
    ],
)
def test_drill_that_is_missing_or_old_fails(
    seen: dict[str, Any],
    holds: bool,  # noqa: FBT001 - a fact
    found: str,
) -> None:
    """A backup that was never restored is none, once a drill was due."""
    result = checks.drilled(8)(seen)
    assert result.holds is holds
    assert found in result.found


def test_damage_is_told_until_it_is_mended() -> None:
    """What could not be read fails; so does what was not read for days; a new host has nothing."""
    assert not checks.verified(known(verify=at(HOUR, "pack is damaged"))).holds
    assert not checks.verified(known(verify=at(4 * DAY))).holds
    assert checks.verified(known()).holds
    assert checks.verified(remembered() | NEW_HOST).holds


def test_repository_that_is_gone_is_told() -> None:
    """A disk that is not mounted is no new host."""
    assert checks.there(known()).holds
    assert not checks.there(known() | {"there": False}).holds
    assert checks.there(remembered() | NEW_HOST | {"there": False}).holds


def test_password_has_a_week_to_be_kept_elsewhere() -> None:
    """Until then nobody is bothered."""
    assert checks.shown(known()).holds
    assert checks.shown(known(shown=None, first=NOW - 6 * DAY)).holds
    assert not checks.shown(known(shown=None, first=NOW - 8 * DAY)).holds


def test_checks_do_not_fail_a_deploy() -> None:
    """A host that was off for a week can be deployed to; switched off, there are none."""
    mine = [check for check in every(settings()) if check.component == "backup"]
    assert len(mine) == 7
    assert all(check.past for check in mine if check.severity == "failure")
    off = [c.name for c in every(settings(backup_enabled=False)) if c.component == "backup"]
    assert off == ["backup: no restore was broken off", "backup: no database was put aside"]


def test_restore_that_is_unfinished_is_told_unless_it_is_at_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever has the lock says what it does; what a killed one wrote there says nothing."""
    file, unfinished = tmp_path / "deploy.lock", tmp_path / ".restore"
    monkeypatch.setattr(probe, "LOCK", str(file))
    monkeypatch.setattr(probe, "UNFINISHED", str(unfinished))
    assert probe.restore() == "none"
    unfinished.touch()
    assert probe.restore() == "broken off"
    for action in ("restore", restore_back.ACTION, "restore --recover"):
        with lock.held(action, file=file):
            assert probe.restore() == "at work"
    with lock.held("deploy", file=file):
        assert probe.restore() == "broken off"
    file.write_text(lock.line("restore", "ada"))
    assert probe.restore() == "broken off"
    assert not checks.taken_back("broken off").holds
    assert checks.taken_back("at work").holds


def test_password_is_in_a_file_and_in_no_command_line(played: Path) -> None:
    """It is told where to read it."""
    repository = Repository("/srv/backups", credentials=restic.parse("AWS_ACCESS_KEY_ID=abc"))
    repository.run("check")
    assert (played / "calls").read_text() == "check\n"
    said = (played / "environment").read_text()
    assert f"RESTIC_PASSWORD_FILE={restic.PASSWORD}\n" in said
    assert "RESTIC_REPOSITORY=/srv/backups\n" in said
    assert "abc" not in repr(repository)


@pytest.mark.parametrize(
    ("words", "kind", "told"),
    [
        ("Fatal: wrong password or no key found", ProblemError, "made with another password"),
        ("Fatal: unable to open config file: stat", NoRepositoryError, "there is no repository"),
        (
            "Fatal: unable to open config file: unexpected HTTP response (401): 401 Unauthorized",
            ProblemError,
            "does not let this host in",
        ),
        ("Fatal: unable to create lock: already locked by PID 7", ProblemError, "another restic"),
        ('{"message_type":"exit_error","message":"Fatal: disk"}', ProblemError, "Fatal: disk"),
    ],
)
def test_refusal_is_told_in_words(
    played: Path, words: str, kind: type[ProblemError], told: str
) -> None:
    """What restic says, old or new, becomes what to do."""
    (played / "check").write_text(f"echo '{words}' >&2; exit 1")
    with pytest.raises(kind, match=told) as refused:
        Repository("/srv/backups").run("check")
    # A repository is made only where there is none.
    assert refused.type is kind


def test_policy_is_what_the_settings_say(played: Path) -> None:
    """Snapshots of a renamed host are not kept for ever; those of each machine are for themselves."""
    groups = '[{"keep":[{"id":"aa"},{"id":"bb"}]},{"keep":[{"id":"cc"}]},{"keep":null}]'
    (played / "forget").write_text(
        f"[ \"$5\" != gatehouse ] || {{ echo '{groups}'; echo 'repository contains 3 packs'; }}"
    )
    assert backup_make.prune(settings(backup_keep_weekly=0), Repository("/srv/backups")) == 3
    calls = (played / "calls").read_text().splitlines()
    assert (calls[0], calls[-1]) == ("unlock", "prune")
    before, regular = (set(each.split()) for each in calls[1:-1])
    policy = {"--host", "gatehouse", "host,tags", "--prune", "--keep-daily=7", "--keep-monthly=3"}
    assert policy < before & regular
    # Two restores of one day are two states that somebody may want back.
    assert before - regular == {"before-restore", "--keep-within=30d"}


def archived(folder: Path, **contents: str) -> str:
    """Give the shell that prints an archive, as restic does of a snapshot."""
    with tarfile.open(folder / "archive", mode="w") as tar:
        for name, content in contents.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content.encode()))
    return f"cat {folder}/archive"


def test_snapshot_is_read_in_one_pass(played: Path) -> None:
    """Each file by its path on the host, named from the root or from it; nothing from outside."""
    contents = {"etc/a": "one", "/var/b": "two" * 10**6, "../../c": "three"}
    (played / "dump").write_text(archived(played, **contents))
    with Repository("/srv/backups").files("aa11") as files:
        found = {str(path): file.read().decode() for path, file in files}
    assert found == {"/etc/a": "one", "/var/b": "two" * 10**6}
    assert (played / "calls").read_text() == "dump aa11 /\n"


@pytest.mark.parametrize(
    ("ending", "told"),
    [
        ("echo 'pack 1234 is damaged' >&2; exit 1", "restic dump failed: pack 1234 is damaged"),
        ("exit 0", "snapshot aa11 cannot be read to its end"),
    ],
)
def test_snapshot_that_ends_in_the_middle_is_no_snapshot(
    played: Path, ending: str, told: str
) -> None:
    """Who reads it is told why, also where it was in the middle of a file."""
    whole = archived(played, **{"etc/a": "one", "var/b": "two" * 10**6})
    (played / "dump").write_text(f"{whole} | head -c 50000; {ending}")
    with pytest.raises(ProblemError, match=told), Repository("/srv").files("aa11") as files:
        [file.read() for _, file in files]


def test_damage_behind_what_is_asked_for_is_noticed(played: Path) -> None:
    """A snapshot is read to its end, and so is what restic says."""
    whole = archived(played, **{"etc/a": "one", "var/b": "two"})
    (played / "dump").write_text(f"{whole}; echo 'pack 1234 is damaged' >&2; exit 1")
    with pytest.raises(ProblemError, match="is damaged"), Repository("/srv").files("a") as files:
        next(files)[1].read()


def test_every_part_is_read_within_a_week(played: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Seven days, seven parts; and what went wrong is remembered."""
    for day in range(1, 8):
        monkeypatch.setattr(
            backup_make.time, "localtime", lambda day=day: type("Day", (), {"tm_yday": day})
        )
        backup_make.verify(Repository("/srv/backups"))
    calls = set((played / "calls").read_text().splitlines()) - {"unlock"}
    assert calls == {f"check --read-data-subset={part}/7" for part in range(1, 8)}
    (played / "check").write_text("echo 'pack 1234 is damaged' >&2; exit 1")
    with pytest.raises(ProblemError, match="pack 1234 is damaged"):
        backup_make.verify(Repository("/srv/backups"), everything=True)
    kept = backup_make.kept()["verify"]
    assert (kept["ok"], kept["part"]) == (False, None)
    assert "pack 1234 is damaged" in kept["error"]


def test_repository_that_is_gone_is_not_made_anew(tmp_path: Path, played: Path) -> None:
    """A disk that is not mounted gets no second repository behind the operator's back."""
    (played / "unlock").write_text("echo 'Fatal: unable to open config file' >&2; exit 10")
    backup_make.remember(repository={"location": "/mnt/disk/backups", "id": "1"})
    with pytest.raises(ProblemError, match="is gone: mount its disk"):
        backup_make.make(settings(), Repository("/mnt/disk/backups"), lambda _line: None)
    assert "init" not in (played / "calls").read_text()
    assert backup_make.kept()["last"]["ok"] is False


def test_full_disk_is_told_in_the_words_of_what_failed(
    played: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where nothing can be remembered no check tells of it, so that the job itself must fail."""

    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(state, "write", full)
    monkeypatch.setattr(audit, "record", full)
    (played / "check").write_text("echo 'pack 1234 is damaged' >&2; exit 1")
    (played / "unlock").write_text("echo 'server is away' >&2; exit 1")
    repository, told = Repository("/srv/backups"), "server is away\nand it cannot be written down"
    for tried in (
        lambda: backup_make.make(settings(), repository, lambda _line: None),
        lambda: backup_make.verify(repository),
        lambda: drill._remembered(settings(), repository, lambda _line: None),  # noqa: SLF001
    ):
        with pytest.raises(CannotLookError, match=told), audited("backup now"):
            tried()


def test_what_nobody_thought_of_is_no_finding(monkeypatch: pytest.MonkeyPatch) -> None:
    """To systemd, 1 is a job that has done its work."""
    monkeypatch.setattr(os, "geteuid", lambda: 1 // 0)
    result = CliRunner().invoke(main, ["backup", "list"])
    assert result.exit_code == 2
    assert "ZeroDivisionError" in result.output


def test_folder_that_cannot_be_made_is_told(tmp_path: Path, played: Path) -> None:
    """The unit of the timer may write to what was there, and to nothing else."""
    (played / "unlock").write_text("echo 'Fatal: unable to open config file' >&2; exit 10")
    (tmp_path / "disk").touch()
    repository = Repository(f"{tmp_path}/disk/backups/gatehouse")
    with pytest.raises(ProblemError, match=r"disk/backups cannot be made: .*deploy again"):
        backup_make.make(settings(), repository, lambda _line: None)
    assert "cannot be made" in backup_make.kept()["last"]["error"]


def test_disk_without_room_is_refused(tmp_path: Path) -> None:
    """It is said what is free, what is needed and which setting keeps room for others."""
    with pytest.raises(ProblemError, match=r"backup_reserve_mib\): make room; nothing was written"):
        backup_make.room([(tmp_path, 10**18)], 1024)
    backup_make.room([(tmp_path, 1)], 0)


def test_snapshot_is_named_by_the_begin_of_its_id(played: Path) -> None:
    """The newest regular one, or the one that is meant; never one that could be another."""
    rows = [
        ("aa11", "2026-01-01T00:00:00Z", "gatehouse"),
        ("aa22", "2026-01-02T00:00:00Z", "gatehouse"),
        ("bb33", "2026-01-03T00:00:00Z", "before-restore"),
        ("cc44", "2026-01-04T00:00:00Z", "photos"),
    ]
    parts = ",".join(
        f'{{"id":"{name}","short_id":"{name}","time":"{made}","tags":["{tag}"]}}'
        for name, made, tag in rows
    )
    (played / "snapshots").write_text(f"echo '[{parts}]'")
    repository = Repository("/srv/backups")
    assert repository.snapshot()["id"] == "aa22"
    assert repository.snapshot("bb")["id"] == "bb33"
    with pytest.raises(ProblemError, match="several snapshots begin with 'aa'"):
        repository.snapshot("aa")
    with pytest.raises(ProblemError, match="no snapshot begins with 'cc44'"):
        repository.snapshot("cc44")


def test_hosts_of_one_repository_are_told_apart(
    played: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Who took another's place does not try, forget or go back to what that one still makes."""
    monkeypatch.setattr(restic, "MACHINE_ID", tmp_path / "machine-id")
    with pytest.raises(CannotLookError, match="machine-id cannot be read"):
        restic.machine()
    (tmp_path / "machine-id").write_text("0123\n")
    mine = restic.machine()
    assert "0123" not in mine
    rows = [
        {"id": name, "time": f"2026-01-0{day}T02:00:00Z", "tags": tags}
        for day, (name, tags) in enumerate(
            {
                "old": ["gatehouse"],
                "before": ["gatehouse", "machine-other"],
                "own": ["gatehouse", mine],
                "since": ["gatehouse", "machine-other"],
            }.items(),
            start=1,
        )
    ]
    repository = Repository("/srv/backups")

    def there(*names: str) -> None:
        kept = [each for each in rows if each["id"] in names]
        (played / "snapshots").write_text(f"echo '{json.dumps(kept)}'")

    # A host that is new takes what there is, and forgets nothing.
    there("old", "before")
    assert repository.snapshot()["id"] == "before"
    with pytest.raises(CannotLookError, match="this host has made no snapshot there yet"):
        backup_make.others(repository)
    there("old", "before", "own", "since")
    assert repository.snapshot()["id"] == "own"
    assert [restic.of_another(each["tags"]) for each in repository.snapshots()] == [
        False,
        True,
        False,
        True,
    ]
    assert [each["id"] for each in backup_make.others(repository)] == ["old", "before", "since"]
    backup_make.prune(settings(), repository, "old", "since")
    calls = (played / "calls").read_text().splitlines()
    assert "forget old since" in calls
    assert calls.index("forget old since") < calls.index("prune")


@pytest.mark.parametrize("line", ["PATH=/tmp", "RESTIC_PASSWORD=x", "AWS_KEY", "AWS_KEY=", "=x"])
def test_only_restics_variables_are_taken(line: str) -> None:
    """Nothing else gets into its environment, and no value is repeated."""
    with pytest.raises(CannotLookError, match=r"line 1: .* none of restic's variables") as refused:
        restic.parse(line + "secret-value" * line.endswith("x"))
    assert "secret-value" not in str(refused.value)


def test_repository_holds_no_password() -> None:
    """Settings are read by more people than secrets are."""
    found = problems(backup_repository="rest:https://me:word@nas.example.com/x")
    assert "gatehouse backup credentials" in found["backup_repository"]
    assert "backup_repository" in problems(backup_repository="relative/path")
    settings(backup_repository="sftp:me@nas.example.com:/srv/backups")


def test_units_reach_no_farther_than_the_repository() -> None:
    """A local one needs no network; one elsewhere does; its folder can be written to."""
    unit = f"{timers.UNITS}/gatehouse-backup.service"
    local = timers.files(settings(backup_repository="/mnt/disk/backups"))[unit].content
    assert "\nIPAddressDeny=any\n" in local
    assert local.count("-/mnt/disk\n") == 1
    remote = timers.files(settings(backup_repository="s3:s3.example.com/bucket"))[unit].content
    assert "IPAddressDeny=any" not in remote
    assert unit not in timers.files(settings(backup_enabled=False))


def test_rows_that_are_missing_are_named() -> None:
    """As many as were noted, or it is said of which there are not."""
    assert drill.differing({"keys": 3, "spend": 40}, {"keys": 3, "spend": 40, "users": 1}) == ""
    assert drill.differing({"keys": 3, "spend": 40}, {"spend": 39}) == "0 keys of 3, 39 spend of 40"


def test_commands_are_for_root(monkeypatch: pytest.MonkeyPatch) -> None:
    """Others are told what to type."""
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    for words in (["now"], ["list"], ["verify"], ["prune"], ["password"], ["credentials"]):
        result = CliRunner().invoke(backup, words)
        assert result.exit_code == 2
        assert f"sudo gatehouse backup {words[0]}" in result.output
