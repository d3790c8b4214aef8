"""From one real LiteLLM to another, on a database with data, and back."""

import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from gatehouse.lab import images
from gatehouse.lab.common import ROOT
from gatehouse.lab.engine import engine
from gatehouse.lab.images import LabImages
from gatehouse.lab.progress import Progress
from gatehouse.lab.settings import overrides
from gatehouse.lab.workstation import Workstation
from tests.conftest import QUICK
from tests.deploying import SECONDS, deploy
from tests.gateway import Gateway, question, request
from tests.lab.conftest import containers, gateway_of
from tests.waiting import wait_for

COUNTS = "import json; from gatehouse.tool import dump; print(json.dumps(dump.counts()))"
# The test's own: they outlive the container that they were made in.
KEY = "sk-kept-through-an-upgrade"
REVOKED, BLOCKED = "sk-revoked-after-an-upgrade", "sk-blocked-after-an-upgrade"
NEW = "sk-made-after-an-upgrade"
RUNS = "docker inspect -f '{{.Config.Image}}' gatehouse-litellm-1"
LEDGER = (
    "docker exec gatehouse-postgres-1 psql -U litellm -d litellm -Atc "
    "'SELECT count(*) FROM _prisma_migrations WHERE finished_at IS NOT NULL'"
)


@dataclass(frozen=True)
class Older:
    """A workstation that runs an earlier LiteLLM; `newer` is the inventory with the later one."""

    workstation: Workstation
    gateway: Gateway
    image: str
    newer_image: str
    newer: Path

    def upgrade(self, *arguments: str, expect: int = 0) -> str:
        """Run `python -m gatehouse upgrade` as an operator does, and give what it printed."""
        done = subprocess.run(
            [
                sys.executable,
                "-m",
                "gatehouse",
                "upgrade",
                "--inventory",
                str(self.newer),
                *arguments,
            ],
            cwd=ROOT,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=SECONDS,
            check=False,
        )
        assert done.returncode == expect, done.stdout + done.stderr
        return done.stdout

    def counts(self) -> dict[str, int]:
        """Give the rows that must not be lost."""
        done = self.workstation.exec(["/opt/gatehouse/venv/bin/python", "-I", "-c", COUNTS])
        found: dict[str, int] = json.loads(done.stdout)
        return found

    def answers(self, key: str = KEY) -> int:
        """Give what a key gets: a status."""
        body = question("chat-priced-builtin", "hello")
        return self.gateway.ask("POST", "/v1/chat/completions", body, key).status

    def known(self) -> tuple[Any, ...]:
        """Give what the gateway itself says of the key and of the user."""
        key, user = self.gateway.all(
            request("GET", "/key/info", key=KEY), request("GET", "/user/info?user_id=alice")
        )
        assert (key.status, user.status) == (200, 200), (key.text, user.text)
        about = key.json()["info"]
        return about["key_alias"], about["user_id"], user.json()["user_info"]["user_email"]


@pytest.fixture(scope="module")
def older(lab_images: LabImages, archive: Path, progress: Progress) -> Iterator[Older]:
    """Provision a workstation with the earlier LiteLLM."""
    before = images.ensure_before(engine(progress), lab_images, progress)
    given = overrides(lab_images, archive) | QUICK
    with Workstation.start(
        "upgrade",
        image=lab_images.host,
        preload=lab_images,
        settings=given | {"litellm_image": before},
        progress=progress,
    ) as started:
        with progress.step(f"loading {before}"):
            subprocess.run(
                [
                    "sh",
                    "-c",
                    f"docker save {before} | docker exec -i {started.container} docker load",
                ],
                check=True,
                capture_output=True,
            )
        with progress.step("provisioning it"):
            deploy(started)
        newer = started.access.folder / "inventory-newer"
        text = started.access.inventory.read_text()
        assert before in text
        newer.write_text(text.replace(before, lab_images.litellm))
        yield Older(started, gateway_of(started), before, lab_images.litellm, newer)


