"""The lock: one change at a time, and a message that says whose."""

import fcntl
import json
import math
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from gatehouse.deploys import lock as deploys_lock
from gatehouse.render.release import watch
from gatehouse.tool import lock
from gatehouse.tool.errors import ProblemError
from tests.waiting import wait_for


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Keep the lock in a folder of the test."""
    path = tmp_path / "run" / "deploy.lock"
    monkeypatch.setattr(lock, "FILE", path)
    monkeypatch.setattr(lock, "_PATIENCE_SECONDS", 0.3)
    return path


def test_file_says_who_holds_it(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who, from where, what, since when; and nothing once it is free."""
    monkeypatch.setenv("SUDO_USER", "ann")
    monkeypatch.setenv("GATEHOUSE_OPERATOR", "ann@laptop")
    with lock.held("backup now"):
        found = json.loads(file.read_text())
        assert found.pop("since")
        assert found == {
            "who": "ann",
            "from": "ann@laptop",
            "action": "backup now",
            "pid": os.getpid(),
        }
    assert file.read_text() == ""


def test_second_is_told_of_the_first(file: Path) -> None:
    """It does not wait for long, and changes nothing of what the file says."""
    with lock.held("rollback 0123"):
        before = file.read_text()
        with pytest.raises(ProblemError, match=r"`rollback 0123` by .* is under way"):
            lock.held("backup now").__enter__()
        assert file.read_text() == before
    with lock.held("backup now"):
        pass


