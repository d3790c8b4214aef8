"""Health: every statement of the one list of checks is true, and those are all that a host has."""

import pytest

from gatehouse.checks import Result


def test_check_holds(checked: dict[str, tuple[Result, str]], check_name: str) -> None:
    """The check holds on the host; the message says what to do."""
    if check_name not in checked:
        pytest.skip("a check of another host, which has other settings")
    result, expected = checked[check_name]
    assert result.holds, f"found {result.found}; expected {expected}"
