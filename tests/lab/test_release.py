"""A release that cannot work is not left serving: the one before it goes on."""

import json
import re
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from gatehouse.lab.common import ROOT
from gatehouse.lab.workstation import Workstation
from tests.deploying import Deploy, deploy, settings_of
from tests.lab.conftest import containers, failing
from tests.lab.releases import (
    FILL,
    answers,
    begun,
    busy,
    current,
    nothing_lost,
    small_disk,
    under_way,
)
from tests.waiting import wait_for

# The same version but for the patch number, so that nothing but the image is at fault.
BROKEN = "gatehouse-lab/litellm:1.108.99"
# How it starts as the job that migrates ("$1" is --skip_server_startup), and how as the proxy.
IMAGE = """
cat >/tmp/entrypoint.sh <<'END'
#!/bin/sh
case "$*" in
*skip_server_startup*)
{job}
;;
*)
{proxy}
;;
esac
END
docker rm -f broken 2>/dev/null; chmod 755 /tmp/entrypoint.sh
docker create --name broken {litellm} && docker cp broken:/app/docker/prod_entrypoint.sh /tmp/good.sh
docker cp /tmp/good.sh broken:/app/docker/good.sh
docker cp /tmp/entrypoint.sh broken:/app/docker/prod_entrypoint.sh
docker commit broken {broken} && docker rm broken"""
GOOD = 'exec /bin/sh /app/docker/good.sh "$@"'
CRASHES = 'echo "broken on purpose" >&2; exit 3'
# It has changed the schema when it fails, in a way that the version before cannot live with.
HALF_WAY = """python3 - <<'PYTHON'
import asyncio, prisma
async def main():
    async with prisma.Prisma() as database:
        await database.execute_raw('DROP TABLE "LiteLLM_VerificationToken" CASCADE')
        await database.execute_raw('ALTER TABLE "LiteLLM_SpendLogs" DROP COLUMN "spend"')
asyncio.run(main())
PYTHON
echo "broken on purpose" >&2; exit 3"""
OTHER_POSTGRES = "gatehouse-lab/postgres:17-other"
OTHER = """
docker create --name other {first} && docker commit --change 'LABEL other=yes' other {other}
docker rm other"""
# A service that crashes at each start is not given all the time that a slow one gets.
SOON_SECONDS = 180
# Comes before the real one in a deploy's search path: the disk fills when LiteLLM is stopped.
DOCKER = "/usr/local/bin/docker"
FILLING = f"""#!/bin/sh
if [ "$*" = "stop gatehouse-litellm-1" ]; then
    {FILL}
    touch /run/filled
fi
exec /usr/bin/docker "$@"
"""
# Dies when it has switched, and nothing is restarted yet.
KILLED = """
gatehouse rollback --yes >/dev/null 2>&1 &
until [ "$(readlink /opt/gatehouse/current)" = /opt/gatehouse/releases/{release} ]; do
    kill -0 $! || exit 1
done
kill -KILL $!"""
# Whoever waits for the lock is gone, too, and a container that was stopped stays so.
POWER_CUT = """
systemctl kill --signal KILL gatehouse-rollback-back.service
docker stop gatehouse-litellm-1 gatehouse-redis-1"""
PYINFRA = Path(sys.executable).with_name("pyinfra")
# What each deploy that goes wrong changes, so that it has something to switch.
SMALL = {"redis_maxmemory_mib": 128}
PROXY = {"litellm_cooldown_seconds": 31}


@pytest.fixture(scope="module", autouse=True)
def settled(workstation: Workstation) -> None:
    """Have a good release of these very sources, which a workstation that is kept may lack."""
    deploy(workstation)


@pytest.fixture(params=[(HALF_WAY, GOOD), (GOOD, CRASHES)], ids=["migration", "proxy"])
def broken(request: pytest.FixtureRequest, workstation: Workstation) -> Iterator[dict[str, object]]:
    """Give the settings of a release with an image that cannot work."""
    images, (job, proxy) = settings_of(workstation), request.param
    script = IMAGE.format(litellm=images["litellm_image"], broken=BROKEN, job=job, proxy=proxy)
    workstation.exec(script)
    yield {"litellm_image": BROKEN}
    workstation.exec(f"docker rmi --force {BROKEN}", check=False)


def logged(workstation: Workstation, action: str = "deploy") -> list[dict[str, Any]]:
    """Give an action's lines of the audit log."""
    entries = json.loads(workstation.exec("gatehouse log --json -n 1000").stdout)["entries"]
    return [entry for entry in entries if entry["action"] == action]