def test_repository_is_waited_for(
    file: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A drill beside the daily backup says whom it waits for, and goes on when that is done."""
    monkeypatch.setattr(lock, "REPOSITORY", file.with_name("repository.lock"))
    events: list[str] = []

    def drill() -> None:
        with lock.repository("drill"):
            events.append("drill")

    waiter = threading.Thread(target=drill)
    with lock.repository("backup now"):
        waiter.start()
        said = ""

        def told() -> bool:
            nonlocal said
            said += capsys.readouterr().err
            return "up to an hour: `backup now` by" in said

        wait_for(told, 10, "the drill to say that it waits")
        events.append("backup")
    waiter.join()
    assert events == ["backup", "drill"]


def test_killed_holder_leaves_it_free(file: Path) -> None:
    """The kernel gives it back, whatever the file still says."""
    script = (
        "from pathlib import Path; from gatehouse.tool import lock; import signal;"
        f"lock.FILE = Path({str(file)!r});"
        "held = lock.held('restore'); held.__enter__(); print('held', flush=True); signal.pause()"
    )
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"
        try:
            with pytest.raises(ProblemError, match="`restore` by"):
                lock.held("backup now").__enter__()
        finally:
            holder.kill()
            holder.wait()
    assert "restore" in file.read_text()
    # Whoever waited for that end has it at once.
    with lock.held("backup now", patience_seconds=math.inf):
        assert "restore" not in file.read_text()


def test_short_look_does_not_refuse_anybody(file: Path) -> None:
    """Who only looks holds it for a moment; that is waited for."""
    file.parent.mkdir()
    with file.open("w") as looking:
        fcntl.flock(looking, fcntl.LOCK_SH)
        subprocess.Popen(["true"]).wait()
        fcntl.flock(looking, fcntl.LOCK_UN)
        with lock.held("backup now"):
            assert "backup now" in file.read_text()


@pytest.mark.parametrize("text", ["", "half a li", '{"who": "ann"}', "[]"])
def test_unreadable_line_is_still_a_holder(text: str) -> None:
    """What a full disk cut off is no reason to go on."""
    assert lock.refusal(text).startswith("another change is under way")


def test_watch_is_valid_shell() -> None:
    """Any shell can read the script that holds the lock of a deploy."""
    done = subprocess.run(["sh", "-n"], input=watch(), text=True, capture_output=True, check=False)
    assert not done.stderr


def watching(tmp_path: Path, anchor: int, silence: int) -> "subprocess.Popen[str]":
    """Start the script in a folder of the test, with a connection that ends at `anchor`."""
    place = tmp_path / "deploy-t0ken"
    place.mkdir()
    (place / "line").write_text('{"action": "deploy"}\n')
    script = watch().replace("/run/gatehouse", str(tmp_path))
    script = script.replace("/opt/gatehouse", str(tmp_path / "opt"))
    script = script.replace("/var/lib/gatehouse", str(tmp_path))
    stat = Path(f"/proc/{anchor}/stat").read_text() if anchor else ""
    born = stat.rsplit(")", 1)[1].split()[19] if anchor else ""
    started = subprocess.Popen(
        ["sh", "-c", script, "watch", "t0ken", "abc1", str(anchor), born, str(silence)],
        stderr=subprocess.PIPE,
        text=True,
    )
    wait_for((place / "beat").exists, 10, "the lock to be held")
    return started


def test_deploy_whose_connection_is_gone_is_given_up(tmp_path: Path) -> None:
    """At once, whatever the silence; what the deploy has left running is ended, and nothing else.

    Nor is the script of a package, which would leave the package half-installed.
    """
    ours = os.environ | {"GATEHOUSE_DEPLOY": "t0ken"}
    script = ours | {"DPKG_MAINTSCRIPT_PACKAGE": "docker.io"}
    with subprocess.Popen(["sleep", "60"]) as connection:
        left = subprocess.Popen(["sleep", "60"], env=ours)
        others = [
            subprocess.Popen(["sleep", "60"], env=environment)
            for environment in (os.environ | {"GATEHOUSE_DEPLOY": "another"}, script)
        ]
        watch_ = watching(tmp_path, connection.pid, 1000)
        assert watch_.poll() is None
        connection.kill()
        connection.wait()
        _, said = watch_.communicate(timeout=20)
        assert "the connection of the operator is gone" in said
        assert left.wait(timeout=5) == -signal.SIGKILL
        for other in others:
            assert other.poll() is None
            other.kill()
            other.wait()
    assert (tmp_path / "deploy.lock").read_text() == ""
    assert not (tmp_path / "deploy-t0ken").exists()


def test_deploy_that_says_nothing_is_given_up(tmp_path: Path) -> None:
    """Silence ends it, and its connection with it; a beat keeps it going."""
    connection = subprocess.Popen(["sleep", "60"])
    watch_ = watching(tmp_path, connection.pid, 2)
    beat = tmp_path / "deploy-t0ken" / "beat"
    now = float(Path("/proc/uptime").read_text().split()[0])
    beat.write_text(f"{now + 3:.0f}\n")
    with pytest.raises(subprocess.TimeoutExpired):
        watch_.communicate(timeout=4)
    _, said = watch_.communicate(timeout=20)
    assert "no sign of life for 2 s" in said
    # What was sent before a cut may still arrive; nobody must be there to do it.
    assert connection.wait(timeout=5) == -signal.SIGKILL
    assert "there is no good release to go back to" in said


def test_host_goes_back_when_it_is_told_to(tmp_path: Path) -> None:
    """The deploy says why; it gets the words and the exit code, and still has the lock."""
    python = tmp_path / "opt" / "venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text('#!/bin/sh\necho "$4 $5"; exit 1\n')
    python.chmod(0o755)
    (tmp_path / "opt" / "good").mkdir()
    watch_ = watching(tmp_path, 0, 60)
    try:
        assert (tmp_path / "deploying").read_text() == "abc1\n"
        ballast = tmp_path / "ballast"
        assert ballast.stat().st_blocks * 512 >= 64 * 2**20
        place = tmp_path / "deploy-t0ken"
        (place / "order").write_text("it failed")
        wait_for((place / "answer").exists, 10, "the way back")
        assert (place / "answer").read_text() == "1\n"
        assert (place / "said").read_text() == "abc1 it failed\n"
        assert watch_.poll() is None
    finally:
        watch_.kill()
        watch_.wait()


def test_no_new_keys_are_asked_for_in_the_middle_of_an_upload() -> None:
    """A heartbeat that ends in that moment would end the deploy; the images are a GiB or more."""
    assert 2**33 < deploys_lock.Packetizer.REKEY_BYTES <= 2**36
