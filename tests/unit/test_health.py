"""Health: the page says what the document says, only to those who ask this host for it."""

import asyncio
import json
import re
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
from starlette.types import ASGIApp

from gatehouse.deploys import health as deploys
from gatehouse.health import gather, page, usage
from gatehouse.health.app import ASSETS, app
from gatehouse.health.document import Document, Missing, read, write
from gatehouse.health.ready import Gateway, Ready
from gatehouse.render.health import files
from tests.document import checks, document, status
from tests.given import problems, settings

METRICS = 9090
READY = Ready(ready=True, reason=None, milliseconds=3)


class Client:
    """Asks the application as a browser does, without a socket."""

    def __init__(self, application: ASGIApp, base: str) -> None:
        """Hold the application and the address that it is asked by."""
        self._transport = httpx.ASGITransport(application)
        self._base = base

    def request(
        self, method: str, path: str, headers: dict[str, str] | None = None
    ) -> httpx.Response:
        """Give the answer to one request."""

        async def ask() -> httpx.Response:
            async with httpx.AsyncClient(transport=self._transport, base_url=self._base) as asking:
                return await asking.request(method, path, headers=headers)

        return asyncio.run(ask())

    def get(self, path: str, headers: dict[str, str] | None = None) -> httpx.Response:
        """Look."""
        return self.request("GET", path, headers)


def connected(_: httpx.Request) -> httpx.Response:
    """Answer as a LiteLLM that can serve."""
    return httpx.Response(200, json={"status": "healthy", "db": "connected"})


def client(
    file: Path,
    answer: Callable[[httpx.Request], httpx.Response] = connected,
    hosts: tuple[str, ...] = (),
    base: str = "http://127.0.0.1:8181",
) -> Client:
    """Give a client of the application, whose gateway answers so."""
    gateway = Gateway("http://gateway", httpx.MockTransport(answer))
    return Client(app(gateway, hosts, METRICS, file), base)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """Give a document's file."""
    path = tmp_path / "status.json"
    path.write_text(json.dumps(document()))
    return path


def shown(**changes: Any) -> str:  # noqa: ANN401 - parts of a document
    """Give the page of a document with changes."""
    age = changes.pop("age", 12)
    found = Document.model_validate(document(age=age, **changes))
    digests = {name: asset.digest for name, asset in ASSETS.items()}
    return page.render(found, None, READY, time.time(), digests)


def text(html: str) -> str:
    """Give what a reader sees of it, in one line."""
    return " ".join(re.sub(r"<[^>]+>", " ", html).split())


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS"])
@pytest.mark.parametrize("path", ["/", "/readyz", "/status.json", "/page.css", "/nothing"])
def test_nothing_can_be_changed(file: Path, method: str, path: str) -> None:
    """Whatever does not only look is refused, everywhere."""
    answer = client(file).request(method, path)
    assert answer.status_code == 405
    assert answer.headers["allow"] == "GET, HEAD"


@pytest.mark.parametrize(
    ("host", "code"),
    [
        ("127.0.0.1:8181", 200),
        ("localhost:8181", 200),
        ("LocalHost", 200),
        ("[::1]:8181", 200),
        ("gateway.example.org", 200),
        ("evil.example.org:8181", 421),
        ("127.0.0.1.evil.example.org", 421),
        ("localhost.evil.example.org:8181", 421),
        ("", 421),
    ],
)
def test_host_is_asked_by_a_name_of_its_own(file: Path, host: str, code: int) -> None:
    """A web site whose name points at loopback gets nothing to read."""
    page = client(file, hosts=("gateway.example.org",))
    for path in ("/", "/status.json", "/readyz", "/healthz"):
        answer = page.get(path, headers={"host": host})
        assert answer.status_code == code, path
        assert ("atelier" in answer.text) <= (code == 200)