def results(workstation: Workstation) -> dict[str, str]:
    """Give release → how it fared."""
    found = json.loads(workstation.exec("gatehouse releases --json").stdout)["releases"]
    return {each["id"]: each["result"] for each in found}


def test_broken_release_gives_way_to_the_last_good_one(
    workstation: Workstation, broken: dict[str, object]
) -> None:
    """The deploy fails, says what the service said, and the gateway serves as before it.

    Also where a migration has destroyed what the release before needs.
    """
    with nothing_lost(workstation) as before:
        failed = deploy(workstation, settings=broken, expect=1)
        assert "Its last lines:" in failed.words
        assert "broken on purpose" in failed.words
        assert f"release {before.release} serves again" in failed.words
        assert failed.seconds < SOON_SECONDS * busy()
        assert answers(workstation)
    assert logged(workstation)[-1]["result"] == "failed"
    assert "LiteLLM | " in logged(workstation)[-1]["details"]["step"]
    assert logged(workstation, "way back")[-1]["details"]["release"] == before.release
    assert results(workstation)[before.release] == "good"
    assert "bad" in results(workstation).values()
    # Not healed by another deploy: the way back has made everything good.
    assert failing(workstation) == []
    assert deploy(workstation).changed == []


def test_invalid_configuration_is_never_switched_to(workstation: Workstation) -> None:
    """LiteLLM's own look at it fails in the new release; what runs is not touched."""
    wrong = {"name": "chat-wrong-builtin", "backend": "no_such_provider/x", "api_base": None}
    running = containers(workstation)
    with nothing_lost(workstation):
        failed = deploy(
            workstation, settings={"deploy_validate": True, "models_extra": [wrong]}, expect=1
        )
        assert "having LiteLLM read its configuration: failed" in failed.words
        assert "You passed model=no_such_provider/x" in failed.words
    assert containers(workstation) == running


@pytest.mark.parametrize(
    ("operation", "change"),
    [
        ("Release | Write the release", SMALL),
        ("Release | Make it the current one", SMALL),
        ("Redis | Have it healthy", SMALL),
        ("LiteLLM | Have it healthy", PROXY),
        ("Health | Check the gateway", PROXY),
    ],
)
def test_killed_deploy_is_taken_back_by_the_host(
    workstation: Workstation, operation: str, change: dict[str, object]
) -> None:
    """Nobody deploys again: the host itself notices, goes back, and frees the lock."""
    with nothing_lost(workstation) as before:
        deploy(workstation, settings=change, kill_when=begun(operation))
        before.wrong = time.monotonic()
    (line,) = logged(workstation, "way back")[-1:]
    assert line["details"]["reason"] == "the connection of the operator is gone"
    assert failing(workstation) == []


def test_deploy_whose_connection_is_cut_is_taken_back(workstation: Workstation) -> None:
    """Nobody says goodbye: the silence is noticed, and the operator is told when he is back."""
    block = "INPUT -p tcp --dport 22 -j DROP"
    cut: list[float] = []

    def watch(log: str) -> bool:
        if not cut and begun("LiteLLM | Have it healthy")(log):
            workstation.exec(f"iptables -I {block}")
            cut.append(time.monotonic())
        if cut and not under_way(workstation):
            workstation.exec(f"iptables -D {block}", check=False)
        return False

    try:
        with nothing_lost(workstation) as before:
            change = {**PROXY, "deploy_silence_seconds": 10}
            # It ends by itself, and `kill_when` is for those that do not.
            with pytest.raises(AssertionError, match="before it could be killed"):
                deploy(workstation, settings=change, kill_when=watch)
            before.wrong = cut[0]
    finally:
        workstation.exec(f"iptables -D {block}", check=False)
    assert cut
    (line,) = logged(workstation, "way back")[-1:]
    assert line["details"]["reason"] == "no sign of life for 10 s"
    assert failing(workstation) == []


