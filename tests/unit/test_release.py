"""The release: the same settings give the same files, and a change touches what depends on it."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
from click.testing import CliRunner

from gatehouse import audit, state
from gatehouse.deploys import release as deploying
from gatehouse.render import SERVICES, Machine, release, timers, valid
from gatehouse.tool import (
    here,
    lock,
    release_back,
    release_database,
    release_good,
    release_store,
    release_switch,
    releases,
)
from gatehouse.tool.errors import ProblemError
from tests.given import MACHINE, PROVIDER_KEY, model, rendered, settings

BEFORE = rendered()
ALL = set(SERVICES)
LISTENING = {"postgres", "redis", "litellm"}


def test_rendering_is_pure() -> None:
    """The same input gives the same files, in the same order, and the same release."""
    again = rendered()
    assert list(again.files.items()) == list(BEFORE.files.items())
    assert again.release_id == BEFORE.release_id


def test_release_is_named_after_its_content() -> None:
    """Another content is another release; the name is short and the same on every machine."""
    assert re.fullmatch(r"[0-9a-f]{12}", BEFORE.release_id)
    assert rendered(redis_maxmemory_mib=128).release_id != BEFORE.release_id


def test_settings_outside_the_release_do_not_change_it() -> None:
    """What only the deploy uses makes no new release."""
    assert rendered(host_disk_min_gib=20).release_id == BEFORE.release_id


@pytest.mark.parametrize(
    ("changes", "services"),
    [
        ({"redis_maxmemory_mib": 128}, {"redis"}),
        ({"redis_image": "redis:8.0"}, {"redis"}),
        ({"redis_cache_ttl_seconds": 60}, {"litellm"}),
        ({"redis_start_timeout_seconds": 61}, {"redis"}),
        ({"postgres_memory_mib": 2048}, {"postgres"}),
        ({"postgres_port": 5432}, {"postgres"}),
        ({"models_extra": [model()]}, {"litellm"}),
        ({"litellm_workers": 2}, {"litellm"}),
        ({"litellm_image": "x:1.108.13"}, {"litellm", "litellm-migrate"}),
        ({"network_subnet": "10.9.0.0/24"}, ALL),
        ({"network_inner_subnet": "10.9.0.0/24"}, ALL),
        ({"network_bind_address": "127.0.0.2"}, LISTENING),
        ({"secrets_gid": 2000}, LISTENING),
        ({"docker_log_files": 5}, ALL),
        ({"docker_live_restore": False}, set()),
        ({"host_memory_min_mib": 4096}, set()),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_change_touches_the_services_that_depend_on_it(
    changes: dict[str, object], services: set[str]
) -> None:
    """A service is recreated exactly when something that it runs with has changed."""
    after = rendered(**changes).inputs
    assert {name for name in after if after[name] != BEFORE.inputs[name]} == services


def test_provider_key_touches_the_proxy_only() -> None:
    """A new provider key switches models on: the proxy reads them anew."""
    machine = Machine(MACHINE.cores, MACHINE.memory_mib, frozenset({PROVIDER_KEY}))
    after = rendered(machine).inputs
    assert {name for name in after if after[name] != BEFORE.inputs[name]} == {"litellm"}


def test_hash_is_in_the_variables() -> None:
    """Compose puts each service's hash into its label from the release's .env."""
    for service, digest in BEFORE.inputs.items():
        name = f"GATEHOUSE_{service.upper().replace('-', '_')}_INPUTS"
        assert f"{name}='{digest}'" in BEFORE.release[".env"].content.splitlines()


def test_files_have_their_places() -> None:
    """The release, and what lies outside of it, without the timers."""
    outside = [path for path in BEFORE.files if not path.startswith("/opt/gatehouse/current/")]
    assert [path for path in outside if path not in timers.files(settings())] == [
        "/etc/docker/daemon.json",
        "/etc/gatehouse/firewall.sh",
        "/etc/gatehouse/settings.json",
        "/etc/systemd/system/gatehouse-back.service",
        "/etc/systemd/system/gatehouse-collect.service",
        "/etc/systemd/system/gatehouse-collect.timer",
        "/etc/systemd/system/gatehouse-firewall.service",
        "/etc/systemd/system/gatehouse-health.service",
        "/etc/systemd/system/gatehouse-health.socket",
        "/etc/tmpfiles.d/gatehouse.conf",
    ]
    assert {".env", "compose.yaml", "litellm/config.yaml"} <= BEFORE.release.keys()


@pytest.mark.parametrize("path", BEFORE.files)
def test_file_is_writable_for_its_owner_only(path: str) -> None:
    """No file is writable for a group or for others, and all belong to root."""
    file = BEFORE.files[path]
    assert int(file.mode, 8) & 0o022 == 0
    assert file.owner == "root"
    assert file.content.endswith("\n")


def test_settings_are_kept_for_readers() -> None:
    """The settings on the host are for the readers' group, not for everybody."""
    file = rendered(host_group="readers").files["/etc/gatehouse/settings.json"]
    assert (file.mode, file.group) == ("640", "readers")
    assert settings().model_dump_json(indent=2) + "\n" == (
        BEFORE.files["/etc/gatehouse/settings.json"].content
    )


