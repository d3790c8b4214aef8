"""What the host remembers: whole documents, or none."""

from pathlib import Path

import pytest

from gatehouse import state


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Keep it in a folder of the test."""
    path = tmp_path / "state"
    monkeypatch.setattr(state, "FOLDER", path)
    return path


def test_document_is_read_as_it_was_written(folder: Path) -> None:
    """With the time, for root and the readers' group only, and without anything beside it."""
    state.write("smoke", {"steps": [1, 2]})
    found = state.read("smoke")
    assert found
    assert found["steps"] == [1, 2]
    assert found["written"] > 1_700_000_000
    assert [path.name for path in folder.iterdir()] == ["smoke.json"]
    assert (folder / "smoke.json").stat().st_mode & 0o777 == 0o640


def test_what_cannot_be_written_leaves_the_old_one(folder: Path) -> None:
    """A document that is no JSON changes nothing and leaves no part behind."""
    state.write("smoke", {"steps": 1})
    with pytest.raises(TypeError):
        state.write("smoke", {"steps": {1, 2}})
    assert (state.read("smoke") or {})["steps"] == 1
    assert len(list(folder.iterdir())) == 1


@pytest.mark.parametrize("content", ["", "{", "[1]", "null"])
def test_what_is_no_document_is_none(folder: Path, content: str) -> None:
    """A damaged file is as good as none: the next run writes it anew."""
    folder.mkdir()
    (folder / "smoke.json").write_text(content)
    assert state.read("smoke") is None
    assert state.read("other") is None