def test_upgrade_keeps_everything_and_goes_back(older: Older) -> None:
    """Keys, users and spend survive it; a deploy of the older is refused; a rollback is not.

    Nor does that revive what was revoked or blocked in between.
    """
    station, gateway = older.workstation, older.gateway
    made = gateway.all(
        request("POST", "/user/new", {"user_id": "alice", "user_email": "alice@localhost"}),
        request("POST", "/team/new", {"team_id": "lab", "team_alias": "lab"}),
        request("POST", "/key/generate", {"key": KEY, "key_alias": "kept", "user_id": "alice"}),
        request("POST", "/key/generate", {"key": REVOKED, "key_alias": "revoked"}),
        request("POST", "/key/generate", {"key": BLOCKED, "key_alias": "blocked"}),
    )
    assert [each.status for each in made] == [200] * 5, made
    assert older.answers() == 200
    wait_for(lambda: older.counts()["spend"] > 0, 60, "the spend to be written")
    known = older.known()
    before, running = older.counts(), containers(station)
    ledger = int(station.exec(LEDGER).stdout)

    (seen,) = json.loads(older.upgrade("--preview", "--json")).values()
    assert (seen["now"], seen["then"]) == tuple(
        image.rpartition(":")[2].removeprefix("v") for image in (older.image, older.newer_image)
    )
    assert {each["service"] for each in seen["images"] if each["changes"]} == {"litellm"}
    pending: list[str] = seen["migrations"]["pending"]
    assert pending
    assert "1.108.0" in {each["version"] for each in seen["breaking"]}
    assert 0 < seen["downtime"]["seconds"] < seen["downtime"]["at_most_seconds"]
    assert seen["problems"] == []
    assert containers(station) == running

    older.upgrade("--apply", "--yes")
    assert station.exec(RUNS).stdout.strip() == older.newer_image
    assert int(station.exec(LEDGER).stdout) == ledger + len(pending)
    assert lost(before, older.counts()) == {}
    assert older.known() == known
    assert older.answers() == 200
    assert "nothing to upgrade" in older.upgrade("--preview")

    deploy_of_the_older_is_refused(older, pending)

    # What was asked and changed meanwhile is not lost on the way back.
    permission = {"object_permission": {"mcp_servers": ["lab"]}}
    changed = gateway.all(
        request("POST", "/key/delete", {"keys": [REVOKED]}),
        request("POST", "/key/block", {"key": BLOCKED}),
        request("POST", "/key/generate", {"key": NEW, "key_alias": "new", **permission}),
    )
    assert [each.status for each in changed] == [200] * 3, changed
    wait_for(lambda: older.counts()["spend"] > before["spend"], 60, "the spend to be written")
    newest = older.counts()
    station.exec("gatehouse rollback --database --yes")
    assert station.exec(RUNS).stdout.strip() == older.image
    assert int(station.exec(LEDGER).stdout) == ledger
    assert lost(newest, older.counts()) == {}
    assert older.known() == known
    assert [older.answers(key) for key in (KEY, NEW, REVOKED, BLOCKED)] == [200, 200, 401, 401]

    # And forward again: the newer release migrates the database as it is now.
    said = station.exec("gatehouse rollback --database --yes").stdout
    assert "the database stays" in said
    assert station.exec(RUNS).stdout.strip() == older.newer_image
    assert int(station.exec(LEDGER).stdout) == ledger + len(pending)
    assert older.known() == known
    assert [older.answers(key) for key in (KEY, NEW, REVOKED, BLOCKED)] == [200, 200, 401, 401]


def deploy_of_the_older_is_refused(older: Older, pending: list[str]) -> None:
    """Before anything is switched, also where somebody has taken the containers away."""
    station = older.workstation
    upgraded = containers(station)
    refused = deploy(station, expect=1)
    assert f"does not know {len(pending)} migrations that the database has" in refused.words
    assert "Release | Write the release" not in refused.words
    assert containers(station) == upgraded
    station.exec("cd /opt/gatehouse/current && docker compose down")
    refused = deploy(station, expect=1)
    assert f"whether {older.image} may take it over" in refused.words
    assert "Release | Write the release" not in refused.words
    # What served before has been put back, and with it who can say.
    assert station.exec(RUNS).stdout.strip() == older.newer_image
    told = station.exec(f"gatehouse upgrade --preview --to {older.image}", check=False)
    assert told.returncode == 1
    assert "gatehouse rollback --database" in told.stdout


def lost(before: dict[str, int], after: dict[str, int]) -> dict[str, Any]:
    """Give what there is less of than before."""
    return {name: (rows, after[name]) for name, rows in before.items() if after[name] < rows}