CONFIG = BEFORE.release["litellm/config.yaml"].content


def test_rendered_configuration_is_right() -> None:
    """What is shipped has nothing that LiteLLM does not know, in no variant of the settings."""
    for tree in (BEFORE, rendered(litellm_spend_log_days=None), rendered(litellm_workers=2)):
        assert valid.problems(tree.release["litellm/config.yaml"].content, frozenset()) == []
    keys = frozenset({PROVIDER_KEY})
    with_key = rendered(Machine(MACHINE.cores, MACHINE.memory_mib, keys))
    assert valid.problems(with_key.release["litellm/config.yaml"].content, keys) == []


@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [
        (
            "litellm_settings:",
            "litellm_setings:",
            "litellm_setings (did you mean litellm_settings?)",
        ),
        ("  ui_access_mode:", "  ui_acces_mode:", "no key ui_acces_mode (did you mean"),
        ("os.environ/REDIS_PASSWORD", "os.environ/REDIS_PASWORD", "nothing sets REDIS_PASWORD"),
        ("  master_key: os.environ/LITELLM_MASTER_KEY\n", "", "no master_key"),
        ("general_settings:", "general_settings", "it is no YAML"),
    ],
)
def test_what_litellm_would_pass_over_is_a_problem(old: str, new: str, problem: str) -> None:
    """LiteLLM's own look says that each of these is fine."""
    assert old in CONFIG
    found = valid.problems(CONFIG.replace(old, new), frozenset())
    assert [each for each in found if problem in each], found


def test_provider_key_that_the_host_lacks_is_a_problem() -> None:
    """A model whose key nobody gives would fail at its first question."""
    config = CONFIG.replace("api_key: none", "api_key: os.environ/OPENAI_API_KEY", 1)
    assert valid.problems(config, frozenset({"OPENAI_API_KEY"})) == []
    assert valid.problems(config, frozenset()) == [
        "os.environ/OPENAI_API_KEY: nothing sets OPENAI_API_KEY"
    ]


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Keep releases in a folder of the test."""
    for name in ("releases", "kept", "snapshots", "state"):
        (tmp_path / name).mkdir()
    monkeypatch.setattr(release_store, "RELEASES", tmp_path / "releases")
    monkeypatch.setattr(release_store, "CURRENT", tmp_path / "current")
    monkeypatch.setattr(release_store, "GOOD", tmp_path / "good")
    monkeypatch.setattr(release_store, "KEPT", tmp_path / "kept")
    monkeypatch.setattr(release_store, "SNAPSHOTS", tmp_path / "snapshots")
    monkeypatch.setattr(release_store, "MARKER", tmp_path / "deploying")
    monkeypatch.setattr(release_store, "ROLLBACK", tmp_path / "rollback")
    monkeypatch.setattr(state, "FOLDER", tmp_path / "state")
    return tmp_path


def put(store: Path, name: str, image: str = "redis:8", **files: str) -> None:
    """Write a release."""
    folder = store / "releases" / name
    folder.mkdir()
    manifest = {"services": {"redis": {"image": image, "inputs": "0"}}, "engines": {}, "files": {}}
    (folder / "manifest.json").write_text(json.dumps(manifest))
    for path, text in files.items():
        (folder / path).write_text(text)
    release_store.remember(name, "good", who="ann")


def test_oldest_releases_go_with_what_was_kept_for_them(
    store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What runs and what is gone back to stay, whatever their age; only images of nobody go."""
    removed: list[str] = []
    monkeypatch.setattr(
        release_store.subprocess,
        "run",
        lambda words, **_: removed.append(words[-1]) or subprocess.CompletedProcess(words, 0),
    )
    for number in range(6):
        put(store, f"r{number}", f"redis:{number}")
        (store / "kept" / f"r{number}.tar").touch()
        (store / "snapshots" / f"r{number}.dump").touch()
    release_store.link(store / "good", store / "releases" / "r0")
    release_store.link(store / "current", store / "releases" / "r5")
    release_store.prune(2)
    left = {"r0", "r4", "r5"}
    assert {path.name for path in (store / "releases").iterdir()} == left
    for folder in ("kept", "snapshots"):
        assert {path.stem for path in (store / folder).iterdir()} == left
    assert removed == ["redis:1", "redis:2", "redis:3"]
    assert [each.id for each in release_store.every()] == sorted(left)


