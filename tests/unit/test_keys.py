"""Keys: the settings that declare them, and the commands against a LiteLLM in memory."""

import json
import os
import stat
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from click.testing import CliRunner, Result

from gatehouse import audit, state
from gatehouse.checks import keys as checks
from gatehouse.render.template import ROOT
from gatehouse.settings import Settings
from gatehouse.tool import keys, keys_deliver
from gatehouse.tool.errors import ProblemError
from gatehouse.tool.here import GatewayError
from gatehouse.tool.keys_book import digest
from gatehouse.tool.keys_make import RIGHTS
from tests.given import problems, proxy, settings

DAY = 86400


class BrokenOffError(Exception):
    """The process is gone: the power, or a kill."""


class Answer:
    """What `raw` gives."""

    def __init__(self, status: int) -> None:
        """Hold the status."""
        self.status_code = status


class LiteLLM:
    """Keys, teams and users as LiteLLM keeps them; `break_at` ends it before that change."""

    def __init__(self) -> None:
        """Begin with a team."""
        self.keys: dict[str, dict[str, Any]] = {}
        self.teams: dict[str, dict[str, Any]] = {
            "t-1": {"team_id": "t-1", "team_alias": "research"}
        }
        self.users: dict[str, dict[str, Any]] = {}
        self.break_at: int | None = None
        self.changes = 0

    def get(self, path: str, **_: object) -> Any:  # noqa: ANN401 - as LiteLLM
        """Answer what is asked."""
        answers = {
            "/key/list": lambda: {"keys": list(self.keys.values()), "total_pages": 1},
            "/team/list": lambda: list(self.teams.values()),
            "/user/list": lambda: {"users": list(self.users.values()), "total_pages": 1},
            "/v1/models": lambda: {"data": [{"id": "chat-default"}, {"id": "embed-x"}]},
        }
        return answers[path]()

    def raw(self, _: str, path: str, params: dict[str, str]) -> Answer:
        """Answer whether a user is there."""
        assert path == "/user/info"
        return Answer(200 if params["user_id"] in self.users else 404)

    def post(self, path: str, body: dict[str, Any]) -> Any:  # noqa: ANN401 - as LiteLLM
        """Change something, unless it is broken off now."""
        if self.break_at is not None and self.changes == self.break_at:
            self.break_at = None
            raise BrokenOffError
        self.changes += 1
        noun, verb = path.strip("/").split("/")
        return getattr(self, f"_{noun}_{verb}")(body)

    def works(self, value: str) -> bool:
        """Tell whether a client with this value is answered."""
        key = self.keys.get(digest(value.strip()))
        return bool(key) and not _ended(key)

    def by_alias(self, alias: str) -> dict[str, Any]:
        """Give a key."""
        return next(key for key in self.keys.values() if key["key_alias"] == alias)

    def _free(self, alias: str | None, token: str) -> None:
        taken = [t for t, key in self.keys.items() if key["key_alias"] == alias and t != token]
        if alias and taken:
            raise GatewayError("/key", 400, f"Key with alias '{alias}' already exists.")

    def _key_generate(self, body: dict[str, Any]) -> Any:  # noqa: ANN401
        given = dict(body)
        token = digest(given.pop("key"))
        self._free(given.get("key_alias"), token)
        key = {"rpm_limit": 120, "tpm_limit": 60000, "duration": "90d", "metadata": {}} | given
        key |= {"token": token, "created_at": _iso(0), "expires": _in(key.pop("duration"))}
        self.keys[token] = {"spend": 0.0, "models": [], "max_budget": None} | key
        return {"token": token, "key": body["key"]}

    def _key_update(self, body: dict[str, Any]) -> Any:  # noqa: ANN401
        changes = dict(body)
        token = changes.pop("key")
        if token not in self.keys:
            raise GatewayError("/key/update", 404, "Key not found.")
        self._free(changes.get("key_alias"), token)
        if "duration" in changes:
            changes["expires"] = _in(changes.pop("duration"))
        self.keys[token].update(changes)
        return {"key": token}

    def _key_delete(self, body: dict[str, Any]) -> None:
        for token in body["keys"]:
            del self.keys[token]

    def _team_new(self, body: dict[str, Any]) -> None:
        self.teams[body["team_id"]] = {"models": [], **body}

    def _team_update(self, body: dict[str, Any]) -> None:
        self.teams[body["team_id"]].update(body)

    def _team_member_add(self, body: dict[str, Any]) -> None:
        self.users[body["member"]["user_id"]]["teams"].append(body["team_id"])

    def _user_new(self, body: dict[str, Any]) -> None:
        self.users[body["user_id"]] = {"models": [], **body}

    def _user_update(self, body: dict[str, Any]) -> None:
        self.users[body["user_id"]].update(body)


