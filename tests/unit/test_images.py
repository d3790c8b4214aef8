"""Images: pinned, and never a LiteLLM that is known to be bad."""

import os
import shutil
import subprocess
from dataclasses import fields
from pathlib import Path

import pytest

from gatehouse.deploys.images import _unreadable, load, room, wanted
from gatehouse.lab.images import GATEWAY, LabImages
from gatehouse.lab.settings import overrides
from gatehouse.settings import Settings
from gatehouse.settings.version import Version, floating, holes, refusal, tag
from tests.given import MACHINE, problems, settings

NAME = "ghcr.io/berriai/litellm-non_root"
DIGEST = "@sha256:" + "0" * 64
# Keeps names as files, which hold the images' IDs; an archive is a folder of them.
DOCKER = """#!/bin/sh
cd "$(dirname "$0")/names" || exit 1
case "$1 $2" in
"image inspect") cat "$5" ;;
"load --quiet") cp ../archive/* . && [ ! -e broken ] || { echo unexpected EOF >&2; exit 1; } ;;
"tag "*) printf %s "$2" >"$3" ;;
"rmi "*) rm "$2" ;;
esac
"""
HOLES = {
    "CVE-2026-42208",
    "CVE-2026-42271",
    "CVE-2026-42203",
    "CVE-2026-40217",
    "CVE-2026-49468",
    "CVE-2026-59822",
    "GHSA-g5ff-637f-6q2m",
    "CVE-2026-114612",
}


@pytest.mark.parametrize(
    ("image", "expected"),
    [
        ("redis:7-alpine", "7-alpine"),
        ("redis", ""),
        ("localhost:5000/redis", ""),
        ("localhost:5000/x:1.108.12", "1.108.12"),
        (f"localhost:5000/x:1.108.12{DIGEST}", "1.108.12"),
        (f"redis{DIGEST}", ""),
    ],
)
def test_tag_is_found_behind_a_port(image: str, expected: str) -> None:
    """A registry's port is no tag, and a digest is none either."""
    assert tag(image) == expected


@pytest.mark.parametrize(
    "image",
    [
        f"{NAME}:v1.108.12",
        f"{NAME}:1.108.12",
        f"{NAME}:v1.103.8",
        f"{NAME}:v1.108.12-stable",
        f"{NAME}:v1.108.12.rc.1",
        f"{NAME}:v1.108.12{DIGEST}",
        "localhost:5000/x:1.108.12",
        f"{NAME}:v2.0.0",
        f"{NAME}:v1.106.3",
    ],
)
def test_good_version_is_accepted(image: str) -> None:
    """A version above the floor that is not on the list may serve."""
    assert refusal(image) is None
    assert not problems(litellm_image=image)


@pytest.mark.parametrize(
    ("image", "why"),
    [
        (f"{NAME}:v1.82.7", "MAL-2026-2144"),
        (f"{NAME}:1.82.8", "MAL-2026-2144"),
        (f"{NAME}:v1.106.2", "without a network"),
        (f"{NAME}:v1.107.0", "withdrew trust"),
        (f"{NAME}:v1.107.0-nightly", "withdrew trust"),
        (f"localhost:5000/x:1.107.0{DIGEST}", "withdrew trust"),
        (f"{NAME}:v1.103.7", "a key that their vendor has replaced"),
        (f"{NAME}:v1.103.0", "CVE-2026-114612"),
        (f"{NAME}:v1.102.1", "CVE-2026-114612"),
        (f"{NAME}:v1.102.2", "nobody mends its line any more"),
        (f"{NAME}:v1.94.3", "GHSA-g5ff-637f-6q2m"),
        (f"{NAME}:v1.83.14", "CVE-2026-59822"),
        (f"{NAME}:v1.83.14", "CVE-2026-49468"),
        (f"{NAME}:v1.83.13", "CVE-2026-40217"),
        (f"{NAME}:v1.83.6", "CVE-2026-42208"),
        (f"{NAME}:v1.83.6", "CVE-2026-42271"),
        (f"{NAME}:v1.83.6", "CVE-2026-42203"),
        (f"{NAME}:v1.9.99", "CVE-2026-59822"),
        (f"{NAME}:v0.200.0", "CVE-2026-59822"),
        (f"{NAME}:main-latest", "'main-latest' is not a version"),
        (f"{NAME}:latest", "is not a version"),
        (f"{NAME}:v1.108", "is not a version"),
        (NAME, "(none)"),
        ("localhost:5000/litellm", "(none)"),
        (f"{NAME}{DIGEST}", "before the digest"),
    ],
)
def test_bad_version_is_refused_with_its_reason(image: str, why: str) -> None:
    """A refused version says why, and which one to use."""
    message = problems(litellm_image=image)["litellm_image"]
    assert why in message
    assert "1.108.12" in message


@pytest.mark.parametrize(
    ("version", "known"),
    [
        ((1, 103, 0), {"CVE-2026-114612"}),
        ((1, 103, 1), set()),
        ((1, 102, 2), set()),
        ((1, 101, 2), {"CVE-2026-114612"}),
        ((1, 100, 4), set()),
        ((1, 99, 0), {"CVE-2026-114612"}),
        ((1, 81, 15), HOLES - {"CVE-2026-42208"}),
        ((1, 81, 16), HOLES),
        ((1, 83, 7), HOLES - {"CVE-2026-42208", "CVE-2026-42271", "CVE-2026-42203"}),
        ((1, 84, 0), {"GHSA-g5ff-637f-6q2m", "CVE-2026-114612"}),
    ],
)
def test_holes_are_those_that_the_version_has(version: Version, known: set[str]) -> None:
    """A hole is counted from the version that brought it to the one of its line that closed it."""
    assert {name.split()[0] for name in holes(version)} == known