def test_failed_releases_push_out_no_good_one(store: Path) -> None:
    """The one that served before, by a deploy or by hand, stays to be gone back to."""
    results: list[release_store.Result] = ["good", "good", "good", "bad", "bad", "bad", "good"]
    for number, result in enumerate(results):
        put(store, f"r{number}")
        release_store.remember(f"r{number}", result)
    for link in ("good", "current"):
        release_store.link(store / link, store / "releases" / "r6")
    release_store.serves("r1")
    release_store.prune(3)
    assert {path.name for path in (store / "releases").iterdir()} == {"r1", "r4", "r5", "r6"}


def test_rollback_goes_to_what_served_before(store: Path) -> None:
    """That is not the newest good one where somebody had gone back behind it by hand."""
    for name in ("a", "b", "c"):
        put(store, name)
    for name in ("a", "b"):
        release_store.remember(name, "good")
    present = release_store.find("c")
    assert releases._before(present).id == "b"  # noqa: SLF001
    release_store.serves("a")
    release_store.remember("c", "good")
    assert releases._before(present).id == "a"  # noqa: SLF001
    assert [each.id for each in release_store.every()] == ["a", "b", "c"]


def test_what_a_deploy_left_half_done_is_swept_away(store: Path) -> None:
    """The room is needed for the way back; what is whole stays."""
    put(store, "abc1")
    half = [
        store / "ballast",
        store / "images.tar",
        store / "releases" / "def2.tar",
        store / "kept" / "def2.tar.new",
        store / "snapshots" / "def2.dump.part",
        store / "snapshots" / ".keys.copy",
    ]
    whole = [store / "kept" / "abc1.tar", store / "snapshots" / "abc1.dump"]
    for path in (*half, *whole):
        path.touch()
    (store / "releases" / "def2.new").mkdir()
    (store / "releases" / "def2.new" / "compose.yaml").touch()
    release_store.sweep()
    assert [path for path in half if path.exists()] == []
    assert [path for path in whole if not path.exists()] == []
    assert [path.name for path in (store / "releases").iterdir()] == ["abc1"]