def _iso(seconds: float) -> str:
    return (datetime.now(UTC) + timedelta(seconds=seconds)).isoformat()


def _in(duration: str) -> str | None:
    units = {"s": 1, "d": DAY}
    return None if duration == "-1" else _iso(int(duration[:-1]) * units[duration[-1]])


def _ended(key: dict[str, Any] | None) -> bool:
    found = key and key["expires"]
    return bool(found and datetime.fromisoformat(found) <= datetime.now(UTC))


class Place:
    """A host: its LiteLLM, its settings, its files."""

    def __init__(self, folder: Path) -> None:
        """Begin with the shipped settings."""
        self.folder = folder
        self.litellm = LiteLLM()
        self.settings: Settings = settings()

    def call(self, *words: str, code: int = 0) -> Result:
        """Call `gatehouse keys`, and expect an exit code."""
        done = CliRunner().invoke(keys.keys, list(words))
        assert done.exit_code == code, done.output
        return done

    def read(self, name: str) -> str:
        """Read the value in a file."""
        return (self.folder / name).read_text().strip()

    def to(self, name: str) -> str:
        """Name a file."""
        return str(self.folder / name)

    def audit(self) -> list[dict[str, Any]]:
        """Give the audit log."""
        return [dict(entry) for entry in audit.entries(self.folder / "audit.jsonl")]


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Place]:
    """Give a host; no value of a key ever reaches its audit log or its state."""
    made = Place(tmp_path)
    monkeypatch.setattr(audit, "FILE", tmp_path / "audit.jsonl")
    monkeypatch.setattr(state, "FOLDER", tmp_path / "state")
    monkeypatch.setattr(keys_deliver, "FOLDER", tmp_path / "kept")
    monkeypatch.setattr(keys, "be_root", lambda _: None)
    monkeypatch.setattr(keys, "settings", lambda: made.settings)
    monkeypatch.setattr(keys, "Gateway", lambda _: made.litellm)
    yield made
    for path in [tmp_path / "audit.jsonl", *(tmp_path / "state").glob("*")]:
        assert "sk-" not in (path.read_text() if path.is_file() else "")


def checked(document: str, schema: str) -> dict[str, Any]:
    """Give a document that holds what its schema says."""
    found: dict[str, Any] = json.loads(document)
    jsonschema.validate(found, json.loads((ROOT / f"docs/schemas/{schema}.json").read_text()))
    return found


def test_new_key_gets_limits_and_an_end(place: Place) -> None:
    """Without options a key has the limits and the end of the settings, and prints its value."""
    value = place.call("new", "ci").stdout.strip()
    key = place.litellm.by_alias("ci")
    assert place.litellm.works(value)
    assert (key["rpm_limit"], key["tpm_limit"]) == (120, 60000)
    left = datetime.fromisoformat(key["expires"]) - datetime.now(UTC)
    assert timedelta(days=89) < left <= timedelta(days=90)
    assert place.audit()[-1]["action"] == "keys new ci"
    assert place.audit()[-1]["result"] == "ok"


