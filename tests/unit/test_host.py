"""The host: its group of readers and its directories."""

import pytest

from gatehouse.checks.host import checks
from gatehouse.deploys.host import DIRECTORIES, READERS
from tests.given import problems, settings


@pytest.mark.parametrize("group", ["root", "docker", "sudo", "shadow"])
def test_group_that_means_more_is_refused(group: str) -> None:
    """Readers of the settings do not become administrators by that."""
    assert "its own group" in problems(host_group=group)["host_group"]


def test_every_directory_is_checked() -> None:
    """What the deploy makes, a check looks at, with the same mode and group."""
    expected = {check.name.removeprefix("host: "): check.expected for check in checks(settings())}
    for path, (mode, owner, group) in DIRECTORIES.items():
        assert expected[path] == f"{mode} {owner} {'gatehouse' if group is READERS else group}"


def test_only_readable_directories_are_open() -> None:
    """Secrets are for root alone, and nothing is writable for others."""
    assert DIRECTORIES["/etc/gatehouse/secrets"] == ("700", "root", "root")
    assert all(int(mode, 8) & 0o022 == 0 for mode, *_ in DIRECTORIES.values())
