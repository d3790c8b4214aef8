"""Upgrades: what a preview says of what was found, and what it forbids."""

import json
import subprocess
from contextlib import nullcontext
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from click.testing import CliRunner

from gatehouse.deploys.upgrade import same
from gatehouse.probes import upgrade as probe
from gatehouse.settings.version import Version
from gatehouse.tool import dump, here, restore_make, upgrade
from gatehouse.tool.__main__ import main as tool
from gatehouse.tool.errors import CannotLookError, ProblemError
from gatehouse.tool.restic import Repository
from gatehouse.tool.restore_make import Plan
from gatehouse.upgrade import BREAKING, breaking, preview, refused, targets, with_version
from tests.given import ROOT, run, settings

NAME = "ghcr.io/berriai/litellm-non_root"
OLD, NEW = f"{NAME}:v1.106.10", f"{NAME}:v1.108.12"
S = settings()
# Knows images and containers by files of their names, and volumes by one.
DOCKER = """#!/bin/sh
folder=$(dirname "$0")
case "$1 $2" in
"image inspect") name=$(printf %s "$5" | sed 's,:,%3A,g; s,/,%2F,g') ;;
"volume inspect") name=volume ;;
*) name=${4#gatehouse-}; name=${name%-1} ;;
esac
cat "$folder/$name" 2>/dev/null
"""


def image(number: str, *digests: str) -> dict[str, Any]:
    """Give an image as the probe shows it."""
    return {"id": f"sha256:{number}", "digests": [f"{NAME}@sha256:{each}" for each in digests]}


def found(**changes: Any) -> dict[str, Any]:  # noqa: ANN401 - any part of the document
    """Give what the probe found on a host that runs the old LiteLLM."""
    running = {
        service: {"reference": reference, **image(service)}
        for service, reference in targets(S).items()
    }
    running["litellm"] = {"reference": OLD, **image("old", "aaa")}
    return {
        "running": running,
        "targets": {
            S.postgres_image: image("postgres"),
            S.redis_image: image("redis"),
            NEW: image("new", "bbb"),
        },
        "shipped": ["1_first", "2_second and third", "3_new"],
        "database": {"done": ["1_first", "2_second and third"], "failed": []},
        "server": {"data": {"major": "16"}, "image": {"major": "16"}},
        "releases": {each: {**targets(S), "litellm": OLD} for each in ("current", "good")},
        "starts": [
            {"service": "litellm", "seconds": seconds, "image": OLD, "at": 0}
            for seconds in (200, 10, 40, 20, 20, 20)
        ]
        + [{"service": "litellm-migrate", "seconds": 7, "image": OLD, "at": 0}] * 5,
        "errors": {},
    } | changes


def test_preview_says_what_changes() -> None:
    """Images with their digests, the one migration, and the longest of the last starts of both."""
    seen = preview(S, found())
    assert (seen.now, seen.then, seen.newer) == ("1.106.10", "1.108.12", True)
    assert {each.service: each.changes for each in seen.images} == {
        "postgres": False,
        "redis": False,
        "litellm": True,
    }
    (mine,) = (each for each in seen.images if each.service == "litellm")
    assert (mine.now_digest, mine.then_digest) == ("sha256:aaa", "sha256:bbb")
    assert seen.migrations.pending == ["3_new"]
    assert seen.downtime.seconds == 47
    assert seen.downtime.at_most_seconds == 2 * S.litellm_start_timeout_seconds
    assert seen.downtime.measured == 5
    assert seen.problems == []
    assert seen.changes


def test_same_version_changes_nothing() -> None:
    """With the image that runs and no migration left there is nothing to do, and no downtime."""
    same = found(shipped=["1_first", "2_second and third"])
    same["running"]["litellm"] = {"reference": NEW, **image("new", "bbb")}
    seen = preview(S, same)
    assert not seen.changes
    assert seen.downtime.seconds == 0
    assert seen.breaking == []


def test_replaced_tag_is_a_change() -> None:
    """The same reference that means another image by now is a change."""
    moved = found()
    moved["running"]["litellm"] = {"reference": NEW, **image("before", "aaa")}
    assert {each.service for each in preview(S, moved).images if each.changes} == {"litellm"}


