"""Who is to be told is told: once when a check begins to fail, and once when it holds again.

`python -m gatehouse.health.alerts`, started after each look of root's collector. It reads the
document, remembers what it told in its own state directory, and speaks to one address.
"""

import argparse
import os
import smtplib
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from email.message import EmailMessage
from pathlib import Path
from typing import Any

import httpx

from gatehouse.health import told
from gatehouse.health.document import Document, Missing, read
from gatehouse.health.told import Known, Memory
from gatehouse.tool.show import span

SECONDS = 10.0
_BAD = 300
_SMTP = ("127.0.0.1", 25)
LOOK = "health: somebody looks"
_RANK = {"warning": 0, "failure": 1}


@dataclass(frozen=True)
class Message:
    """What is told at once: what began to fail, what holds again, and what goes on failing."""

    host: str
    began: dict[str, Known]
    ended: dict[str, Known]
    firing: int

    @property
    def title(self) -> str:
        """Give one line."""
        names = ", ".join(self.began or self.ended)
        return f"{self.host}: {names} {'does not hold' if self.began else 'holds again'}"

    @property
    def text(self) -> str:
        """Give it for people: what, found, and what to do."""
        lines = []
        for name, check in self.began.items():
            lines += [f"{self.host}: {name} does not hold", f"  expected {check.expected}"]
            lines += [f"  found {check.found}", f"  fix: {check.fix}"]
        lines += [f"{self.host}: {name} holds again" for name in self.ended]
        if self.firing:
            lines.append(f"{self.firing} in all do not hold now")
        return "\n".join(lines)

    def json(self, now: float) -> dict[str, Any]:
        """Give it for programs; `text` is what chat services show."""
        return {
            "version": 1,
            "host": self.host,
            "status": "firing" if self.firing else "resolved",
            "text": self.text,
            "alerts": [
                {
                    "name": name,
                    "status": status,
                    "component": check.component,
                    "severity": check.severity,
                    "expected": check.expected,
                    "found": check.found,
                    "fix": check.fix,
                    "since": check.since,
                    "seconds": round(now - check.since, 1),
                }
                for status, checks in (("firing", self.began), ("resolved", self.ended))
                for name, check in checks.items()
            ],
        }


class Undelivered(Exception):  # noqa: N818 - a state of affairs
    """Nobody could be told; the message names neither the address nor anything in it."""


def failing(document: Document, severity: str, now: float) -> dict[str, Known]:
    """Give what does not hold; what only follows from something else is not told.

    Where nobody looks, that is what does not hold: nothing can be said of the rest.
    """
    trouble = None
    if document.stale(now):
        trouble = f"the last look is {span(now - document.gathered)} old"
    elif document.status is None:
        trouble = document.troubles.get("status", "the checks could not be made")
    if trouble or document.status is None:
        nobody = Known(
            since=now,
            component="health",
            expected=f"the checks are made every {span(document.interval_seconds)}",
            found=trouble or "",
            fix="journalctl -u gatehouse-collect",
            severity="failure",
        )
        return {LOOK: nobody}
    return {
        check.name: Known(
            since=now,
            component=check.component,
            expected=check.expected,
            found=check.found,
            fix=check.fix,
            severity=check.severity,
        )
        for check in document.status.checks
        if check.state in _RANK and _RANK[check.state] >= _RANK[severity]
    }


def step(
    memory: Memory, found: dict[str, Known], hushed: set[str], after: float, now: float
) -> tuple[dict[str, Known], dict[str, Known], dict[str, Known]]:
    """Give what is to be known from now on, what is to be told, and what is resolved.

    `hushed`: checks of which nothing can be said now. Something that fails goes on being the same
    failure while its words change.
    """
    known = {
        name: check.model_copy(
            update={"since": memory.known[name].since, "told": memory.known[name].told}
        )
        if name in memory.known
        else check
        for name, check in found.items()
    }
    known |= {name: check for name, check in memory.known.items() if name in hushed}
    began = {
        name: check
        for name, check in known.items()
        if name in found and not check.told and now - check.since >= after
    }
    ended = {
        name: check for name, check in memory.known.items() if check.told and name not in known
    }
    return known, began, ended