def test_every_answer_is_closed_to_others(file: Path) -> None:
    """Whatever is answered, also in error, allows nothing from elsewhere and no frame."""
    page = client(file)
    for answer in (
        page.get("/"),
        page.get("/nothing"),
        page.request("POST", "/"),
        page.get("/page.js"),
    ):
        policy = answer.headers["content-security-policy"]
        assert policy.startswith("default-src 'none'; style-src 'self'; script-src 'self'")
        assert "frame-ancestors 'none'" in policy
        assert "unsafe" not in policy
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["cross-origin-resource-policy"] == "same-origin"
        assert "server" not in answer.headers


def test_page_needs_nothing_that_the_policy_forbids() -> None:
    """No inline style, no inline script, no handler, and no address of somewhere else."""
    html = shown()
    assert not re.search(r"<style|\sstyle=|\son\w+=|javascript:|<script(?! src)", html)
    assert not re.search(r"(?:src|href)=\"(?!/)", html)
    for asset in ASSETS.values():
        assert not re.search(rb"(?:https?:)?//(?!www\.w3\.org/2000/svg)[a-z]", asset.content)


def test_assets_are_kept_by_their_digest(file: Path) -> None:
    """A browser keeps what the page names for good, and asks again for anything else."""
    page = client(file)
    for path in re.findall(r'(?:src|href)="(/[^"]+\?v=[^"]+)"', page.get("/").text):
        answer = page.get(path)
        assert answer.status_code == 200
        assert "immutable" in answer.headers["cache-control"], path
    assert page.get("/page.css?v=old").headers["cache-control"] == "no-cache"


def test_head_gives_no_content(file: Path) -> None:
    """HEAD is answered like GET, without the content."""
    answer = client(file).request("HEAD", "/")
    assert (answer.status_code, answer.content) == (200, b"")


def test_health_of_the_process_needs_nothing(tmp_path: Path) -> None:
    """Without a document and without a gateway the process still lives."""

    def refuse(_: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError("refused")

    answer = client(tmp_path / "none", refuse).get("/healthz")
    assert (answer.status_code, answer.json()) == (200, {"alive": True})


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (httpx.Response(200, json={"db": "connected"}), None),
        (httpx.Response(200, json={"db": "Not connected"}), "database: Not connected"),
        (httpx.Response(503, json={"detail": "x"}), "answers 503"),
        (httpx.Response(200, text="hello"), "cannot be read"),
        (httpx.Response(200, json=["x"]), "cannot be read"),
        (httpx.ConnectError("refused"), "cannot be reached (refused)"),
        (httpx.ReadTimeout("late"), "no answer in 2 s"),
    ],
)
def test_readiness_is_the_gateways_own(
    file: Path, answer: httpx.Response | Exception, reason: str | None
) -> None:
    """503 with the reason where it cannot serve; the page says so too, whatever the document says."""

    def respond(_: httpx.Request) -> httpx.Response:
        if isinstance(answer, Exception):
            raise answer
        return answer

    page = client(file, respond)
    found = page.get("/readyz")
    assert found.status_code == (503 if reason else 200)
    assert found.json()["ready"] is (reason is None)
    headline = page.get("/").text
    if reason:
        assert reason in found.json()["reason"]
        assert "The gateway cannot serve" in headline
        assert reason in headline
    else:
        assert found.json()["reason"] is None
        assert "Everything holds" in headline


def test_gateway_is_asked_once_a_second(file: Path) -> None:
    """However often the page is asked for, LiteLLM is not."""
    asked = []

    def respond(request: httpx.Request) -> httpx.Response:
        asked.append(request.url.path)
        return connected(request)

    page = client(file, respond)
    for _ in range(20):
        page.get("/readyz")
    assert asked[0] == "/health/readiness"
    assert len(asked) <= 2


def test_stale_document_is_said_everywhere(file: Path) -> None:
    """Three missed looks and nobody believes the page any more."""
    file.write_text(json.dumps(document(age=181)))
    page = client(file)
    found = page.get("/readyz").json()
    assert found["document"]["stale"] is True
    assert found["document"]["age_seconds"] >= 181
    assert "Nobody has looked for a while" in page.get("/").text
    assert "gatehouse_document_stale 1.0" in metrics(file)
    file.write_text(json.dumps(document(age=170)))
    assert page.get("/readyz").json()["document"]["stale"] is False
    assert "gatehouse_document_stale 0.0" in metrics(file)


