"""Alerts: told once, resolved once, never lost, and never with the address in sight."""

import json
import time
from email.message import EmailMessage
from pathlib import Path
from typing import Any, Self

import httpx
import pytest

from gatehouse.health import alerts, told
from gatehouse.health.alerts import LOOK, Message, Undelivered, tell
from gatehouse.health.document import Document
from gatehouse.render.health import ALERTS_SECRET, ALERTS_URL, files
from gatehouse.settings import Settings
from tests.document import checks, document, status
from tests.given import problems, settings

NOW = time.time()
RED = {"state": "failure", "found": "exited"}
UNIT = "/etc/systemd/system/gatehouse-alerts.service"


class Inbox:
    """Takes messages, and can be out of order."""

    def __init__(self) -> None:
        """Start empty and in order."""
        self.got: list[Message] = []
        self.broken = False

    def __call__(self, message: Message) -> None:
        """Take one."""
        if self.broken:
            raise Undelivered("the webhook answers 500")
        self.got.append(message)


@pytest.fixture
def inbox() -> Inbox:
    """Give one."""
    return Inbox()


def look(
    folder: Path,
    inbox: Inbox,
    at: float,
    severity: str = "failure",
    after: float = 0,
    **changed: dict[str, object],
) -> Message | None:
    """Look at a moment, where these checks are changed."""
    found = document(status=status(checks(**changed), at), gathered=at)
    return tell(
        Document.model_validate(found), folder, inbox, severity=severity, after=after, now=at
    )


def test_change_is_told_once_and_resolved_once(tmp_path: Path, inbox: Inbox) -> None:
    """However often it is looked at, there is one message for each change."""
    look(tmp_path, inbox, NOW)
    for number in range(5):
        look(tmp_path, inbox, NOW + number, redis_healthy=RED | {"found": f"exited {number}"})
    for number in range(5, 9):
        look(tmp_path, inbox, NOW + number)
    assert [(list(m.began), list(m.ended), m.firing) for m in inbox.got] == [
        (["redis: healthy"], [], 1),
        ([], ["redis: healthy"], 0),
    ]


def test_restart_in_between_tells_nobody(tmp_path: Path, inbox: Inbox) -> None:
    """What fails for less than alerts_after_seconds is nobody's business."""
    look(tmp_path, inbox, NOW, after=120, redis_healthy=RED)
    look(tmp_path, inbox, NOW + 119, after=120, redis_healthy=RED)
    look(tmp_path, inbox, NOW + 130, after=120)
    assert inbox.got == []
    look(tmp_path, inbox, NOW + 140, after=120, redis_healthy=RED)
    look(tmp_path, inbox, NOW + 260, after=120, redis_healthy=RED)
    assert [list(message.began) for message in inbox.got] == [["redis: healthy"]]