def test_full_disk_is_named_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Also where what failed had no words for it; a disk with room is no news."""
    (tmp_path / "a").mkdir()
    disks = (str(tmp_path), str(tmp_path / "a"), str(tmp_path / "missing"))
    monkeypatch.setattr(release_back, "_DISKS", disks)
    said: list[str] = []
    release_back._say_what_is_full(said.append)  # noqa: SLF001
    assert said == []
    full = release_back.shutil.disk_usage(tmp_path)._replace(free=4096)
    monkeypatch.setattr(release_back.shutil, "disk_usage", lambda _path: full)
    release_back._say_what_is_full(said.append)  # noqa: SLF001
    assert said == [f"the disk of {tmp_path} is full (4.1 kB free): free some space"]
    said.clear()
    monkeypatch.setattr(release_back, "_DISKS", ())
    monkeypatch.setattr(release_back, "docker_root", lambda: str(tmp_path / "a"))
    release_back._say_what_is_full(said.append)  # noqa: SLF001
    assert said == [f"the disk of {tmp_path / 'a'} is full (4.1 kB free): free some space"]


def test_difference_of_two_releases_is_unified(store: Path) -> None:
    """As git shows it; a name may be cut short as long as it means one."""
    put(store, "abc1", **{"redis.conf": "maxmemory 1mb\n"})
    put(store, "def2", **{"redis.conf": "maxmemory 2mb\n"})
    shown = CliRunner().invoke(releases.diff, ["abc", "def2"]).stdout.splitlines()
    assert shown[:2] == ["--- a/redis.conf", "+++ b/redis.conf"]
    assert {"-maxmemory 1mb", "+maxmemory 2mb"} <= set(shown)


def test_releases_are_listed_with_how_they_fared(store: Path) -> None:
    """Newest last; what runs is said."""
    put(store, "abc1")
    put(store, "def2")
    release_store.remember("def2", "bad", reason="Redis | Have it healthy failed")
    release_store.link(store / "current", store / "releases" / "abc1")
    shown = json.loads(CliRunner().invoke(releases.releases, ["--json"]).stdout)["releases"]
    assert [(each["id"], each["result"], each["current"]) for each in shown] == [
        ("abc1", "good", True),
        ("def2", "bad", False),
    ]
    table = CliRunner().invoke(releases.releases, []).stdout
    assert "runs now" in table
    assert "Redis | Have it healthy failed" in table


def test_release_that_is_not_there_is_named(store: Path) -> None:
    """It cannot be looked at: exit code 2, and what lists those that there are."""
    put(store, "abc1")
    result = CliRunner().invoke(releases.diff, ["abc1", "zzz"])
    assert result.exit_code == 2
    assert "no release zzz" in result.output


@pytest.mark.parametrize(("current", "result"), [("new", "good"), ("old", "bad")])
def test_release_that_was_good_is_bad_only_when_it_was_switched_to(
    store: Path, monkeypatch: pytest.MonkeyPatch, current: str, result: str
) -> None:
    """A deploy of an older release that is refused before the switch says nothing about it."""
    put(store, "old")
    put(store, "new")
    monkeypatch.setattr(release_back, "GOOD", store / "good")
    monkeypatch.setattr(release_back, "CURRENT", store / "current")
    monkeypatch.setattr(release_back, "go_back", lambda *_: None)
    release_store.link(store / "good", store / "releases" / "new")
    release_store.link(store / "current", store / "releases" / current)
    monkeypatch.setattr(audit, "FILE", store / "audit.jsonl")
    monkeypatch.setattr(sys, "argv", ["release_back", "old", "Images | Pull the images failed"])
    with pytest.raises(SystemExit) as ended:
        release_back.main()
    assert ended.value.code == 0
    assert release_store.find("old").known["result"] == result


@pytest.mark.parametrize("heals", [True, False])
def test_way_back_at_a_boot_is_tried_again_and_not_forgotten(
    store: Path, monkeypatch: pytest.MonkeyPatch, *, heals: bool
) -> None:
    """What fails for good leaves the unit failed and the marker for the next boot."""
    put(store, "old")
    put(store, "new")
    release_store.link(store / "good", store / "releases" / "old")
    release_store.link(store / "current", store / "releases" / "new")
    marker = release_store.MARKER
    marker.write_text("new\n")
    tries: list[str] = []

    def go_back(release: release_store.Release, *_: object) -> None:
        tries.append(release.id)
        if not heals or len(tries) < 2:
            raise ProblemError("postgres is starting")

    for name, value in {
        "GOOD": store / "good",
        "CURRENT": store / "current",
        "go_back": go_back,
        "_AGAIN_SECONDS": 0.0,
    }.items():
        monkeypatch.setattr(release_back, name, value)
    monkeypatch.setattr(lock, "FILE", store / "deploy.lock")
    monkeypatch.setattr(audit, "FILE", store / "audit.jsonl")
    monkeypatch.setattr(sys, "argv", ["release_back", "--boot"])
    if heals:
        release_back.main()
    else:
        with pytest.raises(SystemExit) as ended:
            release_back.main()
        unit = release.files()[f"/etc/systemd/system/{release.UNIT}"].content
        assert f"RestartPreventExitStatus={ended.value.code}\n" in unit
    assert tries == ["old"] * (2 if heals else 3)
    assert marker.exists() != heals


@pytest.mark.parametrize(("seconds", "database"), [(1, False), (-1, True)])
def test_deploy_that_was_good_when_the_power_went_keeps_its_database(
    store: Path, monkeypatch: pytest.MonkeyPatch, seconds: int, *, database: bool
) -> None:
    """Good, and its end not written down: what it has migrated stays.

    Where the same release had been good before, and this deploy of it was cut off, it goes back.
    """
    put(store, "same")
    for name in ("good", "current"):
        release_store.link(store / name, store / "releases" / "same")
    marker = release_store.MARKER
    marker.write_text("same\n")
    begun = release_store.find("same").known["when"] - seconds
    os.utime(marker, (begun, begun))
    went: list[object] = []

    def go_back(_release: object, failed: object, _say: object, since: float | None) -> None:
        went.append((failed is not None, since is not None))

    for name, value in {
        "GOOD": store / "good",
        "CURRENT": store / "current",
        "go_back": go_back,
    }.items():
        monkeypatch.setattr(release_back, name, value)
    monkeypatch.setattr(lock, "FILE", store / "deploy.lock")
    monkeypatch.setattr(audit, "FILE", store / "audit.jsonl")
    monkeypatch.setattr(sys, "argv", ["release_back", "--boot"])
    release_back.main()
    assert went == [(database, database)]
    assert not marker.exists()
    (line,) = audit.FILE.read_text().splitlines()
    assert ("given_up" in json.loads(line)) == database
    assert ("after it was called good" in line) != database


def test_way_back_waits_as_long_as_the_host_needs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A slow host says how slow it is in its settings; nothing is given up sooner for them."""
    known = tmp_path / "settings.json"
    monkeypatch.setattr(here, "SETTINGS", known)
    patience = release_back._patience  # noqa: SLF001 - what it waits with
    assert patience("litellm") == 300
    slow = {"litellm_start_timeout_seconds": 1800, "metrics_start_timeout_seconds": 400}
    known.write_text(json.dumps(slow | {"redis_start_timeout_seconds": 60}))
    assert [patience(name) for name in ("litellm", "litellm-migrate", "prometheus", "redis")] == [
        *(1800, 1800, 400, 300)
    ]