@pytest.mark.parametrize("content", [None, "", "{", "[]", '{"version": 2}', '{"version": 1}'])
def test_document_that_cannot_be_read_is_no_crash(tmp_path: Path, content: str | None) -> None:
    """A missing or damaged file is said in words, with what to do."""
    file = tmp_path / "status.json"
    if content is not None:
        file.write_text(content)
    page = client(file)
    assert page.get("/").status_code == 200
    assert "Nothing is known yet" in page.get("/").text
    assert "gatehouse-collect" in page.get("/").text
    answer = page.get("/status.json")
    assert answer.status_code == 503
    assert "gatehouse-collect" in answer.json()["error"]
    assert page.get("/readyz").json()["document"]["stale"] is True
    assert "gatehouse_document_readable 0.0" in metrics(file)


def test_document_is_given_as_it_is(file: Path) -> None:
    """/status.json is the document; who has it already gets 304."""
    page = client(file)
    answer = page.get("/status.json")
    assert answer.json() == json.loads(file.read_text())
    tag = answer.headers["etag"]
    assert page.get("/status.json", headers={"if-none-match": tag}).status_code == 304
    assert (
        page.get("/", headers={"if-none-match": page.get("/").headers["etag"]}).status_code == 304
    )
    file.write_text(json.dumps(document(host="other")))
    assert page.get("/status.json", headers={"if-none-match": tag}).status_code == 200


def test_page_without_metrics_and_metrics_without_page(file: Path) -> None:
    """Each port has its own: the one that Prometheus reaches has no page."""
    assert client(file).get("/metrics").status_code == 404
    numbers = client(file, base=f"http://127.0.0.1:{METRICS}")
    assert numbers.get("/metrics").status_code == 200
    assert numbers.get("/status.json").status_code == 404
    assert numbers.request("POST", "/metrics").status_code == 405
    assert numbers.get("/metrics", headers={"host": "evil.example.org"}).status_code == 421


def metrics(file: Path) -> str:
    """Give the metrics of a document."""
    return client(file, base=f"http://127.0.0.1:{METRICS}").get("/metrics").text


def test_what_fails_is_shown_with_its_fix() -> None:
    """A failure and a warning stand on top with what to do; what follows is at its component only."""
    found = checks(
        redis_healthy={"state": "failure", "found": "exited <b>1</b>", "fix": "start it & see"},
        redis_answers_in_time={"state": "hushed", "because": ["redis: healthy"]},
        keys_healthy={"state": "warning", "severity": "warning", "repair": True},
    )
    html = shown(status=status(found, time.time()))
    assert "1 of 32 checks does not hold" in html
    assert 'data-mood="failure"' in html
    articles = re.findall(r'<article class="problem (\w+)">(.*?)</article>', html, re.DOTALL)
    assert [kind for kind, _ in articles] == ["failure", "warning"]
    assert "exited &lt;b&gt;1&lt;/b&gt;" in articles[0][1]
    assert "start it &amp; see" in articles[0][1]
    assert "doctor --fix" in articles[1][1]
    assert "follows from redis: healthy" in text(html)


def test_warnings_alone_break_nothing() -> None:
    """Two warnings are said, and nobody is frightened."""
    warning = {"state": "warning", "severity": "warning"}
    found = checks(redis_healthy=warning, keys_healthy=warning)
    html = shown(status=status(found, time.time()))
    assert "2 warnings, and nothing is broken" in html
    assert 'data-mood="warning"' in html


def test_empty_host_says_so() -> None:
    """Nothing there yet is a sentence, not a hole."""
    nothing = {"requests": 0, "failed": 0, "tokens": 0, "spend": 0, "hours": [], "models": []}
    words = text(
        shown(
            engines=[],
            pools=[],
            usage=nothing,
            keys=None,
            actions={"counts": {}, "last": []},
            timers=[],
            jobs=[],
            backups=None,
            alerts=None,
        )
    )
    for sentence in (
        "No engine is switched on",
        "Nobody asked anything",
        "not looked at yet: gatehouse keys check",
        "Nobody has changed anything yet",
        "No timer is set",
        "none: they are switched off (backup_enabled)",
    ):
        assert sentence in words, sentence