def test_image_that_is_not_there_leaves_migrations_open() -> None:
    """Without the image nobody knows its migrations; a newer version may still be asked for."""
    without = found(errors={"shipped": f"OSError: {NEW} is not on this host"})
    del without["shipped"]
    without["targets"][NEW] = None
    seen = preview(S, without)
    assert seen.migrations.pending is None
    assert seen.migrations.why == f"{NEW} is not on this host"
    assert seen.problems == []
    assert refused(S, without) is None


def test_older_image_than_the_database_is_refused() -> None:
    """What the database has and the image does not know forbids it, and says how to go back."""
    newer = found(database={"done": ["1_first", "4_other", "5_more"], "failed": []})
    (problem,) = preview(S, newer).problems
    assert "does not know 2 migrations that the database has (4_other …)" in problem
    assert "gatehouse rollback" in problem
    assert refused(S, newer) == problem


def test_server_that_cannot_read_the_data_is_refused() -> None:
    """Another major version opens nothing, another C library sorts otherwise; who says nothing may."""
    alpine, debian = {"library": "musl (Alpine)"}, {"library": "glibc (Debian)"}
    data = {"major": "16", **alpine}

    def problem(image: dict[str, str]) -> str | None:
        seen = found(server={"data": data, "image": image})
        told = refused(S, seen)
        assert preview(S, seen).problems == ([told] if told else [])
        return told

    assert problem({"major": "16", **alpine}) is None
    assert problem({"major": "16"}) is None
    assert problem({}) is None
    other = problem({"major": "17", **alpine})
    assert other is not None
    assert "is PostgreSQL 17, the data are of 16" in other
    sorted_otherwise = problem({"major": "16", **debian})
    assert sorted_otherwise is not None
    assert "sorts texts as glibc (Debian) does" in sorted_otherwise
    assert "docs/upgrade.md" in other
    assert "docs/upgrade.md" in sorted_otherwise


def test_image_says_what_it_is() -> None:
    """The official images' environment, of both kinds; another one may say nothing."""
    alpine = ["PATH=/usr/bin", "PG_MAJOR=16", "PG_VERSION=16.9", "PGDATA=/x"]
    assert probe.said(alpine) == {"major": "16", "library": "musl (Alpine)"}
    debian = ["PG_MAJOR=17", "PG_VERSION=17.6-1.pgdg13+1"]
    assert probe.said(debian) == {"major": "17", "library": "glibc (Debian)"}
    packaged = ["PG_MAJOR=17", "PG_VERSION=17", "PATH=/usr/bin:/usr/lib/postgresql/17/bin"]
    assert probe.said(packaged) == {"major": "17", "library": "glibc (Debian)"}
    assert probe.said(["PATH=/usr/bin"]) == {}


@pytest.mark.parametrize(
    ("started", "library"),
    [
        ('/usr/local/bin/postgres "-c" "max_connections=50"\n', {"library": "musl (Alpine)"}),
        ("/usr/lib/postgresql/16/bin/postgres\n", {"library": "glibc (Debian)"}),
        ("/opt/other/bin/postgres\n", {}),
        ("", {}),
        (None, {}),
    ],
)
def test_data_say_what_they_were_sorted_by(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, started: str | None, library: dict[str, str]
) -> None:
    """What the last server wrote into them outlives its container."""
    image = {"Id": "sha256:1", "Config": {"Env": ["PG_MAJOR=17", "PG_VERSION=17.6-1.pgdg13+1"]}}
    volume = {"Name": probe.VOLUME, "Mountpoint": str(tmp_path)}
    other = {"Name": f"other_{probe.VOLUME}", "Mountpoint": "/nowhere"}
    answers = {"/images": image, "/volumes": {"Volumes": [other, volume]}, "/containers": []}

    def docker(path: str) -> bytes:
        return json.dumps(next(answers[each] for each in answers if path.startswith(each))).encode()

    monkeypatch.setattr(probe, "docker", docker)
    monkeypatch.setattr("gatehouse.probes.common.docker", docker)
    # A server that was killed before it had made any.
    assert probe.server("x")["data"] == {}
    (tmp_path / "PG_VERSION").write_text("16\n")
    if started is not None:
        (tmp_path / "postmaster.opts").write_text(started)
    assert probe.server("x") == {
        "data": {"major": "16", **library},
        "image": {"major": "17", "library": "glibc (Debian)"},
    }
    answers["/volumes"] = {"Volumes": None}
    assert probe.server("x")["data"] == {}