def test_undelivered_is_tried_again_and_shown(
    tmp_path: Path, inbox: Inbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A webhook that is down loses neither the alert nor its end."""
    monkeypatch.setattr(told, "FOLDER", tmp_path)
    inbox.broken = True
    with pytest.raises(Undelivered):
        look(tmp_path, inbox, NOW, redis_healthy=RED)
    assert told.read("https://hooks.example.org/token").trouble == "the webhook answers 500"
    inbox.broken = False
    look(tmp_path, inbox, NOW + 60, redis_healthy=RED)
    inbox.broken = True
    with pytest.raises(Undelivered):
        look(tmp_path, inbox, NOW + 120)
    inbox.broken = False
    look(tmp_path, inbox, NOW + 180)
    look(tmp_path, inbox, NOW + 240)
    assert [(list(m.began), list(m.ended)) for m in inbox.got] == [
        (["redis: healthy"], []),
        ([], ["redis: healthy"]),
    ]
    seen = told.read("https://hooks.example.org/token")
    assert (seen.trouble, seen.firing, seen.to) == (None, 0, "hooks.example.org")


def test_what_only_follows_is_not_told(tmp_path: Path, inbox: Inbox) -> None:
    """A hushed check is no alert; one that was told and is hushed now is not resolved either."""
    hushed = {"state": "hushed", "because": ["redis: healthy"]}
    look(tmp_path, inbox, NOW, litellm_healthy=RED)
    look(tmp_path, inbox, NOW + 60, redis_healthy=RED, litellm_healthy=hushed, keys_healthy=hushed)
    look(tmp_path, inbox, NOW + 120)
    assert [(list(m.began), sorted(m.ended)) for m in inbox.got] == [
        (["litellm: healthy"], []),
        (["redis: healthy"], []),
        ([], ["litellm: healthy", "redis: healthy"]),
    ]


def test_severity_decides(tmp_path: Path, inbox: Inbox) -> None:
    """A warning is told to those who want warnings."""
    warning = {"state": "warning", "severity": "warning"}
    look(tmp_path, inbox, NOW, keys_healthy=warning)
    assert inbox.got == []
    look(tmp_path, inbox, NOW + 1, severity="warning", keys_healthy=warning)
    assert [list(message.began) for message in inbox.got] == [["keys: healthy"]]


@pytest.mark.parametrize(
    "changes", [{"gathered": NOW - 1000}, {"status": None, "troubles": {"status": "no answer"}}]
)
def test_nobody_looking_is_told(tmp_path: Path, inbox: Inbox, changes: dict[str, Any]) -> None:
    """Where nothing is looked at, that is the alert; what was told before stays as it was."""
    look(tmp_path, inbox, NOW - 2000, redis_healthy=RED)
    blind = Document.model_validate(document() | changes)
    for _ in range(3):
        tell(blind, tmp_path, inbox, severity="failure", after=0, now=NOW)
    look(tmp_path, inbox, NOW + 60)
    assert [(list(m.began), sorted(m.ended)) for m in inbox.got] == [
        (["redis: healthy"], []),
        ([LOOK], []),
        ([], [LOOK, "redis: healthy"]),
    ]


def test_damaged_memory_is_no_crash(tmp_path: Path, inbox: Inbox) -> None:
    """A file that a full disk cut off is begun anew: rather told twice than not at all."""
    (tmp_path / "told.json").write_text('{"known": {"redis')
    look(tmp_path, inbox, NOW, redis_healthy=RED)
    assert len(inbox.got) == 1


def test_message_says_what_to_do(tmp_path: Path, inbox: Inbox) -> None:
    """People read what, found and the fix; programs the same, field by field."""
    look(tmp_path, inbox, NOW, redis_healthy=RED)
    content = inbox.got[0].json(NOW + 5)
    assert content["status"] == "firing"
    assert "fix: docker compose logs redis" in content["text"]
    (alert,) = content["alerts"]
    assert (alert["name"], alert["status"], alert["severity"]) == (
        "redis: healthy",
        "firing",
        "failure",
    )
    look(tmp_path, inbox, NOW + 60)
    assert inbox.got[1].json(NOW)["status"] == "resolved"
    assert inbox.got[1].title == "atelier: redis: healthy holds again"
    json.dumps(content)


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (httpx.Response(500), "answers 500"),
        (httpx.Response(302, headers={"location": "https://elsewhere.example.org"}), "answers 302"),
        (httpx.ConnectError("to hooks.example.org/not-shown-0123"), "ConnectError"),
        (httpx.ReadTimeout("x"), "no answer in 10 s"),
        (httpx.InvalidURL("not-shown-0123"), "InvalidURL"),
    ],
)
def test_trouble_never_names_the_address(
    monkeypatch: pytest.MonkeyPatch, answer: httpx.Response | Exception, words: str
) -> None:
    """Whoever reads the journal or the page cannot post with what they read."""

    def post(url: str, **_: object) -> httpx.Response:
        if isinstance(answer, Exception):
            raise answer
        return answer

    monkeypatch.setattr(httpx, "post", post)
    send = alerts.sender("https://hooks.example.org/not-shown-0123", NOW)
    with pytest.raises(Undelivered, match=words) as raised:
        send(Message("atelier", {}, {}, 0))
    assert "not-shown" not in str(raised.value)
    assert raised.value.__cause__ is None
    assert raised.value.__suppress_context__ or raised.value.__context__ is None


def test_mail_goes_to_the_hosts_own_server(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, inbox: Inbox
) -> None:
    """mailto: is handed to loopback; where nobody takes it, that is said."""
    sent: list[EmailMessage] = []

    class Server:
        def __init__(self, *place: object, **options: float) -> None:
            assert place == ("127.0.0.1", 25)
            assert options["timeout"] <= 10

        def __enter__(self) -> Self:
            return self

        def __exit__(self, *_: object) -> None:
            pass

        def send_message(self, mail: EmailMessage) -> None:
            sent.append(mail)

    look(tmp_path, inbox, NOW, redis_healthy=RED)
    monkeypatch.setattr(alerts.smtplib, "SMTP", Server)
    alerts.sender("mailto:ops@example.org", NOW)(inbox.got[0])
    assert sent[0]["To"] == "ops@example.org"
    assert sent[0]["Subject"] == "atelier: redis: healthy does not hold"
    assert "fix: docker compose logs redis" in sent[0].get_content()

    def refuse(*_: object, **__: object) -> None:
        raise ConnectionRefusedError

    monkeypatch.setattr(alerts.smtplib, "SMTP", refuse)
    with pytest.raises(Undelivered, match="no mail server"):
        alerts.sender("mailto:ops@example.org", NOW)(inbox.got[0])


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("https://hooks.example.org/services/T0/not-shown?x=not-shown", "hooks.example.org"),
        ("https://user:not-shown@hooks.example.org/x", "hooks.example.org"),
        ("mailto:ops@example.org", "ops@example.org"),
        ("secret", "the address in /etc/gatehouse/secrets/alerts_url"),
    ],
)
def test_page_names_only_where_it_goes(url: str, shown: str) -> None:
    """Of a webhook only the host's name."""
    assert told.without_secrets(url) == shown


@pytest.mark.parametrize(
    "url", ["ftp://x.org", "x.org", "https://x.org/a b", "mailto:", "https://"]
)
def test_address_that_is_none_is_refused(url: str) -> None:
    """What nobody can be reached by is said before anything is deployed."""
    assert "alerts_url" in problems(alerts_url=url)


def unit(found: Settings) -> str:
    """Give the rendered unit."""
    return files(found)[UNIT].content


def test_nothing_is_there_without_an_address() -> None:
    """Nobody to tell, no unit, and nothing that the collector starts."""
    rendered = files(settings())
    assert UNIT not in rendered
    assert (
        "gatehouse-alerts" not in rendered["/etc/systemd/system/gatehouse-collect.service"].content
    )


def test_address_is_handed_over_by_systemd() -> None:
    """It stands in no unit; a secret one is not even rendered."""
    url = "https://hooks.example.org/not-shown-0123"
    rendered = files(settings(alerts_url=url))
    assert [path for path, file in rendered.items() if url in file.content] == [ALERTS_URL]
    assert (rendered[ALERTS_URL].mode, rendered[ALERTS_URL].group) == ("640", "gatehouse")
    assert f"StandardInput=file:{ALERTS_URL}\n" in unit(settings(alerts_url=url))
    secret = settings(alerts_url="secret")
    assert ALERTS_URL not in files(secret)
    assert f"StandardInput=file:{ALERTS_SECRET}\n" in unit(secret)
    assert (
        "ExecStopPost=-systemctl start --no-block gatehouse-alerts.service"
        in files(secret)["/etc/systemd/system/gatehouse-collect.service"].content
    )