def test_backups_are_told_as_they_are() -> None:
    """Good ones in a line; one that failed, is damaged or did not come back in plain words."""
    words = text(shown())
    assert "12 snapshots, 64.0 MB" in words
    assert "came back in 17 s, 2 d ago" in words
    limit = {"limit_seconds": 26 * 3600}
    assert "none yet: gatehouse backup now" in text(shown(backups=limit))
    bad = {"ok": False, "error": "no space", "whole": False, "drill_ok": False, "good": 1.0}
    words = text(shown(backups=limit | bad | {"drill_error": "rows are missing"}))
    for sentence in (
        "the last one failed: no space",
        "it is damaged: gatehouse backup verify --all",
        "it did not come back: rows are missing",
    ):
        assert sentence in words, sentence


def test_part_that_cannot_be_read_leaves_the_others() -> None:
    """Postgres being away takes the usage only."""
    words = text(shown(usage=None, troubles={"usage": "OSError: Postgres does not say"}))
    assert "Could not be read: OSError: Postgres does not say" in words
    assert "chat-a" in words
    assert "Everything holds" in words
    unknown = text(shown(status=None, troubles={"status": "no answer in 120 s"}))
    assert "The checks could not be made" in unknown
    assert "no answer in 120 s" in unknown


def test_part_says_why_and_shows_no_value() -> None:
    """What goes wrong with one part is one line, without the values that were read."""
    troubles: dict[str, str] = {}

    def broken() -> object:
        return Document.model_validate({"version": 1, "host": "not-shown-0123"})

    assert gather.part("keys", broken, troubles) is None
    assert list(troubles) == ["keys"]
    assert "not-shown" not in troubles["keys"]
    assert gather.part("fine", lambda: 7, troubles) == 7


def test_keys_are_aliases_and_dates_only() -> None:
    """Whatever else stands in the state of keys, no value of a key is taken over."""
    found = gather.read_keys(
        {
            "written": 1.0,
            "expired": [{"alias": "a", "expires": "2026-11-01T00:00:00+00:00", "key": "sk-no"}],
            "expiring": ["b"],
            "unlimited": [{"alias": "c", "token": "sk-no"}],
        }
    )
    assert [key.alias for key in (*found.expired, *found.expiring, *found.unlimited)] == [
        "a",
        "b",
        "c",
    ]
    assert found.expired[0].expires == 1793491200
    assert "sk-no" not in found.model_dump_json()


def test_hours_without_requests_are_there() -> None:
    """The day has 24 hours, and the last is this one."""
    now = 1795279561.0
    this = int(now) // 3600 * 3600
    found = usage.summed(
        {
            "hours": [{"start": this, "requests": 3, "failed": 1}],
            "models": [{"model": "a", "requests": 3, "failed": 1, "tokens": 20, "spend": 0.5}],
        },
        now,
    )
    assert len(found.hours) == 24
    assert [hour.requests for hour in found.hours] == [0] * 23 + [3]
    assert (found.requests, found.failed, found.tokens, found.spend) == (3, 1, 20, 0.5)


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (0, "0"),
        (999, "999"),
        (1000, "1.0 k"),
        (12400, "12.4 k"),
        (702000, "702 k"),
        (3.1e6, "3.1 M"),
    ],
)
def test_counts_are_read_at_a_glance(number: float, words: str) -> None:
    """Three digits and a unit."""
    assert page.count(number) == words


@pytest.mark.parametrize(
    ("dollars", "words"),
    [(0, "$0.00"), (0.00004, "<$0.0001"), (0.0031, "$0.0031"), (1234.5, "$1,234.50")],
)
def test_money_keeps_the_digits_that_count(dollars: float, words: str) -> None:
    """A tenth of a cent is not nothing."""
    assert page.money(dollars) == words


