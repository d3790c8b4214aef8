"""`gatehouse inventory`: what came and what went."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from gatehouse import state
from gatehouse.tool import here
from gatehouse.tool.inventory import InventoryDocument, inventory
from tests.given import settings
from tests.litellm_api import EMBED, LiteLLM, play


@pytest.fixture
def litellm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> LiteLLM:
    """Give the gateway of a host with the shipped settings."""
    monkeypatch.setattr(state, "FOLDER", tmp_path)
    monkeypatch.setattr(here, "settings", settings)
    return play(monkeypatch)


def look(*arguments: str) -> InventoryDocument:
    """Run the command and read what it printed."""
    found = CliRunner().invoke(inventory, ["--json", *arguments])
    assert found.exit_code == 0, found.output
    return InventoryDocument.model_validate_json(found.stdout)


def test_first_time_nothing_is_new(litellm: LiteLLM) -> None:
    """Without a record there is nothing to compare with."""
    found = look("--record")
    assert found.since is None
    assert found.added == found.removed == []
    assert [each.name for each in found.models] == sorted(
        model["model_name"] for model in litellm.models
    )


def test_what_came_and_went_is_told_until_it_is_recorded(litellm: LiteLLM) -> None:
    """Looking changes nothing; recording makes it the new state, and keeps the change."""
    first = look("--record")
    litellm.models.remove(EMBED)
    litellm.aliases.append("chat-default")
    for _ in range(2):
        found = look()
        assert (found.added, found.removed) == (["chat-default"], ["embed-selftest-builtin"])
        assert found.since == first.checked
    look("--record")
    after = look()
    assert after.added == after.removed == []
    assert [(each.added, each.removed) for each in after.changes] == [
        (["chat-default"], ["embed-selftest-builtin"])
    ]


def test_table_shows_the_change(litellm: LiteLLM) -> None:
    """People see it in the last column."""
    look("--record")
    litellm.models.remove(EMBED)
    litellm.aliases.append("chat-default")
    lines = CliRunner().invoke(inventory).stdout.splitlines()
    assert any(line.split() == ["chat-default", "alias", "added"] for line in lines)
    assert any(line.split() == ["embed-selftest-builtin", "removed"] for line in lines)


def test_no_model_is_asked(litellm: LiteLLM) -> None:
    """Only lists are read, so nothing wakes."""
    look()
    assert {path for path, _ in litellm.asked} == {"/v1/models", "/v1/model/info"}


def test_record_that_cannot_be_read_is_none(litellm: LiteLLM) -> None:
    """A malformed file counts as no record."""
    (state.FOLDER / "inventory.json").write_text("{not json")
    assert look().since is None
    (state.FOLDER / "inventory.json").write_text(json.dumps({"models": 3}))
    assert look().since is None