def tell(  # noqa: PLR0913 - what there is to be known
    document: Document,
    folder: Path,
    send: Callable[[Message], None],
    *,
    severity: str,
    after: float,
    now: float,
) -> Message | None:
    """Tell what has changed since the last time; give the message, or None where nothing has.

    What could not be delivered is not remembered as told, so the next run tries again.
    """
    memory = told.remember(folder)
    found = failing(document, severity, now)
    checks = document.status.checks if document.status else []
    hushed = (
        set(memory.known) - {LOOK}
        if LOOK in found
        else {check.name for check in checks if check.state == "hushed"}
    )
    known, began, ended = step(memory, found, hushed, after, now)
    if not began and not ended:
        told.keep(folder, memory.model_copy(update={"known": known}))
        return None
    firing = sum(check.told for check in known.values()) + len(began)
    message = Message(document.host, began, ended, firing)
    try:
        send(message)
    except Undelivered as trouble:
        # What has ended and was not told stays: it is told as resolved by the next run.
        kept = Memory(known=known | ended, last=memory.last, trouble=str(trouble))
        told.keep(folder, kept)
        raise
    known |= {name: check.model_copy(update={"told": True}) for name, check in began.items()}
    told.keep(folder, Memory(known=known, last=now))
    return message


def sender(url: str, now: float) -> Callable[[Message], None]:
    """Give how to reach an address."""
    if url.startswith("mailto:"):
        return lambda message: _mail(url.removeprefix("mailto:"), message)
    return lambda message: _post(url, message.json(now))


def _post(url: str, content: dict[str, Any]) -> None:
    """POST it; a redirect is no delivery, and nothing that is said names the address."""
    try:
        answer = httpx.post(url, json=content, timeout=SECONDS)
    except httpx.TimeoutException:
        raise Undelivered(f"the webhook gives no answer in {SECONDS:.0f} s") from None
    except (httpx.HTTPError, httpx.InvalidURL, ValueError) as error:
        raise Undelivered(f"the webhook cannot be reached ({type(error).__name__})") from None
    if answer.status_code >= _BAD:
        raise Undelivered(f"the webhook answers {answer.status_code}")


def _mail(to: str, message: Message) -> None:
    """Hand it to the mail server of this host."""
    mail = EmailMessage()
    mail["Subject"] = message.title[:150]
    mail["From"] = f"gatehouse@{os.uname().nodename}"
    mail["To"] = to
    mail.set_content(message.text + "\n")
    try:
        with smtplib.SMTP(*_SMTP, timeout=SECONDS) as server:
            server.send_message(mail)
    except (OSError, smtplib.SMTPException) as error:
        words = f"no mail server takes it at {_SMTP[0]}:{_SMTP[1]} ({type(error).__name__})"
        raise Undelivered(words) from None


def main() -> int:
    """Tell once; 1 where nobody could be told, 2 where it cannot look."""
    parser = argparse.ArgumentParser(prog="gatehouse-alerts", description=__doc__)
    parser.add_argument("--severity", choices=sorted(_RANK), required=True)
    parser.add_argument("--after", type=float, required=True, help="seconds")
    options = parser.parse_args()
    now = time.time()
    try:
        # systemd opened it: the file itself is not to be seen from here.
        url = sys.stdin.readline().strip()
        folder = Path(os.environ["STATE_DIRECTORY"])
        document = read()
    except (KeyError, OSError, Missing) as error:
        print(f"gatehouse-alerts: {error}", file=sys.stderr)  # noqa: T201 - the journal
        return 2
    try:
        message = tell(
            document,
            folder,
            sender(url, now),
            severity=options.severity,
            after=options.after,
            now=now,
        )
    except Undelivered as trouble:
        print(f"gatehouse-alerts: {trouble}; the next run tries again", file=sys.stderr)  # noqa: T201 - as above
        return 1
    if message:
        print(message.text)  # noqa: T201 - as above
    return 0


if __name__ == "__main__":
    sys.exit(main())
