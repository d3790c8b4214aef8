"""What is wrong with a command is said before pyinfra connects to a host, with exit code 1."""

from pathlib import Path

import pytest

from tests.given import run

BAD = """boxes = [
    ("one", {"litellm_prot": 4001, "litellm_port": "4000"}),
    ("two", {"network_bind_address": "0.0.0.0", "redis_port": 5434}),
]
"""


@pytest.fixture(autouse=True)
def inventories(place: Path) -> None:
    """Write inventories: a good one, and two that cannot be used."""
    (place / "inventory").write_text('boxes = ["@fake/box"]\n')
    (place / "empty").write_text("boxes = []\n")
    (place / "bad").write_text(BAD)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["empty", "deploy.py"], ["the inventory 'empty' has no hosts"]),
        (["nowhere.py", "deploy.py"], ["the inventory 'nowhere.py'", "check the path"]),
        (["inventory", "deploy.py", "--limit", "nobody"], ["--limit nobody", "@fake/box"]),
        (["inventory", "deploy.py", "--exclude", "bxo"], ["--exclude bxo matches no host"]),
        (["inventory", "deploy.py", "--exclude", "all"], ["--exclude all matches no host"]),
        (["inventory", "deploy.py", "--exclude", "*"], ["together leave no host"]),
        (["inventory", "deploy.py", "--data", "litellm_port"], ["write it as key=value"]),
        (
            ["inventory", "deploy.py", "--data", "litellm_prot=4001"],
            ["@fake/box: litellm_prot: is not a setting (did you mean 'litellm_port'?)"],
        ),
        (
            ["bad", "deploy.py"],
            [
                "problems in the settings: 4;",
                "one: litellm_prot: ",
                "one: litellm_port: ",
                "two: network_bind_address: ",
                "two: redis_port: ",
            ],
        ),
        # The settings of hosts that are not deployed to may be wrong.
        (
            ["bad", "deploy.py", "--limit", "two"],
            ["problems in the settings: 2;", "two: redis_port: "],
        ),
    ],
    ids=lambda value: " ".join(value) if value and "deploy.py" in value else "",
)
def test_wrong_command_ends_before_it_connects(
    place: Path, arguments: list[str], said: list[str]
) -> None:
    """Exit code 1, every problem in plain words, no traceback, and nobody was connected to."""
    done = run(place, "pyinfra", *arguments, "-y")
    output = done.stdout + done.stderr
    assert done.returncode == 1
    for words in said:
        assert words in output
    assert "Traceback" not in output
    assert "Connecting" not in output


def test_problem_in_the_file_with_keys_is_found_early(place: Path) -> None:
    """A provider key without its name is refused before anything else, and not shown."""
    (place / "keys.env").write_text("sk-not-shown\n")
    done = run(place, "pyinfra", "inventory", "deploy.py", "-y", "--data", "secrets_file=keys.env")
    assert done.returncode == 1
    assert "keys.env:1: is not NAME=value" in done.stderr
    assert "sk-not-shown" not in done.stderr
    assert "Connecting" not in done.stderr