@pytest.mark.parametrize("content", ["", "\0\0", '{"services"'])
def test_release_that_cannot_be_read_is_in_nobodys_way(store: Path, content: str) -> None:
    """A power cut leaves files without content: the others are listed, and it goes with the old."""
    put(store, "abc1")
    put(store, "def2")
    (store / "releases" / "def2" / "manifest.json").write_text(content)
    (store / "snapshots" / "def2.dump").touch()
    for link in ("good", "current"):
        release_store.link(store / link, store / "releases" / "abc1")
    assert [each.id for each in release_store.every()] == ["abc1"]
    shown = CliRunner().invoke(releases.diff, ["def2"])
    assert (shown.exit_code, "cannot be read" in shown.output) == (2, True)
    assert release_store.prune(5) == ["def2"]
    assert [path.name for path in (store / "releases").iterdir()] == ["abc1"]
    assert list((store / "snapshots").iterdir()) == []


def test_release_is_on_the_disk_before_it_has_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A power cut takes what was not written out yet, and leaves the names."""
    programs, release = tmp_path / "bin", tmp_path / "abc1"
    programs.mkdir()
    seen = tmp_path / "seen"
    for name, text in {"docker": "", "sync": f'ls -A "$2" >{seen}; [ ! -e {release} ]\n'}.items():
        (programs / name).write_text(f"#!/bin/sh\n{text}")
        (programs / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}:{os.environ['PATH']}")
    (tmp_path / "compose.yaml").write_text("name: gatehouse\n")
    archive = ["tar", "-C", str(tmp_path), "-cf", f"{release}.tar", "compose.yaml"]
    subprocess.run(archive, check=True)
    subprocess.run(["sh", "-c", deploying.unpack(str(release))], check=True)
    assert seen.read_text() == "compose.yaml\n"
    assert [path.name for path in release.iterdir()] == ["compose.yaml"]


def test_link_is_on_the_disk_when_it_leads_elsewhere(
    store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a deploy called good is still called so after a power cut: the folder is written out."""
    put(store, "a")
    put(store, "b")
    release_store.link(store / "good", store / "releases" / "a")
    written = []

    def fsync(handle: int) -> None:
        written.append(
            (Path(f"/proc/self/fd/{handle}").readlink(), release_store.linked(store / "good"))
        )

    monkeypatch.setattr(os, "fsync", fsync)
    release_store.link(store / "good", store / "releases" / "b")
    assert written == [(store, "b")]


@pytest.mark.parametrize("name", ["MARKER", "ROLLBACK"])
def test_boot_looks_for_what_is_written_down(name: str) -> None:
    """The unit of the way back, and the script that writes when a deploy begins, name it, too."""
    path = getattr(release_store, name)
    unit = release.files()[f"/etc/systemd/system/{release.UNIT}"].content
    assert f"ConditionPathExists=|{path}\n" in unit
    assert name == "ROLLBACK" or f"marker={path}\n" in release.watch()


class Server:
    """Plays the database: its schema, and the migrations that it has."""

    def __init__(self, folder: Path) -> None:
        """Hold the folder of the dumps; nothing has been migrated yet."""
        self.folder = folder
        self.schema = "A"

    def dumped(self, release: str) -> None:
        """Note a dump from before a release, as of now."""
        about = {
            "when": time.time(),
            "schema": self.schema,
            "columns": {},
            "migrations": self.migrations,
        }
        (self.folder / f"{release}.json").write_text(json.dumps(about))
        (self.folder / f"{release}.dump").touch()

    @property
    def migrations(self) -> list[str]:
        """Give those that have led to the schema."""
        return [name for name in "ABC" if name <= self.schema]

    def answer(self, query: str, *_: str) -> str:
        """Answer as psql does."""
        if "migration_name, finished_at" in query:
            return self.schema
        return json.dumps(self.migrations)


