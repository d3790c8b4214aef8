"""LiteLLM's own web interface in a real browser, through an operator's tunnel."""

from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, expect

from gatehouse.lab.tunnel import tunnel
from gatehouse.lab.workstation import Workstation
from tests.browser import Seen, seen

ALIAS = "seen-in-the-browser"
# It loads a few megabytes of script, on machines with two cores.
MILLISECONDS = 60_000


@pytest.fixture
def view(browser: Browser, workstation: Workstation) -> Iterator[Seen]:
    """Give the login page; whatever is done there reaches no other machine."""
    with (
        tunnel(workstation, 4000) as port,
        seen(browser, f"http://127.0.0.1:{port}/ui/", viewport={"width": 1280, "height": 900}) as s,
    ):
        s.page.set_default_timeout(MILLISECONDS)
        yield s.open()
        assert [trouble for trouble in s.troubles if trouble.startswith("asked ")] == []


def log_in(view: Seen, password: str) -> None:
    """Type the name and the password, and send them."""
    view.page.locator("input[name=username]").fill("admin")
    view.page.locator("input[type=password]").fill(password)
    view.page.get_by_role("button", name="Login", exact=True).click()


def test_generated_password_opens_it(view: Seen, workstation: Workstation) -> None:
    """The admin logs in with what the host has made, and sees the keys that there are."""
    workstation.exec(f"gatehouse keys new {ALIAS} --to /root/{ALIAS}")
    try:
        log_in(view, workstation.exec("cat /etc/gatehouse/secrets/ui_password").stdout)
        view.page.get_by_text("Virtual Keys", exact=True).first.click()
        expect(view.page.get_by_text(ALIAS).first).to_be_visible(timeout=MILLISECONDS)
    finally:
        workstation.exec(f"gatehouse keys revoke {ALIAS} --yes; rm /root/{ALIAS}")


def test_another_password_does_not(view: Seen) -> None:
    """Who does not know it stays outside."""
    log_in(view, "not-the-password")
    expect(view.page.get_by_text("Invalid", exact=False).first).to_be_visible(timeout=MILLISECONDS)
    assert view.page.locator("input[type=password]").is_visible()
