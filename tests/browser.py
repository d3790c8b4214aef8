"""A real browser, headless, that notes what a page should not do."""

import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from playwright.sync_api import Browser, Page, sync_playwright

from gatehouse.lab.engine import install
from gatehouse.lab.progress import Progress

# Of every text that is to be seen: its contrast with what is behind it, the worst first.
CONTRAST = """() => {
  const channel = (v) => (v /= 255) <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4;
  const light = ([r, g, b]) => 0.2126 * channel(r) + 0.7152 * channel(g) + 0.0722 * channel(b);
  const parts = (color) => color.match(/[\\d.]+/g).map(Number);
  const behind = (node) => {
    for (; node; node = node.parentElement) {
      const [r, g, b, a = 1] = parts(getComputedStyle(node).backgroundColor);
      if (a) return [r, g, b];
    }
    return [255, 255, 255];
  };
  const found = [];
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const element = walker.currentNode.parentElement;
    const text = walker.currentNode.textContent.trim();
    if (!text || !element.checkVisibility() || element.closest(".said, noscript, svg")) continue;
    const [one, two] = [light(parts(getComputedStyle(element).color)), light(behind(element))];
    const ratio = (Math.max(one, two) + 0.05) / (Math.min(one, two) + 0.05);
    found.push([Math.round(ratio * 100) / 100, text.slice(0, 40)]);
  }
  return found.sort((a, b) => a[0] - b[0]);
}"""


@dataclass
class Seen:
    """A page, and what it did."""

    page: Page
    origin: str
    troubles: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        """Listen from the beginning."""
        self.page.on("console", lambda message: self._note(message.type, message.text))
        self.page.on("pageerror", lambda error: self._note("error", str(error)))
        self.page.on("request", lambda request: self._asked(request.url))

    def _note(self, kind: str, text: str) -> None:
        if kind in {"error", "warning"}:
            self.troubles.append(f"console {kind}: {text}")

    def _asked(self, url: str) -> None:
        if urlsplit(url).netloc != urlsplit(self.origin).netloc:
            self.troubles.append(f"asked {url}")

    def open(self) -> "Seen":
        """Go there and wait until it is loaded."""
        self.page.goto(self.origin, wait_until="load")
        return self

    @property
    def headline(self) -> str:
        """Give the one sentence that people came for."""
        return self.page.locator("h1").inner_text().strip()

    @property
    def words(self) -> str:
        """Give what is to be read, in one line."""
        return re.sub(r"\s+", " ", self.page.locator("body").inner_text())


@contextmanager
def chromium(progress: Progress) -> Iterator[Browser]:
    """Run Debian's Chromium; it is installed where it is missing."""
    install({"chromium": "chromium"}, progress)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=shutil.which("chromium"),
            # The lab runs as root in containers, where Chromium's own sandbox cannot.
            args=["--no-sandbox", "--disable-dev-shm-usage"],
        )
        try:
            yield browser
        finally:
            browser.close()


@contextmanager
def seen(browser: Browser, origin: str, **options: Any) -> Iterator[Seen]:  # noqa: ANN401 - Playwright's
    """Give a page of a browser of its own, which has nothing kept."""
    context = browser.new_context(**options)
    try:
        yield Seen(context.new_page(), origin)
    finally:
        context.close()