def test_new_key_has_what_was_asked_for(place: Place) -> None:
    """Every option ends up in the key, and the value in a file of mode 0600 alone."""
    options = ["--team", "research", "--models", "chat-default, embed-x", "--days", "0", "--rpm"]
    options += ["5", "--tpm", "700", "--budget", "2.5", "--rotate", "--to", place.to("ci.key")]
    done = place.call("new", "ci", *options)
    key = place.litellm.by_alias("ci")
    assert (key["team_id"], key["models"]) == ("t-1", ["chat-default", "embed-x"])
    assert (key["rpm_limit"], key["tpm_limit"], key["max_budget"]) == (5, 700, 2.5)
    assert key["expires"] is None
    assert key["metadata"]["gatehouse"] == {"days": 0, "rotate": True}
    assert place.litellm.works(place.read("ci.key"))
    assert stat.S_IMODE((place.folder / "ci.key").stat().st_mode) == 0o600
    assert "sk-" not in done.output


@pytest.mark.parametrize(
    ("words", "code", "found"),
    [
        (["new", "a/b"], 1, "is no alias"),
        (["new", "../x"], 1, "is no alias"),
        (["new", "ci@new"], 1, "is no alias"),
        (["new", "ci", "--team", "resaerch"], 1, "did you mean 'research'?"),
        (["new", "ci", "--models", "chat-defalt"], 1, "did you mean 'chat-default'?"),
        (["new", "ci", "--user", "nobody"], 1, "there is no user 'nobody'"),
        (["new", "ci", "--rpm", "0"], 2, "--rpm"),
        (["new", "ci", "--days", "soon"], 2, "--days"),
        (["new", "ci", "--budget", "-1"], 2, "--budget"),
        (["new", "ci", "--to", "/no/such/folder/key"], 1, "there is no folder"),
        (["rotate", "ci"], 1, "there is no key 'ci'"),
        (["rotate"], 2, "--due"),
        (["rotate", "ci", "--due"], 2, "--due"),
        (["rotate", "ci", "--overlap", "5"], 2, "write 30s"),
        (["revoke", "ci", "--yes"], 1, "there is no key 'ci'"),
        (["list", "--expiring", "x"], 2, "--expiring"),
    ],
)
def test_wrong_words_are_refused(place: Place, words: list[str], code: int, found: str) -> None:
    """What cannot be is said, and changes nothing."""
    assert found in " ".join(place.call(*words, code=code).output.split())
    assert place.litellm.keys == {}


def test_alias_is_given_once(place: Place) -> None:
    """A second key of one alias is refused, and the first still works."""
    value = place.call("new", "ci").stdout
    done = place.call("new", "ci", code=1)
    assert "gatehouse keys rotate ci" in done.output
    assert place.litellm.works(value)
    assert place.audit()[-1]["result"] == "failed"


def test_unknown_key_is_suggested(place: Place) -> None:
    """Who mistypes an alias is told the closest."""
    place.call("new", "deploy-bot")
    done = place.call("revoke", "depoly-bot", "--yes", code=1)
    assert "did you mean 'deploy-bot'?" in done.output


def test_nobody_to_ask_revokes_nothing(place: Place) -> None:
    """Without a terminal and without --yes a key stays, and that is in the log."""
    value = place.call("new", "ci").stdout
    assert "--yes" in place.call("revoke", "ci", code=2).output
    assert place.litellm.works(value)
    assert place.audit()[-1]["result"] == "refused"


def test_rotated_key_has_the_same_rights(place: Place) -> None:
    """The new value may do what the old one might, counts on what was spent, and both work."""
    place.call("new", "ci", "--team", "research", "--rpm", "7", "--budget", "3", "--days", "30")
    token = next(iter(place.litellm.keys))
    place.litellm.keys[token] |= {"spend": 1.25, "metadata": {"note": "x"}, "tpm_limit": None}
    others = {name: [name] for name in RIGHTS if name not in place.litellm.keys[token]}
    assert {"permissions", "allowed_routes", "aliases"} <= others.keys()
    place.litellm.keys[token] |= others
    value = place.call("rotate", "ci", "--overlap", "1h").stdout
    new = place.litellm.by_alias("ci")
    assert place.litellm.works(value)
    assert new["token"] == digest(value.strip()) != token
    assert (new["team_id"], new["rpm_limit"], new["max_budget"]) == ("t-1", 7, 3)
    assert (new["spend"], new["metadata"], new["tpm_limit"]) == (1.25, {"note": "x"}, None)
    assert {name: new[name] for name in others} == others
    left = datetime.fromisoformat(new["expires"]) - datetime.now(UTC)
    assert timedelta(days=29) < left <= timedelta(days=30)
    old = place.litellm.keys[token]
    assert old["key_alias"].startswith("ci@")
    left = datetime.fromisoformat(old["expires"]) - datetime.now(UTC)
    assert timedelta(minutes=59) < left <= timedelta(hours=1)


