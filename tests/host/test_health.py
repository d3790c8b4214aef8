"""Health: every statement of the one list of checks is true, and those are all that a host has."""

import pytest

from gatehouse.checks import Finding


def test_check_holds(
    request: pytest.FixtureRequest, checked: dict[str, Finding], check_name: str
) -> None:
    """The check holds on the host; the message says what to do.

    A person's own host may be warned of: a key that ends soon proves nothing wrong with a deploy.
    """
    if check_name not in checked:
        pytest.skip("a check of another host, which has other settings")
    found = checked[check_name]
    words = f"found {found.result.found}; expected {found.check.expected}; fix: {found.check.fix}"
    if found.state == "warning" and request.config.option.hosts:
        pytest.skip(f"warning: {check_name}: {words}")
    assert found.result.holds, words