@pytest.mark.parametrize(
    ("there", "asked"),
    [
        ({}, False),
        ({"volume": "x"}, True),
        ({"volume": "x", "litellm": "new", "postgres": "16"}, False),
        ({"volume": "x", "litellm": "old", "postgres": "16"}, True),
        ({"volume": "x", "litellm": "new", "postgres": "17"}, True),
        ({"volume": "x", "litellm": "new"}, True),
        ({"volume": "x", "postgres": "16"}, True),
        ({"litellm": "old"}, True),
    ],
    ids=lambda value: " ".join(value) or "nothing" if isinstance(value, dict) else "",
)
def test_database_is_asked_unless_the_same_images_run(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, there: dict[str, str], *, asked: bool
) -> None:
    """Containers that somebody has removed are no sign that nothing has changed."""
    docker = tmp_path / "docker"
    docker.write_text(DOCKER)
    docker.chmod(0o755)
    for name, content in {NEW: "new", S.postgres_image: "16", **there}.items():
        (tmp_path / quote(name, safe="")).write_text(content)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    done = subprocess.run(["sh", "-c", same(S)], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (int(asked), "", "")


def test_other_image_is_refused_where_the_database_does_not_answer() -> None:
    """After `docker compose down` nobody can compare: it is to be started; the same images may."""
    down = found(running={}, errors={"database": "OSError: No such container"})
    del down["database"]
    problem = refused(S, down)
    assert problem is not None
    assert f"whether {NEW} may take it over" in problem
    assert "does not answer (No such container)" in problem
    assert "docker compose up --detach postgres" in problem
    assert preview(S, down).problems == [problem]
    same = settings(litellm_image=OLD)
    assert refused(same, down) is None
    other = refused(settings(litellm_image=OLD, postgres_image="postgres:16.9-alpine"), down)
    assert other is not None
    assert "whether postgres:16.9-alpine may take it over" in other
    # A first deploy that has failed is mended by the next, whatever it has left.
    assert refused(S, {**down, "releases": {"current": targets(S)}}) is None


def test_older_image_is_refused_without_containers_too() -> None:
    """The release says what would run."""
    back = settings(litellm_image=f"{NAME}:v1.106.9")
    silent = found(running={}, errors={"shipped": "OSError: it shows no migrations"})
    del silent["shipped"]
    assert "1.106.9 is older than 1.106.10" in str(refused(back, silent))


def test_host_without_an_answer_is_refused() -> None:
    """Who could not be asked has not agreed."""
    for answer in ({"errors": {"server": "the host gave no answer"}}, {"errors": {}}):
        assert "cannot be known (the host gave no answer)" in str(refused(S, answer))


def test_older_version_is_refused_where_its_migrations_cannot_be_known() -> None:
    """A lower number is enough to refuse when nobody can compare."""
    back = settings(litellm_image=f"{NAME}:v1.106.9")
    without = found(errors={"shipped": "OSError: no answer"})
    del without["shipped"]
    (problem,) = preview(back, without).problems
    assert "1.106.9 is older than 1.106.10" in problem
    assert "no answer" in problem


def test_older_version_that_knows_the_database_is_allowed() -> None:
    """The database decides, not the number."""
    back = settings(litellm_image=f"{NAME}:v1.106.9")
    known = found(shipped=["1_first", "2_second and third"])
    assert preview(back, known).problems == []


def test_failed_migration_forbids_an_upgrade() -> None:
    """What has failed before is mended first; a deploy that mends it is not kept from doing so."""
    broken = found(database={"done": ["1_first"], "failed": ["2_second and third"]})
    (problem,) = preview(S, broken).problems
    assert "1 migrations have failed before (2_second and third)" in problem
    assert refused(S, broken) is None


def test_refused_version_is_a_problem() -> None:
    """A host whose settings were valid once may name a version that is refused by now."""
    bad = S.model_copy(update={"litellm_image": f"{NAME}:v1.107.0"})
    assert "withdrew trust" in " ".join(preview(bad, found()).problems)


@pytest.mark.parametrize(
    ("now", "then", "versions"),
    [
        ((1, 106, 10), (1, 108, 12), {"1.108.0"}),
        ((1, 103, 8), (1, 109, 1), {"1.105.0", "1.108.0", "1.109.0"}),
        ((1, 90, 0), (1, 103, 0), {"1.98.0", "1.103.0"}),
        ((1, 108, 0), (1, 108, 12), set()),
        ((1, 108, 12), (1, 106, 10), set()),
        (None, (1, 108, 12), set()),
    ],
)
def test_breaking_changes_are_those_on_the_way(
    now: Version | None, then: Version | None, versions: set[str]
) -> None:
    """What came after the one version, up to the other; nothing on the way down."""
    assert {each.version for each in breaking(now, then, S)} == versions


def test_every_breaking_change_says_what_it_means_here() -> None:
    """Each has words for the shipped settings."""
    assert len(breaking((0, 0, 0), (9, 0, 0), S)) == len(BREAKING)
    assert all(len(each.here) > 6 for each in breaking((0, 0, 0), (9, 0, 0), S))


@pytest.mark.parametrize(
    ("changes", "version", "words"),
    [
        ({"litellm_config_source": "database"}, "1.103.0", "look at Settings there"),
        (
            {"keys_declared": [{"alias": "ci", "budget": 0.0}]},
            "1.103.0",
            "budget = 0 of ci means",
        ),
        ({"keys_teams": [{"name": "lab"}]}, "1.103.0", "1 declared teams"),
        (
            {"keys_declared": [{"alias": "ci", "models": ["chat-default"]}]},
            "1.109.0",
            "ci may ask some models only",
        ),
    ],
)
def test_breaking_change_is_told_for_these_settings(
    changes: dict[str, Any], version: str, words: str
) -> None:
    """Where the operator's own settings are touched, they are named; with others they are not."""

    def told(given: dict[str, Any]) -> str:
        known = breaking((0, 0, 0), (9, 0, 0), settings(**given))
        return " ".join(each.here for each in known if each.version == version)

    assert words in told(changes)
    assert words not in told({})


@pytest.mark.parametrize(
    ("image", "version", "expected"),
    [
        (f"{NAME}:v1.108.12", "1.109.0", f"{NAME}:v1.109.0"),
        (f"{NAME}:v1.108.12@sha256:1", "v1.109.0", f"{NAME}:v1.109.0"),
        ("localhost:5000/x:1.108.12", "1.109.0", "localhost:5000/x:1.109.0"),
        ("localhost:5000/x:1.108.12", "other/y:2.0.0", "other/y:2.0.0"),
    ],
)
def test_version_is_put_into_the_image(image: str, version: str, expected: str) -> None:
    """The name stays, the tag is written as it was, and a digest of another version goes."""
    assert with_version(image, version) == expected


@pytest.mark.parametrize("version", ["latest", "1.108", "", "-1"])
def test_what_is_no_version_is_refused(version: str) -> None:
    """A word that is no version is said to be none."""
    with pytest.raises(CannotLookError, match="neither a version"):
        upgrade.wanted(S, version)


@pytest.mark.parametrize(
    "output", ["", "Traceback", '{"errors": {"running": "OSError: no Docker"}}']
)
def test_no_answer_is_no_statement(output: str) -> None:
    """Where nobody answered, that is said, and nothing is made of it."""
    with pytest.raises(CannotLookError):
        upgrade.read(output)


@pytest.mark.parametrize(
    ("done", "refused"),
    [(["1_first"], False), (["1_first", "2_second", "3_new", "4_newer"], True)],
    ids=["older", "newer"],
)
def test_database_of_a_newer_litellm_is_not_restored(
    monkeypatch: pytest.MonkeyPatch, done: list[str], *, refused: bool
) -> None:
    """It is loaded beside the one that serves; the image that runs must know all that it has."""
    monkeypatch.setattr(upgrade.stack, "docker", lambda *_: f"{OLD} sha256:old\n")
    monkeypatch.setattr(upgrade, "shipped", {"sha256:old": ["1_first", "2_second"]}.__getitem__)
    monkeypatch.setattr(
        dump, "_sql", lambda _sql, _server, name: json.dumps({"beside": done}[name])
    )
    if not refused:
        upgrade.refuse_newer("beside")
        return
    with pytest.raises(ProblemError) as told:
        upgrade.refuse_newer("beside")
    assert f"{OLD} does not know 2 migrations that it has (3_new …)" in told.value.message
    assert "litellm_image" in told.value.message


def test_restore_of_a_newer_database_is_not_begun(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is refused before anything is stopped, where another LiteLLM made the snapshot."""
    told: list[str] = []

    def refuse(database: str) -> None:
        told.append(f"looked at {database}")
        raise ProblemError("newer")

    def begin(_: object) -> None:
        told.append("begun")
        raise ProblemError("enough")

    monkeypatch.setattr(restore_make.restore_back, "refuse", lambda: None)
    monkeypatch.setattr(restore_make.restore_back, "begin", begin)
    monkeypatch.setattr(restore_make.dump, "forget", lambda: None)
    monkeypatch.setattr(restore_make.dump, "beside", lambda: nullcontext("beside"))
    monkeypatch.setattr(restore_make, "unpack", lambda *_: {})
    monkeypatch.setattr(upgrade, "refuse_newer", refuse)
    for migrate, expected in ((True, ["looked at beside"]), (False, ["begun"])):
        plan = Plan("aa11", {}, all_secrets=False, folders=False, migrate=migrate)
        with pytest.raises(ProblemError):
            restore_make.carry_out(S, Repository("/srv/backups"), plan, lambda _: None, None)
        assert told == expected
        told.clear()


def test_image_that_shows_no_migrations_keeps_nobody_from_a_restore(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Some build their own; the restore has its way back."""

    def silent(_: str) -> list[str]:
        raise OSError("it shows no migrations")

    monkeypatch.setattr(upgrade.stack, "docker", lambda *_: f"{OLD} sha256:old\n")
    monkeypatch.setattr(upgrade, "shipped", silent)
    upgrade.refuse_newer("beside")


def test_preview_is_shown_to_people(capsys: pytest.CaptureFixture[str]) -> None:
    """A person reads versions, digests, the migration's name, what breaks, and for how long."""
    upgrade.show(preview(S, found()), "box")
    shown = capsys.readouterr().out
    for words in (
        "box",
        "LiteLLM 1.106.10 → 1.108.12",
        f"{NAME}:v1.108.12 sha256:bbb",
        "1 would run",
        "3_new",
        "#48943",
        "about 47 s (the longest of 5 measured starts)",
    ):
        assert words in shown


def test_host_upgrades_nothing_by_itself(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Without the checkout there is nothing to deploy: it says where to do it."""
    monkeypatch.chdir(tmp_path)
    for word in ("--apply", "--preview"):
        asked = CliRunner().invoke(tool, ["upgrade", word, "--fetch"])
        assert asked.exit_code == 2
        assert "in the operator's checkout" in asked.output
    asked = CliRunner().invoke(tool, ["upgrade", "--preview", "--limit", "box"])
    assert asked.exit_code == 2
    assert "looks at that host alone" in asked.output
    assert "--preview or --apply" in CliRunner().invoke(tool, ["upgrade"]).output


def test_checkout_asks_the_hosts_of_its_inventory(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """`gatehouse upgrade` in a checkout is the operator's; a refused version ends it at once."""
    # The default inventory is this machine: the checkout may well be on the host.
    monkeypatch.setattr(here, "SETTINGS", ROOT / "deploy.py")
    done = run(ROOT, "gatehouse", "upgrade", "--preview", "--to", "1.107.0")
    assert done.returncode == 1
    assert "--to 1.107.0: " in done.stderr
    assert "withdrew trust" in done.stderr
    assert "settings" not in done.stderr
    path = tmp_path / "inventory"
    path.write_text("hosts = [('nowhere.invalid', {})]\n")
    done = run(ROOT, "gatehouse", "upgrade", "--preview", "--inventory", str(path))
    assert done.returncode == 2
    assert "nowhere.invalid cannot be reached" in done.stderr
    monkeypatch.chdir(ROOT)
    asked: list[dict[str, Any]] = []
    monkeypatch.setattr(
        "gatehouse.commands.upgrade.run", lambda **options: asked.append(options), raising=True
    )
    words = ["--to", "1.109.0", "--inventory", "other", "--limit", "box"]
    assert CliRunner().invoke(tool, ["upgrade", "--preview", *words]).exit_code == 0
    assert asked == [
        {
            "apply": False,
            "version": "1.109.0",
            "fetch": False,
            "yes": False,
            "as_json": False,
            "inventory": "other",
            "limit": ("box",),
        }
    ]


def test_document_is_json() -> None:
    """What programs get is what was found."""
    document = json.loads(preview(S, found()).model_dump_json())
    assert document["migrations"]["pending"] == ["3_new"]