def test_overlap_never_prolongs_a_key(place: Place) -> None:
    """An old value that ends within the overlap ends when it was to end."""
    place.call("new", "ci")
    token = next(iter(place.litellm.keys))
    place.litellm.keys[token]["expires"] = end = _iso(60)
    place.call("rotate", "ci", "--overlap", "1d")
    assert place.litellm.keys[token]["expires"] == end


def test_blocked_key_is_not_rotated(place: Place) -> None:
    """Whoever was shut out is not let in with a new value."""
    place.call("new", "ci")
    place.litellm.by_alias("ci")["blocked"] = True
    assert "is blocked" in place.call("rotate", "ci", code=1).output
    assert len(place.litellm.keys) == 1


@pytest.mark.parametrize("file", [True, False], ids=["file", "screen"])
@pytest.mark.parametrize("step", range(3))
def test_broken_rotation_loses_nothing_and_is_gone_on_with(
    place: Place, step: int, *, file: bool
) -> None:
    """Whatever change is the last, a value that clients have works, and a second call mends it."""
    to = ["--to", place.to("ci.key")] if file else []
    old = place.call("new", "ci", "--to", place.to("old.key")) and place.read("old.key")
    place.litellm.changes, place.litellm.break_at = 0, step
    done = CliRunner().invoke(keys.keys, ["rotate", "ci", "--overlap", "1h", *to])
    assert isinstance(done.exception, BrokenOffError)
    assert "sk-" not in done.output
    assert place.litellm.works(old)
    assert not (place.folder / "ci.key").exists() or place.litellm.works(place.read("ci.key"))
    assert place.audit()[-1]["result"] == "failed"
    printed = place.call("rotate", "ci", "--overlap", "1h", *to).stdout
    value = place.read("ci.key") if file else printed
    assert digest(value.strip()) == place.litellm.by_alias("ci")["token"]
    others = [key for key in place.litellm.keys.values() if key["key_alias"] != "ci"]
    assert all(key["expires"] < _iso(3601) for key in others)
    assert not [key for key in others if key["key_alias"].endswith("@new")]
    assert list(place.folder.glob(".*.new")) == []


def test_restored_key_has_its_end_back(place: Place) -> None:
    """An old key that is needed once more, because nobody got the new value, is what it was."""
    place.call("new", "ci", "--days", "30", "--rotate", "--to", place.to("ci.key"))
    token = next(iter(place.litellm.keys))
    # Sooner than any overlap: what it gets back must end it.
    place.litellm.keys[token]["expires"] = end = _iso(600)
    place.litellm.changes, place.litellm.break_at = 0, 2
    CliRunner().invoke(keys.keys, ["rotate", "ci", "--overlap", "1s", "--to", place.to("a.key")])
    assert place.litellm.keys[token]["key_alias"] != "ci"
    (place.folder / "a.key").unlink()
    place.call("rotate", "ci", "--to", place.to("b.key"))
    new = place.litellm.by_alias("ci")
    assert new["metadata"]["gatehouse"] == {"days": 30, "rotate": True}
    assert place.litellm.works(place.read("b.key"))
    assert new["token"] == digest(place.read("b.key"))
    assert place.litellm.keys[token]["expires"] <= end


