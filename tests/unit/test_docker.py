"""Docker: our part of daemon.json, merged into the operator's, and versions."""

from typing import Any

import pytest

from gatehouse.checks.docker import checks
from gatehouse.deploys.docker import source, version
from gatehouse.render.docker import merge, text, wanted
from tests.given import rendered, settings

OURS = wanted(settings())


def test_daemon_is_hardened() -> None:
    """What Gatehouse stands for, and the file on a host that had none."""
    assert OURS == {
        "icc": False,
        "live-restore": True,
        "log-driver": "local",
        "log-opts": {"max-file": "3", "max-size": "10m"},
        "no-new-privileges": True,
    }
    assert rendered().files["/etc/docker/daemon.json"].content == text(OURS)


def test_live_restore_follows_its_setting() -> None:
    """A host in a swarm cannot have live-restore, and its check expects none."""
    s = settings(docker_live_restore=False)
    assert wanted(s)["live-restore"] is False
    (check,) = (each for each in checks(s) if each.name == "docker: live restore as set")
    assert check.expected == "false"


@pytest.mark.parametrize(
    ("present", "before", "merged", "kept"),
    [
        ({}, {}, {"a": 1, "b": 2}, []),
        ({"x": 9}, {}, {"x": 9, "a": 1, "b": 2}, []),
        ({"a": 7}, {}, {"a": 7, "b": 2}, ["a"]),
        ({"a": 1}, {}, {"a": 1, "b": 2}, []),
        ({"a": 5, "b": 2}, {"a": 5, "b": 2}, {"a": 1, "b": 2}, []),
        ({"a": 7, "b": 2}, {"a": 5, "b": 2}, {"a": 7, "b": 2}, ["a"]),
        ({"b": 2}, {"a": 1, "b": 2}, {"a": 1, "b": 2}, []),
        ({"a": 1, "b": 2, "old": 3}, {"old": 3}, {"a": 1, "b": 2}, []),
        ({"a": 1, "b": 2, "old": 4}, {"old": 3}, {"a": 1, "b": 2, "old": 4}, []),
    ],
    ids=[
        "no file",
        "operator's other key stays",
        "operator's value wins",
        "same value",
        "our old value is replaced",
        "operator changed ours",
        "our key was deleted",
        "our old key goes",
        "our old key, changed, stays",
    ],
)
def test_merge_knows_whose_key_it_is(
    present: dict[str, Any], before: dict[str, Any], merged: dict[str, Any], kept: list[str]
) -> None:
    """Ours are replaced and removed; what the operator set or changed stays, and is named."""
    ours = {"a": 1, "b": 2}
    assert merge(present, before, ours) == (merged, kept)
    assert merge(merged, ours, ours)[0] == merged


def test_merge_leaves_another_log_driver_without_our_options() -> None:
    """The options of `local` would stop a daemon that logs to journald."""
    merged, kept = merge({"log-driver": "journald"}, {}, OURS)
    assert merged["log-driver"] == "journald"
    assert "log-opts" not in merged
    assert kept == ["log-driver"]


def test_merge_takes_our_options_back_with_the_driver() -> None:
    """An operator who changes our log driver later is not left with our options for it."""
    merged, kept = merge(OURS | {"log-driver": "journald"}, OURS, OURS)
    assert "log-opts" not in merged
    assert "log-driver" in kept


def test_merge_leaves_options_that_are_like_ours_by_chance() -> None:
    """What the operator wrote is the operator's, even when we would have written the same."""
    present = {"log-driver": "json-file", "log-opts": OURS["log-opts"]}
    assert merge(present, {}, OURS)[0]["log-opts"] == OURS["log-opts"]


def test_text_is_canonical() -> None:
    """The same settings are the same bytes, whatever their order."""
    assert text({"b": 1, "a": 2}) == text({"a": 2, "b": 1}) == '{\n  "a": 2,\n  "b": 1\n}\n'


@pytest.mark.parametrize(
    ("printed", "expected"),
    [
        ("26.1.5+dfsg1", (26, 1, 5)),
        ("2.26.1-4", (2, 26, 1)),
        ("v5.0.0", (5, 0, 0)),
        ("2.30", (2, 30, 0)),
        ("28.3.3-rc.1", (28, 3, 3)),
        ("", (0, 0, 0)),
    ],
)
def test_version_is_read(printed: str, expected: tuple[int, int, int]) -> None:
    """The first three numbers count; nothing is lower than any version."""
    assert version(printed) == expected


def test_versions_are_ordered_as_numbers() -> None:
    """2.9 is before 2.30."""
    assert version("2.9.0") < version("2.24.0") < version("2.30.0") < version("28.3.3")


def test_source_names_its_key() -> None:
    """Apt trusts the repository by its own key only; the paths are those of older releases."""
    found = source(settings(docker_repository_url="https://repository.example"), "debian 13")
    assert found.path == "/etc/apt/sources.list.d/gatehouse-docker.sources"
    assert found.text == (
        "Types: deb\nURIs: https://repository.example/debian\nSuites: trixie\n"
        "Components: stable\nSigned-By: /etc/apt/keyrings/docker.asc\n"
    )
    assert found.key_url == "https://repository.example/debian/gpg"