class Host:
    """A host with the releases a, b and c, each of which has migrated the database."""

    def __init__(self, folder: Path, server: Server) -> None:
        """Have c serve; nobody has gone back yet."""
        self.folder, self.server = folder, server
        self.went: list[tuple[str, str, float | None]] = []
        self.started: list[list[str]] = []
        self.missing: set[str] = set()
        self.meanwhile: Callable[[str], None] = lambda _release: None
        for name in "abc":
            if name != "a":
                server.dumped(name)
                server.schema = name.upper()
            put(folder, name, f"redis:{name}")
        self.serve("c")

    def serve(self, name: str) -> None:
        """Have a release be the one that runs and is gone back to."""
        for link in ("good", "current"):
            release_store.link(self.folder / link, self.folder / "releases" / name)

    @property
    def serving(self) -> tuple[str | None, str | None]:
        """Give what runs and what is gone back to."""
        return release_store.linked(self.folder / "current"), (
            release_store.linked(self.folder / "good")
        )

    def go_back(
        self,
        release: release_store.Release,
        failed: release_store.Release,
        _say: object,
        since: float | None = None,
        *,
        newer: bool = False,
    ) -> None:
        """Play the way back: the link, and the database where it is wanted."""
        assert newer == (release.id > failed.id)
        self.went.append((release.id, failed.id, since))
        release_store.link(self.folder / "current", release.folder)
        if since is not None:
            dump = json.loads((self.server.folder / f"{failed.id}.json").read_text())
            self.server.schema = dump["schema"]
        self.meanwhile(release.id)

    def meant(self, image: str) -> str:
        """Play Docker, which may have lost images, or only their names."""
        return "" if image in self.missing else f"sha256:{image}"

    def rollback(self, *words: str) -> tuple[int, str]:
        """Type the command; gives how it ended and what it said."""
        done = CliRunner().invoke(releases.rollback, [*words, "--yes"])
        return done.exit_code, done.output


@pytest.fixture
def served(store: Path, monkeypatch: pytest.MonkeyPatch) -> Host:
    """Give a host on which a, b and c were deployed one after the other."""
    server = Server(store / "snapshots")
    host = Host(store, server)
    nothing_wrong = SimpleNamespace(exit_code=0, summary=SimpleNamespace(failures=0))
    for module, name, value in (
        (release_database, "SNAPSHOTS", store / "snapshots"),
        (release_database, "_sql", server.answer),
        (release_database, "room", lambda: None),
        (release_back, "go_back", host.go_back),
        (release_back, "GOOD", store / "good"),
        (release_back, "CURRENT", store / "current"),
        (release_store, "meant", host.meant),
        (release_switch.subprocess, "run", lambda words, **_: host.started.append(words)),
        (release_switch, "_AGAIN_SECONDS", 0.0),
        (releases, "look", lambda _checks: (nothing_wrong, [])),
        (releases, "every", lambda _settings: []),
        (here, "be_root", lambda _command: None),
        (here, "settings", settings),
        (lock, "FILE", store / "deploy.lock"),
        (audit, "FILE", store / "audit.jsonl"),
    ):
        monkeypatch.setattr(module, name, value)
    return host


def test_rollback_to_a_newer_release_leaves_the_database(served: Host) -> None:
    """It has the schema from before that release by then, which is what it brings up to date."""
    assert served.rollback("--database")[0] == 0
    assert (served.went[-1], served.server.schema) == (("b", "c", 0.0), "B")
    code, said = served.rollback("--database")
    assert (code, served.went[-1]) == (0, ("c", "b", None))
    assert "the database stays" in said
    assert served.server.schema == "B"
    # Neither when a still later release is what it was dumped for.
    served.rollback("a", "--database")
    assert (served.went[-1], served.server.schema) == (("a", "b", 0.0), "A")
    served.rollback("b", "--database")
    assert (served.went[-1], served.server.schema) == (("b", "a", None), "A")


def test_newest_dump_of_a_schema_is_put_back(served: Host) -> None:
    """One that failed keeps its dump: it is older, and of the same schema."""
    served.server.schema = "A"
    served.server.dumped("c")
    served.server.schema = "C"
    assert served.rollback("a", "--database")[0] == 0
    assert served.went == [("a", "c", 0.0)]


def test_rollback_without_its_images_touches_nothing(served: Host) -> None:
    """`docker image prune -a` takes what no container uses."""
    served.missing.add("redis:b")
    code, said = served.rollback()
    assert code == 2
    assert "nothing was touched: release b needs images" in said
    assert "redis:b" in said
    assert (served.went, served.started, served.serving) == ([], [], ("c", "c"))
    # Nor what its name meant; where that is there, the way back gives the name again.
    release = release_store.find("b")
    release.identities.parent.mkdir(exist_ok=True)
    release.identities.write_text("sha256:first redis:b\n")
    served.missing.add("sha256:first")
    assert served.rollback()[0] == 2
    served.missing.remove("sha256:first")
    assert served.rollback()[0] == 0