def test_due_keys_are_rotated_and_kept(place: Place) -> None:
    """The timer gives marked keys near their end a new value in a file, and leaves the others."""
    place.call("new", "marked", "--rotate")
    place.call("new", "far", "--rotate")
    place.call("new", "plain")
    for alias in ("marked", "plain"):
        place.litellm.by_alias(alias)["expires"] = _iso(3 * DAY)
    before = {key["key_alias"]: key["token"] for key in place.litellm.keys.values()}
    done = checked(place.call("check", "--record", "--rotate", "--json").stdout, "keys-check")
    assert (done["rotated"], done["failed"]) == (["marked"], [])
    assert [each["alias"] for each in done["expiring"]] == ["plain"]
    value = place.read("kept/marked")
    assert place.litellm.by_alias("marked")["token"] == digest(value) != before["marked"]
    assert place.litellm.by_alias("far")["token"] == before["far"]
    kept = state.read("keys")
    assert kept
    assert kept["rotated"] == ["marked"]
    assert time.time() - kept["written"] < 60
    again = checked(place.call("check", "--rotate", "--json").stdout, "keys-check")
    assert again["rotated"] == []


def test_timer_goes_on_with_a_broken_rotation(place: Place) -> None:
    """A key whose rotation was broken off while it had no alias is found by the next run."""
    place.call("new", "ci", "--rotate")
    place.litellm.by_alias("ci")["expires"] = _iso(DAY)
    place.litellm.changes, place.litellm.break_at = 0, 2
    assert CliRunner().invoke(keys.keys, ["rotate", "--due"]).exit_code == 1
    assert not [k for k in place.litellm.keys.values() if k["key_alias"] == "ci"]
    place.call("check", "--record", "--rotate")
    assert place.litellm.by_alias("ci")["token"] == digest(place.read("kept/ci"))


def test_key_that_fails_holds_up_no_other(place: Place) -> None:
    """What cannot be rotated is named, the others are, and the run says that it failed."""
    for alias in ("a", "b"):
        place.call("new", alias, "--rotate")
        place.litellm.by_alias(alias)["expires"] = _iso(DAY)
    (place.folder / "kept/a").chmod(0o644)
    done = checked(place.call("check", "--rotate", "--json", code=1).stdout, "keys-check")
    assert done["rotated"] == ["b"]
    assert done["failed"][0]["alias"] == "a"
    assert "may read it" in done["failed"][0]["problem"]


def test_ended_keys_are_told_and_pruned(place: Place) -> None:
    """Keys that ended are reported, with exit code 1, and deleted when asked; no other."""
    place.call("new", "over")
    place.call("new", "good")
    place.litellm.by_alias("over")["expires"] = _iso(-5)
    assert "over: has ended" in place.call("check", code=1).output
    listed = checked(place.call("list", "--expired", "--json").stdout, "keys-list")
    assert [(key["alias"], key["state"]) for key in listed["keys"]] == [("over", "expired")]
    done = checked(place.call("prune", "--yes", "--json").stdout, "keys-removed")
    assert done["removed"] == ["over"]
    assert [key["key_alias"] for key in place.litellm.keys.values()] == ["good"]
    assert place.audit()[-1]["keys"] == ["over"]
    assert "no key has ended" in place.call("prune", "--yes").output


def test_revoked_key_takes_its_old_values_along(place: Place) -> None:
    """Revoking a key ends what rotations left of it, and removes the value that is kept."""
    old = place.call("new", "ci", "--rotate") and place.read("kept/ci")
    place.call("rotate", "ci")
    new = place.read("kept/ci")
    assert place.litellm.works(old)
    assert place.litellm.works(new)
    place.call("revoke", "ci", "--yes")
    assert place.litellm.keys == {}
    assert not (place.folder / "kept/ci").exists()


def test_list_shows_no_value(place: Place) -> None:
    """The table and the document name keys, and hold no value nor a part of one."""
    value = place.call("new", "ci").stdout.strip()
    place.litellm.by_alias("ci")["key_name"] = f"sk-...{value[-4:]}"
    shown = place.call("list").output
    assert "ci" in shown
    document = place.call("list", "--json").stdout
    checked(document, "keys-list")
    assert "sk-" not in shown + document