def test_disk_that_fills_while_the_release_is_written(workstation: Workstation) -> None:
    """One disk for all that a deploy writes: the settings come back, and nothing half is left."""
    filled: list[float] = []

    def fill(log: str) -> None:
        # After the settings, and many operations before the release.
        if not filled and begun("Firewall | ")(log):
            filled.append(time.monotonic())
            workstation.exec(FILL)

    # One that no other test has left behind: what is there already is not written.
    new = {"litellm_cooldown_seconds": 100 + int(time.time()) % 500}
    running = containers(workstation)
    with nothing_lost(workstation) as before:
        placed = ("/opt/gatehouse", "/etc/gatehouse", "/var/lib/gatehouse")
        listed = "cd /opt/gatehouse/releases && ls -A; sha256sum /etc/gatehouse/settings.json"
        expected = workstation.exec(listed).stdout
        with small_disk(workstation, *placed):
            failed = deploy(workstation, settings=new, meanwhile=fill, expect=1)
            before.wrong = filled[0]
            assert "Release | Write the release" in failed.words
            assert "the disk of /opt/gatehouse/releases is full" in failed.words
            assert f"release {before.release} serves again" in failed.words
            assert "Traceback" not in failed.words
            assert workstation.exec(listed).stdout == expected
            assert current(workstation) == before.release
            assert answers(workstation)
            assert logged(workstation, "way back")[-1]["result"] == "ok"
    assert containers(workstation) == running
    assert failing(workstation) == []


def test_disk_that_fills_while_the_database_is_dumped(workstation: Workstation) -> None:
    """LiteLLM is stopped for the migration by then: it runs again, on the database as it was."""
    with nothing_lost(workstation) as before:
        # The job that migrates is missed: it has to run again.
        workstation.exec("docker rm gatehouse-litellm-migrate-1")
        with small_disk(workstation, "/var/lib/gatehouse"):
            workstation.exec(f"cat >{DOCKER} && chmod 755 {DOCKER}", text=FILLING)
            try:
                failed = deploy(workstation, settings=PROXY, expect=1)
            finally:
                workstation.exec(f"rm {DOCKER}")
            age = "echo $(($(date +%s) - $(stat -c %Y /run/filled))); rm /run/filled"
            before.wrong = time.monotonic() - int(workstation.exec(age).stdout)
            assert "LiteLLM | Dump the database" in failed.words
            assert "no space left on device" in failed.words.lower()
            assert "free on the disk of /var/lib/gatehouse/snapshots/" in failed.words
            assert f"release {before.release} serves again" in failed.words
            assert current(workstation) == before.release
            assert answers(workstation)
            left = workstation.exec("ls -A /var/lib/gatehouse/snapshots").stdout.split()
            assert [name for name in left if name.endswith(".part")] == []
    assert failing(workstation) == []
    assert deploy(workstation).changed == []


def test_second_deploy_is_told_of_the_first(workstation: Workstation) -> None:
    """It changes nothing and names who is at work; the first one ends as it would have.

    Then the way back by hand: the release before serves again, and every check holds.
    """
    before = current(workstation)
    first: list[Deploy] = []
    # One that takes its time: the second has to come before it is done.
    slow = SMALL | PROXY
    thread = threading.Thread(target=lambda: first.append(deploy(workstation, settings=slow)))
    thread.start()
    try:
        wait_for(lambda: under_way(workstation), 120, "the first deploy to have the lock")
        second = subprocess.run(
            [PYINFRA, workstation.access.inventory, "deploy.py", "-y"],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=False,
        )
    finally:
        thread.join()
    assert second.returncode == 1
    said = " ".join(second.stderr.split())
    assert "is under way on this host, nothing was touched" in said
    assert re.search(r"`deploy of [0-9a-f]{12}` by \S+@\S+, since", said)
    assert [deploy.code for deploy in first] == [0]
    assert current(workstation) != before
    difference = workstation.exec(f"gatehouse diff {before}").stdout.splitlines()
    assert "+maxmemory 128mb" in difference
    assert workstation.exec("gatehouse rollback </dev/null", check=False).returncode == 2
    done = workstation.exec("gatehouse rollback --yes").stdout
    assert f"release {before} serves, and every check holds" in done
    assert current(workstation) == current(workstation, "good") == before
    assert logged(workstation, f"rollback {before}")[-1]["result"] == "ok"
    assert deploy(workstation).changed == []


@pytest.mark.parametrize("after", ["kill", "power cut"])
def test_rollback_that_is_killed_is_finished_by_the_host(
    workstation: Workstation, after: str
) -> None:
    """Between the switch and its end nobody is left, but one release serves, whole, and is good."""
    before = current(workstation)
    deploy(workstation, settings=SMALL)
    newer = current(workstation)
    try:
        workstation.exec(KILLED.format(release=before))
        assert current(workstation, "good") == newer
        if after == "power cut":
            workstation.exec(POWER_CUT)
            assert current(workstation, "good") == newer
            workstation.exec("systemctl start gatehouse-back.service")
        wait_for(lambda: current(workstation, "good") == before, 120, "the rollback to be finished")
        workstation.exec("test ! -e /var/lib/gatehouse/rollback")
        assert current(workstation) == before
        assert logged(workstation, "way back")[-1]["details"]["release"] == before
        assert {results(workstation)[release] for release in (before, newer)} == {"good"}
        assert failing(workstation) == []
    finally:
        assert deploy(workstation).changed == []