def test_rollback_that_does_not_work_ends_with_what_served(served: Host) -> None:
    """The release before it is whole again, the message says so, and nothing is left to finish."""

    def fail(release: str) -> None:
        if release == "b":
            raise OSError("redis does not start")

    served.meanwhile = fail
    code, said = served.rollback()
    assert code == 1
    assert "release c serves again. redis does not start" in said
    assert [went[:2] for went in served.went] == [("b", "c"), ("c", "b")]
    assert served.serving == ("c", "c")
    assert release_switch.unfinished() is None
    assert audit.entries()[-1]["result"] == "failed"
    assert release_store.find("c").known["result"] == "good"


def test_rollback_that_leaves_nothing_serving_is_not_forgotten(served: Host) -> None:
    """Both reasons are told, and the host or the same command tries again."""

    def fail(release: str) -> None:
        raise ProblemError(f"redis of {release} does not start")

    served.meanwhile = fail
    code, said = served.rollback()
    assert code == 1
    assert "neither release b serves (redis of b does not start) nor release c (redis of c" in said
    assert release_switch.unfinished() == release_switch.Plan("b", "c")
    served.meanwhile = lambda _release: None
    code, said = served.rollback()
    assert (code, "this one finishes it" in said) == (0, True)
    assert served.serving == ("b", "b")


def test_rollback_whose_database_is_switched_goes_forward_only(served: Host) -> None:
    """The release before cannot use that database: the same command, or the host, finishes it."""

    def fail(_release: str) -> None:
        raise ProblemError("litellm is unhealthy")

    served.meanwhile = fail
    code, said = served.rollback("--database")
    assert code == 1
    assert "release b does not serve yet" in said
    assert "gatehouse rollback b" in said
    assert served.went == [("b", "c", 0.0)]
    plan = release_switch.unfinished()
    assert plan == release_switch.Plan("b", "c", "c")
    served.meanwhile = lambda _release: None
    assert served.rollback()[0] == 0
    assert served.went[-1] == ("b", "c", 0.0)
    assert served.serving == ("b", "b")
    assert release_switch.unfinished() is None


@pytest.mark.parametrize("heals", [True, False])
def test_rollback_that_was_killed_is_finished_by_the_host(served: Host, *, heals: bool) -> None:
    """One waits for the lock beside it; the good release is not called bad for it."""
    killed: list[str] = []

    class Killed(BaseException):
        """What nothing catches, as nothing does a `kill -9`."""

    def kill(release: str) -> None:
        killed.append(release)
        if len(killed) == 1:
            raise Killed
        if not heals and release == "b":
            raise ProblemError("redis does not start")

    served.meanwhile = kill
    with pytest.raises(Killed):
        served.rollback()
    assert served.serving == ("b", "c")
    (words,) = served.started
    assert words[0] == "systemd-run"
    assert words[-3:] == ["-I", "-m", release_switch.__name__]
    release_switch.main()
    assert served.serving == (("b", "b") if heals else ("c", "c"))
    assert release_switch.unfinished() is None
    line = audit.entries()[-1]
    assert (line["action"], line["result"]) == ("way back", "ok")
    assert line["release"] == ("b" if heals else "c")
    assert {each.known["result"] for each in release_store.every()} == {"good"}
    release_switch.main()
    assert len(killed) == (2 if heals else 3)
    unit = release.files()[f"/etc/systemd/system/{release.UNIT}"].content
    assert "ConditionPathExists=|/var/lib/gatehouse/rollback\n" in unit
    assert f" -m {release_switch.__name__}\n" in unit