def test_made_document_holds_its_schema(place: Place) -> None:
    """--json gives the value once where no file was named, and else does not."""
    made = checked(place.call("new", "a", "--json").stdout, "keys-made")
    assert place.litellm.works(made["key"])
    filed = checked(place.call("new", "b", "--to", place.to("b"), "--json").stdout, "keys-made")
    assert filed["key"] is None


@pytest.mark.parametrize("kind", ["link", "open", "folder", "linked"])
def test_file_that_is_not_ones_own_is_refused(place: Place, kind: str) -> None:
    """A value goes into no link, into no file that others may read, and no key is made for it."""
    path, other = place.folder / "ci.key", place.folder / "other"
    other.write_text("mine\n")
    other.chmod(0o600)
    if kind == "link":
        path.symlink_to(other)
    elif kind == "linked":
        path.hardlink_to(other)
    elif kind == "folder":
        path.mkdir()
    else:
        path.write_text("")
        path.chmod(0o640)
    place.call("new", "ci", "--to", str(path), code=1)
    assert place.litellm.keys == {}
    assert other.read_text() == "mine\n"


def test_folder_that_everybody_writes_is_refused(tmp_path: Path) -> None:
    """Where others could put another file in place, no value is written."""
    tmp_path.chmod(0o777)
    with pytest.raises(ProblemError, match="everybody may replace"):
        keys_deliver.Delivery(tmp_path / "key").check()
    tmp_path.chmod(0o755)


DECLARED = {
    "keys_teams": [{"name": "ops", "budget": 5.0, "budget_period": "30d", "rpm": 50}],
    "keys_users": [{"name": "ada", "teams": ["ops"], "models": ["chat-default"]}],
    "keys_declared": [{"alias": "bot", "team": "ops", "user": "ada", "rotate": True}],
}


def test_declared_things_are_made_once_and_changed(place: Place) -> None:
    """What is declared is made; again, nothing differs; a changed budget is the only change."""
    place.settings = settings(**DECLARED)
    plan = checked(place.call("declare", "--plan", "--json").stdout, "keys-declare")
    assert plan["changes"] == ["team ops: make it", "user ada: make it", "key bot: make it"]
    assert "ops" not in place.litellm.teams
    place.call("declare")
    assert place.litellm.teams["ops"]["max_budget"] == 5
    assert place.litellm.users["ada"]["teams"] == ["ops"]
    bot = place.litellm.by_alias("bot")
    assert (bot["team_id"], bot["user_id"]) == ("ops", "ada")
    assert bot["token"] == digest(place.read("kept/bot"))
    assert place.call("declare").output == ""
    before = place.litellm.changes
    team = {"name": "ops", "budget": 9.0, "budget_period": "30d"}
    place.settings = settings(**DECLARED | {"keys_teams": [team]})
    assert place.call("declare").stdout == "team ops: max_budget 5.0 → 9.0, rpm_limit 50 → None\n"
    assert place.litellm.changes == before + 1
    assert place.litellm.teams["ops"]["rpm_limit"] is None
    assert len([line for line in place.audit() if line["action"] == "keys declare"]) == 4


def test_declared_key_stays_so_after_its_rotation(place: Place) -> None:
    """A rotation changes nothing of what a deploy would have to set right."""
    place.settings = settings(**DECLARED)
    place.call("declare")
    place.call("rotate", "bot")
    assert place.call("declare").output == ""


def test_no_longer_declared_is_left_alone_and_named(place: Place) -> None:
    """Nobody loses a key because a line was taken out; each run says so until it is gone."""
    place.settings = settings(**DECLARED)
    place.call("declare")
    place.settings = settings()
    for _ in range(2):
        found = checked(place.call("declare", "--json").stdout, "keys-declare")
        assert found["left"] == ["team ops", "user ada", "key bot"]
        assert found["changes"] == []
    place.litellm.users.clear()
    place.call("revoke", "bot", "--yes")
    assert checked(place.call("declare", "--json").stdout, "keys-declare")["left"] == ["team ops"]