@pytest.mark.parametrize("image", ["redis", "redis:latest", "redis:alpine", "localhost:5000/redis"])
@pytest.mark.parametrize("key", ["postgres_image", "redis_image"])
def test_floating_image_is_refused(key: str, image: str) -> None:
    """An image that can be another one tomorrow is not installed."""
    assert floating(image)
    assert "pin a version or a digest" in problems(**{key: image})[key]


@pytest.mark.parametrize("image", ["redis:7", f"redis:latest{DIGEST}", "localhost:5000/redis:8.0"])
def test_pinned_image_is_accepted(image: str) -> None:
    """A version or a digest pins an image."""
    assert not problems(redis_image=image)


def test_archive_is_needed_when_images_come_from_one() -> None:
    """`images_source = "archive"` without a path is refused; with one it is fine."""
    assert "docker save" in problems(images_source="archive")["images_archive"]
    assert not problems(images_source="archive", images_archive="build/images.tar")


@pytest.mark.parametrize(("share", "fits"), [(0.4, True), (0.6, False)])
def test_archive_needs_room_twice_where_docker_has_the_same_disk(
    tmp_path: Path, share: float, *, fits: bool
) -> None:
    """Once for itself and once for what is loaded from it; else it says what is free."""
    command = room(int(shutil.disk_usage(tmp_path).free * share), str(tmp_path), str(tmp_path))
    done = subprocess.run(["sh", "-c", command], capture_output=True, text=True, check=False)
    assert (done.returncode == 0) is fits
    assert (f"MiB are free on {tmp_path}, " in done.stderr) is not fits


@pytest.mark.parametrize(
    ("holds", "left", "words"),
    [
        ({"redis:8": "r"}, {"redis:8": "r", "postgres:17": "p"}, ""),
        ({"redis:8": "r", "postgres:17": "p"}, {"redis:8": "r", "postgres:17": "p"}, ""),
        (
            {"redis:8": "r", "postgres:17": "q"},
            {"redis:8": "r", "postgres:17": "p"},
            "x.tar holds another postgres:17 than images.lock says: q: make it again",
        ),
        (
            {"redis:8": "s"},
            {"postgres:17": "p"},
            "x.tar holds another redis:8 than images.lock says: s: make it again",
        ),
        ({"other:1": "o"}, {"other:1": "o", "postgres:17": "p"}, "does not hold redis:8: make"),
        (
            {"postgres:17": "q", "broken": "1"},
            {"postgres:17": "p", "broken": "1"},
            "unexpected EOF",
        ),
    ],
    ids=["missing", "both", "another beside", "another", "lacks it", "broken off"],
)
def test_archive_takes_no_locked_name_away(
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    holds: dict[str, str],
    left: dict[str, str],
    words: str,
) -> None:
    """Docker gives each name to the archive's image; another than the locked one loses it again."""
    names, archive = tmp_path / "names", tmp_path / "archive"
    for folder, images in ((names, {"postgres:17": "p"}), (archive, holds)):
        folder.mkdir()
        for name, number in images.items():
            (folder / name).write_text(number)
    docker = tmp_path / "docker"
    docker.write_text(DOCKER)
    docker.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    command = load("x.tar", {"postgres:17": ["p", "p2"], "redis:8": ["r"]}, ["redis:8"])
    done = subprocess.run(["sh", "-c", command], capture_output=True, text=True, check=False)
    assert (done.returncode, bool(done.stderr)) == ((1, True) if words else (0, False)), done.stderr
    assert {path.name: path.read_text() for path in names.iterdir()} == left
    assert words in done.stderr


def test_every_image_is_fetched() -> None:
    """What the deploy fetches is what the settings name."""
    found = wanted(settings(redis_image="redis:8"), MACHINE)
    assert sorted(found) == sorted(["postgres:16-alpine", "redis:8", f"{NAME}:v1.108.12"])


def test_lab_knows_the_setting_of_each_image() -> None:
    """Every image of the lab's gateway has a setting, which the lab overrides."""
    lab = LabImages("built", *(f"{each.name}:1" for each in fields(LabImages)[1:]))
    given = overrides(lab)
    assert [given[setting] for setting in GATEWAY.values()] == list(lab.gateway)
    assert set(GATEWAY.values()) <= set(Settings.model_fields)
    assert not problems(engines_llamacpp_image=lab.llamacpp)


def test_unreadable_archive_is_told_from_a_missing_one(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Who may not look into its folder, or read it, is told so, and sees no traceback."""
    archive = tmp_path / "images.tar"
    assert "no such file" in str(_unreadable(archive))
    archive.touch()
    assert _unreadable(archive) is None
    monkeypatch.setattr(os, "access", lambda *_: False)
    assert "may not read it: change its mode" in str(_unreadable(archive))

    def refused(_: Path) -> bool:
        raise PermissionError

    monkeypatch.setattr(Path, "is_file", refused)
    assert "may not look there on this machine: move it" in str(_unreadable(archive))