def test_rollback_goes_on_where_nobody_listens(
    served: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A terminal that is gone, or a Ctrl-C, does not leave two halves."""
    ends = [signal.SIGINT, signal.SIGHUP, signal.SIGTERM]

    def end(_release: str) -> None:
        for each in ends:
            signal.raise_signal(each)

    served.meanwhile = end
    assert served.rollback()[0] == 0
    assert served.serving == ("b", "b")

    def gone(_text: str) -> None:
        raise OSError("input/output error")

    monkeypatch.setattr(release_switch.click, "echo", gone)
    release_switch.say("release b serves again")


def test_rollback_can_be_repeated_until_it_is_good(served: Host) -> None:
    """Only what runs and is gone back to is where it should be already."""
    code, said = served.rollback("c")
    assert (code, "is the one that runs" in said) == (2, True)
    release_store.link(served.folder / "current", served.folder / "releases" / "b")
    assert served.rollback("b")[0] == 0
    assert served.serving == ("b", "b")


def test_rollback_that_served_forgets_a_way_back_that_did_not(served: Host) -> None:
    """Or a later boot would put an old dump in force."""
    release_store.MARKER.write_text("c\n")
    assert served.rollback()[0] == 0
    assert not release_store.MARKER.exists()


def test_deploy_overtakes_a_rollback_that_did_not_end(
    served: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No boot goes back to what somebody has given up since."""
    release_store.ROLLBACK.write_text(json.dumps({"target": "b", "present": "c"}))
    monkeypatch.setattr(release_good, "GOOD", served.folder / "good")
    monkeypatch.setattr(release_good, "VENV", served.folder / "venv")
    (served.folder / "venv").symlink_to("venvs/1")
    monkeypatch.setattr(release_store, "keep", lambda _release: None)
    monkeypatch.setattr(sys, "argv", ["release_good", "c", "ann@desk", "5"])
    release_good.main()
    assert not release_store.ROLLBACK.exists()


@pytest.mark.parametrize(("apart", "fits"), [(False, False), (True, True)])
def test_room_is_looked_for_on_both_disks(
    store: Path, monkeypatch: pytest.MonkeyPatch, *, apart: bool, fits: bool
) -> None:
    """The dump and the database that is restored from it; on one disk they need the sum."""
    docker = store / "docker"
    docker.mkdir()
    size = 2**30
    free = int(size * 1.2) + 600 * 2**20
    usage = release_database.shutil.disk_usage(store)
    monkeypatch.setattr(release_database, "SNAPSHOTS", store / "snapshots")
    monkeypatch.setattr(release_database, "docker_root", lambda: str(docker))
    monkeypatch.setattr(release_database.dump, "size", lambda: size)
    monkeypatch.setattr(
        release_database.shutil, "disk_usage", lambda _path: usage._replace(free=free)
    )
    stat = Path.stat

    def other(path: Path, **words: bool) -> object:
        seen = stat(path, **words)
        return SimpleNamespace(st_dev=-1, st_mode=seen.st_mode) if path == docker else seen

    if apart:
        monkeypatch.setattr(Path, "stat", other)
    if fits:
        release_database.room()
    else:
        with pytest.raises(ProblemError, match="put it back: free some space"):
            release_database.room()


# Knows what each name means, as files in $NAMES, and the images that are there, in $IDS.
MEANING = """#!/bin/sh
case "$1 $2" in
"image inspect") shift 4; cat "$NAMES/$1" 2>/dev/null ;;
tag*) case " $IDS " in *" $2 "*) echo "$2" >"$NAMES/$3" ;; *) echo "no such image" >&2; exit 1 ;; esac ;;
esac
"""


@pytest.mark.parametrize("there", [True, False])
def test_name_that_means_another_image_means_the_first_again(
    store: Path, monkeypatch: pytest.MonkeyPatch, *, there: bool
) -> None:
    """A tag moves under the very same release; an image that is gone is said to be."""
    names = store / "names"
    names.mkdir()
    (store / "docker").write_text(MEANING)
    (store / "docker").chmod(0o755)
    for key, value in {
        "PATH": f"{store}:{os.environ['PATH']}",
        "NAMES": str(names),
        "IDS": "sha256:first" if there else "",
    }.items():
        monkeypatch.setenv(key, value)
    put(store, "abc1", "redis:8")
    (names / "redis:8").write_text("sha256:moved\n")
    release = release_store.find("abc1")
    said: list[str] = []
    release_back._mean_again(release, said.append)  # noqa: SLF001 - a part of the way back
    assert said == []
    release.identities.write_text("sha256:first redis:8\n")
    release_back._mean_again(release, said.append)  # noqa: SLF001 - the same
    assert release_store.meant("redis:8") == ("sha256:first" if there else "sha256:moved")
    assert ("means the image again" if there else "is gone") in said[0]


@pytest.mark.parametrize(("means", "left"), [("", True), ("first", True), ("moved", False)])
def test_service_that_runs_is_left_alone_unless_its_name_means_another_image(
    store: Path, monkeypatch: pytest.MonkeyPatch, means: str, *, left: bool
) -> None:
    """A name that somebody has removed is no reason to end what could not be started again."""
    put(store, "abc1")
    runs = release_back._Container("redis", "redis", "0", "redis:8", "first", running=True, code=0)  # noqa: SLF001 - a part of the way back
    called: list[tuple[object, ...]] = []
    monkeypatch.setattr(release_back, "_containers", lambda: [runs])
    monkeypatch.setattr(release_back, "_compose", lambda *words: called.append(words))
    monkeypatch.setattr(release_back.stack, "health", lambda _service: "healthy")
    monkeypatch.setattr(release_store, "meant", lambda _image: means)
    release_back._start(release_store.find("abc1"), "redis")  # noqa: SLF001 - the same
    assert (called == []) == left