def test_foreign_key_of_a_declared_alias_is_told(place: Place) -> None:
    """A key that somebody else made keeps its value, and the host says that it has it not."""
    place.call("new", "bot")
    token = next(iter(place.litellm.keys))
    place.settings = settings(keys_declared=[{"alias": "bot"}])
    found = checked(place.call("declare", "--json").stdout, "keys-declare")
    assert "its value is not in" in found["reports"][0]
    assert set(place.litellm.keys) == {token}


@pytest.mark.parametrize(
    ("change", "key", "message"),
    [
        ({"keys_teams": [{"name": "a b"}]}, "keys_teams/0/name", "pattern"),
        ({"keys_teams": [{"name": "a", "limit": 1}]}, "keys_teams/0/limit", "field of a team"),
        ({"keys_teams": [{"name": "a", "rmp": 1}]}, "keys_teams/0/rmp", "did you mean 'rpm'"),
        ({"keys_teams": [{"name": "a"}, {"name": "a"}]}, "keys_teams", "2 times"),
        ({"keys_teams": [{"name": "a", "budget_period": "1d"}]}, "keys_teams/0", "give budget"),
        ({"keys_teams": [{"name": "a", "models": ["chat-defalt"]}]}, "keys_teams/a/models", "mean"),
        ({"keys_users": [{"name": "u", "teams": ["x"]}]}, "keys_users/u/teams", "no team 'x'"),
        ({"keys_declared": [{"alias": "k", "team": "x"}]}, "keys_declared/k/team", "no team 'x'"),
        ({"keys_declared": [{"alias": "k", "user": "x"}]}, "keys_declared/k/user", "no user 'x'"),
        ({"keys_declared": [{"alias": "k@new"}]}, "keys_declared/k@new/alias", "rotation"),
        (
            {"keys_declared": [{"alias": "k", "rotate": True, "days": 7}]},
            "keys_declared/k/days",
            "all the time",
        ),
        ({"litellm_key_rpm": 5}, "litellm_key_rpm", "keys_rpm"),
        ({"keys_days": -1}, "keys_days", "greater than or equal to 0"),
    ],
)
def test_wrong_declaration_is_named(change: dict[str, Any], key: str, message: str) -> None:
    """A mistake in what is declared is found before a host is touched."""
    assert message in problems(**change)[key]


def test_defaults_reach_litellm() -> None:
    """Keys that are made elsewhere get the same limits and the same end."""
    params = proxy(keys_rpm=9, keys_days=0)["litellm_settings"]["default_key_generate_params"]
    assert params == {"rpm_limit": 9, "tpm_limit": 60000}


def _judged(*found: dict[str, Any]) -> dict[str, str]:
    output = json.dumps({"errors": {}, "keys": list(found)})
    results = {check.name: check.judge(0, output) for check in checks.checks(settings())}
    return {name: result.found for name, result in results.items() if not result.holds}


@pytest.mark.parametrize(
    ("key", "names"),
    [
        ({"alias": "a", "left": None, "limited": True}, []),
        ({"alias": "a", "left": 15.0 * DAY, "limited": True}, []),
        ({"alias": "a", "left": 13.0 * DAY, "limited": True}, ["keys: none ends soon"]),
        ({"alias": "a", "left": -1.0, "limited": True}, ["keys: none has ended"]),
        ({"alias": "a", "left": None, "limited": False}, ["keys: all have limits"]),
    ],
)
def test_check_names_the_key(key: dict[str, Any], names: list[str]) -> None:
    """Each check fails for its own reason, and says which key."""
    assert _judged({"alias": "good", "left": None, "limited": True}, key) == dict.fromkeys(
        names, "a"
    )


def test_checks_share_one_question_and_only_warn() -> None:
    """The database is asked once, and no deploy fails because a key ended."""
    found = checks.checks(settings())
    assert len({check.command for check in found}) == 1
    assert {check.severity for check in found} == {"warning"}


def test_without_permission_nothing_is_looked_at(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Who is not root is told to use sudo, with the whole command."""
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    done = CliRunner().invoke(keys.keys, ["list"])
    assert done.exit_code == 2
    assert "sudo gatehouse keys list" in done.output