def test_bar_never_leaves_its_track() -> None:
    """What is promised and used beyond the memory ends at its end, and is said."""
    found = Document.model_validate(
        document(
            pools=[
                {
                    "name": "card 0",
                    "total_mib": 1000,
                    "used_mib": 900,
                    "reserve_mib": 512,
                    "engines": [{"name": "a", "mib": 800}, {"name": "b", "mib": 900}],
                }
            ]
        )
    )
    bar = page.pool_bar(found.pools[0])
    assert bar.full
    assert sum(each.length for each in bar.slices) == pytest.approx(100)


def test_document_is_for_its_group(tmp_path: Path) -> None:
    """It is replaced whole, readable for the group and nobody else."""
    file = tmp_path / "status.json"
    write(Document.model_validate(document()), file)
    assert file.stat().st_mode & 0o777 == 0o640
    assert read(file).host == "atelier"
    assert [path.name for path in tmp_path.iterdir()] == ["status.json"]
    with pytest.raises(Missing, match="gatehouse-collect"):
        read(tmp_path / "none")


def test_page_stays_on_loopback() -> None:
    """A gateway that is bound publicly takes neither the page nor the metrics with it."""
    units = files(settings(network_bind_address="192.0.2.10", network_bind_public=True))
    socket = units["/etc/systemd/system/gatehouse-health.socket"].content
    assert re.findall(r"^ListenStream=(.*)", socket, re.MULTILINE) == [
        "127.0.0.1:8181",
        "127.0.0.1:9090",
    ]
    service = units["/etc/systemd/system/gatehouse-health.service"].content
    assert "--gateway http://192.0.2.10:4000" in service
    assert "IPAddressAllow=localhost 192.0.2.10" in service


def test_page_has_no_rights() -> None:
    """What listens is nobody, binds nothing, and sees neither secrets nor Docker."""
    service = files(settings())["/etc/systemd/system/gatehouse-health.service"].content
    for line in (
        "DynamicUser=yes",
        "CapabilityBoundingSet=",
        "SocketBindDeny=any",
        "IPAddressDeny=any",
    ):
        assert f"\n{line}\n" in service, line
    hidden = next(line for line in service.splitlines() if line.startswith("InaccessiblePaths="))
    assert {"-/etc/gatehouse", "-/var/lib/gatehouse", "-/run/docker.sock"} <= set(
        hidden.removeprefix("InaccessiblePaths=").split()
    )


@pytest.mark.parametrize("name", ["https://x.org", "x.org:80", "*", "x y", "-x"])
def test_host_name_that_is_none_is_refused(name: str) -> None:
    """A scheme, a port or a star is answered with what is meant."""
    assert "no host name" in problems(health_hosts=[name])["health_hosts"]


@pytest.mark.parametrize(("passes_after", "holds"), [(0, True), (3, True), (4, False)])
def test_deploy_looks_more_than_once_where_a_look_takes_long(
    monkeypatch: pytest.MonkeyPatch, passes_after: int, *, holds: bool
) -> None:
    """What a busy start leaves passes by itself, later on a slow host; not all of it is waited for."""
    now = [0.0]

    def look(*_: object) -> int:
        now[0] += 60
        return round(now[0] / 60)

    clock = SimpleNamespace(monotonic=lambda: now[0], sleep=lambda _seconds: None)
    for name, value in {
        "_look": look,
        "_failures": lambda looks: ["litellm: stalled"] if looks <= passes_after else [],
        "_say": lambda *_: None,
        "time": clock,
    }.items():
        monkeypatch.setattr(deploys, name, value)
    host = SimpleNamespace(state=SimpleNamespace(is_executing=True))
    settled = deploys._settled  # noqa: SLF001 - what the operation asks
    assert (settled(host, settings()) == []) == holds
    now[0], host.state.is_executing = 0, False
    assert (settled(host, settings()) == []) == (passes_after == 0)
    assert now == [60]