def test_database_outlives_another_image_of_its_server(workstation: Workstation) -> None:
    """There and back by hand; then the first image goes with the releases that had it."""
    first = settings_of(workstation)["postgres_image"]
    runs = "docker inspect -f '{{.Config.Image}}' gatehouse-postgres-1"
    workstation.exec(OTHER.format(first=first, other=OTHER_POSTGRES))
    other = {"postgres_image": OTHER_POSTGRES}
    try:
        with nothing_lost(workstation) as before:
            deploy(workstation, settings=other)
            newer = current(workstation)
            assert newer != before.release
            assert workstation.exec(runs).stdout.strip() == OTHER_POSTGRES
            # Nothing goes back by itself from one server to another: the dump is for a person.
            dumped = workstation.exec("ls /var/lib/gatehouse/snapshots").stdout.split()
            assert {f"{newer}.dump", f"{newer}.json"} <= set(dumped)
            assert answers(workstation)
            assert f"{OTHER_POSTGRES} becomes {first}" in (
                workstation.exec("gatehouse rollback --yes").stdout
            )
            assert workstation.exec(runs).stdout.strip() == first
        deploy(workstation, settings=other)
        two = other | SMALL | {"deploy_releases": 2}
        deploy(workstation, settings=two)
        assert set(results(workstation)) == {newer, current(workstation)}
        have = f"docker image inspect {first} {OTHER_POSTGRES}"
        assert workstation.exec(have, check=False).stderr.strip().endswith(first)
        assert failing(workstation, **two) == []
    finally:
        # Brings the first image back, from the archive.
        deploy(workstation)
        workstation.exec(f"docker rmi {OTHER_POSTGRES}", check=False)
    assert workstation.exec(runs).stdout.strip() == first
    assert failing(workstation) == []


def test_deploy_brings_back_what_was_taken_down(workstation: Workstation) -> None:
    """`docker compose down` takes the containers and leaves the data; nothing speaks against it."""
    with nothing_lost(workstation):
        workstation.exec("cd /opt/gatehouse/current && docker compose down")
        assert "going back" not in deploy(workstation).words
    assert failing(workstation) == []


def test_tag_that_has_moved_is_taken_back(workstation: Workstation) -> None:
    """The very same release with another image under a name: the way back has the first one."""
    name = settings_of(workstation)["redis_image"]
    means = f"docker image inspect -f '{{{{.Id}}}}' {name}"
    runs = "docker inspect -f '{{.Image}}' gatehouse-redis-1"
    first = workstation.exec(means).stdout
    workstation.exec(
        f"docker create --name moved {name} && "
        f"docker commit --change 'ENV PATH=/nowhere' moved {name} && docker rm moved"
    )
    try:
        with nothing_lost(workstation) as before:
            failed = deploy(workstation, expect=1)
            assert f"release {before.release} serves again" in failed.words
            assert workstation.exec(runs).stdout == workstation.exec(means).stdout == first
    finally:
        workstation.exec(f"docker tag {first.strip()} {name}")
    assert results(workstation)[before.release] == "good"
    assert failing(workstation) == []
    assert deploy(workstation).changed == []


def test_boot_after_a_power_cut_goes_back(workstation: Workstation) -> None:
    """What a deploy wrote when it began is found at the boot."""
    before = current(workstation)
    others = [release for release in results(workstation) if release != before]
    cut_off = f"""
ln -sfn /opt/gatehouse/releases/{others[-1]} /opt/gatehouse/current
echo {others[-1]} >/var/lib/gatehouse/deploying"""
    workstation.exec(cut_off)
    workstation.exec("systemctl start gatehouse-back.service")
    assert current(workstation) == before
    assert workstation.exec("ls /var/lib/gatehouse/deploying", check=False).returncode != 0
    (line,) = logged(workstation, "way back")[-1:]
    assert line["details"]["given_up"] == others[-1]
    assert "switched off" in line["details"]["reason"]
    assert failing(workstation) == []
