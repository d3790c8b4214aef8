"""The page in a real browser: what it shows, that it follows, and that it reaches nothing else."""

import json
import shlex
from collections.abc import Iterator
from typing import Any

import pytest
from playwright.sync_api import Browser

from gatehouse.lab.tunnel import tunnel
from gatehouse.lab.workstation import Workstation
from tests.browser import CONTRAST, Seen, seen
from tests.waiting import wait_for

DESKTOP = {"viewport": {"width": 1280, "height": 900}}
PHONE = {"viewport": {"width": 390, "height": 844}, "is_mobile": True, "has_touch": True}
DOCUMENT = "/run/gatehouse/health/status.json"
REDIS = "gatehouse-redis-1"
# WCAG's for text of this size.
ENOUGH = 4.5
FOLLOWS_SECONDS = 30


@pytest.fixture(scope="module")
def address(workstation: Workstation) -> Iterator[str]:
    """Give the page's address, as an operator's tunnel makes it."""
    collected(workstation)
    with tunnel(workstation, 8181) as port:
        yield f"http://127.0.0.1:{port}"


@pytest.fixture
def view(browser: Browser, address: str) -> Iterator[Seen]:
    """Give the page on a desktop; at the end it has done nothing that it should not."""
    with seen(browser, address, **DESKTOP) as page:
        yield page.open()
        assert page.troubles == []


def collected(workstation: Workstation) -> dict[str, Any]:
    """Have root's collector look, and give what it wrote."""
    workstation.exec("systemctl start gatehouse-collect")
    found: dict[str, Any] = json.loads(workstation.exec(f"cat {DOCUMENT}").stdout)
    return found


def test_page_shows_the_document(view: Seen, workstation: Workstation) -> None:
    """Each component with its checks, the release, the day's requests, the actions and timers."""
    found = json.loads(workstation.exec(f"cat {DOCUMENT}").stdout)
    assert found["troubles"] == {}
    assert found["status"]["summary"]["failures"] == 0, [
        each for each in found["status"]["checks"] if each["state"] == "failure"
    ]
    assert "not hold" not in view.headline
    assert found["release"] in view.words
    names = {check["component"] for check in found["status"]["checks"]}
    assert {"litellm", "postgres", "redis", "health"} <= names
    shown = {each.inner_text() for each in view.page.locator("summary .name").all()}
    assert shown == names
    for words in ("Last 24 hours", "Upkeep", "Last actions", "Timers", "collect"):
        assert words in view.words


def test_component_opens_with_the_keyboard(view: Seen) -> None:
    """Its checks are one key away, and each says its state in words too."""
    details = view.page.locator("#component-redis")
    details.locator("summary").focus()
    view.page.keyboard.press("Enter")
    assert details.locator("li").first.is_visible()
    assert "holds" in details.locator("li").first.text_content()  # type: ignore[operator]


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("device", [DESKTOP, PHONE], ids=["desktop", "phone"])
def test_page_is_readable_everywhere(
    browser: Browser, address: str, scheme: str, device: dict[str, object]
) -> None:
    """On both backgrounds every text has enough contrast, and a phone scrolls one way only."""
    with seen(browser, address, color_scheme=scheme, **device) as page:
        page.open()
        ratios = page.page.evaluate(CONTRAST)
        assert len(ratios) > 20
        assert ratios[0][0] >= ENOUGH, ratios[:3]
        background = page.page.evaluate("getComputedStyle(document.body).backgroundColor")
        first = int(background.removeprefix("rgb(").split(",")[0])
        assert (first < 60) == (scheme == "dark"), background
        width = page.page.evaluate("document.documentElement.scrollWidth")
        assert width <= page.page.viewport_size["width"]  # type: ignore[index]
        assert page.troubles == []


def test_essentials_need_no_javascript(browser: Browser, address: str) -> None:
    """Without it the page says the same, opens its components, and asks for itself anew."""
    with seen(browser, address, java_script_enabled=False, **DESKTOP) as page:
        page.open()
        assert "not hold" not in page.headline
        page.page.locator("#component-redis summary").click()
        assert page.page.locator("#component-redis li").first.is_visible()
        refresh = page.page.locator("meta[http-equiv=refresh]").get_attribute("content")
        assert refresh == "60"
        assert page.troubles == []


def test_page_follows_by_itself(view: Seen, workstation: Workstation) -> None:
    """Redis stops: red, with what to do; it runs again: as before. Nobody asks for the page anew."""
    before = view.headline
    view.page.evaluate("window.same = true")
    view.page.locator("#component-postgres summary").click()
    workstation.exec(f"docker stop {REDIS}")
    try:
        found = collected(workstation)
        assert found["status"]["summary"]["failures"] >= 1
        wait_for(lambda: "not hold" in view.headline, FOLLOWS_SECONDS, "the page to turn red")
        problem = view.page.locator("article.problem", has_text="redis: healthy")
        assert "docker compose logs" in problem.locator("code").first.inner_text()
        assert view.page.locator("html").get_attribute("data-mood") == "failure"
        assert "not hold" in view.page.title()
        icon = view.page.locator("link[rel=icon]").get_attribute("href")
        assert icon.startswith("/failure.svg")  # type: ignore[union-attr]
    finally:
        workstation.exec(f"docker start {REDIS}")
        healthy = f"docker inspect -f '{{{{.State.Health.Status}}}}' {REDIS}"
        wait_for(
            lambda: workstation.exec(healthy).stdout.strip() == "healthy", 60, "a healthy Redis"
        )
        collected(workstation)
    wait_for(lambda: view.headline == before, FOLLOWS_SECONDS, f"the page to say {before}")
    assert view.page.evaluate("window.same") is True
    assert view.page.locator("#component-postgres").get_attribute("open") is not None


def test_old_and_missing_documents_are_said(view: Seen, workstation: Workstation) -> None:
    """When root's collector no longer looks, nobody is shown old news as new."""
    content = workstation.exec(f"cat {DOCUMENT}").stdout
    old = json.loads(content)
    old["gathered"] -= 1000
    workstation.exec("systemctl stop gatehouse-collect.timer")
    try:
        workstation.exec(f"cat >{DOCUMENT}", text=json.dumps(old))
        wait_for(lambda: "Nobody has looked" in view.headline, FOLLOWS_SECONDS, "staleness")
        assert "systemctl status gatehouse-collect" in view.words
        workstation.exec(f"rm {DOCUMENT}")
        wait_for(lambda: "Nothing is known" in view.headline, FOLLOWS_SECONDS, "emptiness")
    finally:
        workstation.exec("systemctl start gatehouse-collect.timer")
        collected(workstation)
    wait_for(lambda: "check" in view.words, FOLLOWS_SECONDS, "the page to be whole again")
    wait_for(lambda: "Nothing" not in view.headline, FOLLOWS_SECONDS, "the page to say so")


def test_lost_connection_is_said(browser: Browser, address: str) -> None:
    """A page that cannot ask says that it shows old news, and forgets it when it can again."""
    with seen(browser, address, **DESKTOP) as page:
        page.open()
        lost = page.page.locator("#lost")
        assert not lost.is_visible()
        page.page.context.set_offline(True)
        wait_for(lost.is_visible, FOLLOWS_SECONDS, "the page to notice")
        page.page.context.set_offline(False)
        wait_for(lambda: not lost.is_visible(), FOLLOWS_SECONDS, "the page to recover")


def as_the_page(workstation: Workstation, command: str) -> int:
    """Run a command as the page's process: its user, its groups, and what it sees of the disk."""
    script = f"""
pid=$(systemctl show -p MainPID --value gatehouse-health)
ids() {{ sed -n "s/^$1:\\s*//p" /proc/$pid/status; }}
uid=$(ids Uid | cut -f1); gid=$(ids Gid | cut -f1); groups=$(ids Groups | sed 's/ *$//; s/ /,/g')
[ "$uid" -gt 0 ] || exit 99
exec nsenter -t $pid -m setpriv --reuid $uid --regid $gid --groups $groups --no-new-privs \\
    --bounding-set=-all --inh-caps=-all sh -c {shlex.quote(command)}"""
    return workstation.exec(["sh", "-c", script], check=False).returncode


@pytest.mark.parametrize(
    "command",
    [
        "cat /etc/gatehouse/secrets/master_key",
        "ls /etc/gatehouse",
        "ls /var/lib/gatehouse",
        "cat /etc/shadow",
        "test -r /run/docker.sock",
        "test -e /run/gatehouse/engines/anything || ls /run/gatehouse/engines",
        f"echo x >>{DOCUMENT}",
        "echo x >/tmp/../var/tmp/../lib/x",
    ],
)
def test_page_cannot(workstation: Workstation, command: str) -> None:
    """What listens reads no secret, reaches no Docker, and writes nothing."""
    assert as_the_page(workstation, f"cat {DOCUMENT} >/dev/null") == 0
    assert as_the_page(workstation, command) not in {0, 99}


@pytest.mark.parametrize(
    ("unit", "most"), [("gatehouse-health.service", 2.0), ("gatehouse-collect.service", 3.5)]
)
def test_units_are_closed(workstation: Workstation, unit: str, most: float) -> None:
    """Systemd's own figure; root's collector asks Docker and the firewall, hence its more."""
    said = workstation.exec(f"systemd-analyze security --no-pager {unit}").stdout
    figure = float(said.rpartition("exposure level")[2].split(":")[1].split()[0])
    assert 0 < figure <= most


def test_page_answers_only_its_own_names_and_questions(workstation: Workstation) -> None:
    """Through the real sockets: another Host header is refused, and so is a POST, on both ports."""
    ask = "curl -s -o /dev/null -w '%{http_code}' "
    for port, path in ((8181, "/status.json"), (9090, "/metrics")):
        url = f"http://127.0.0.1:{port}{path}"
        codes = [
            workstation.exec(f"{ask}{options} {url}").stdout
            for options in ("", "-H 'Host: evil.example.org'", "-X POST", "-X DELETE")
        ]
        assert codes == ["200", "421", "405", "405"]


def test_page_serves_no_path_but_its_own(workstation: Workstation) -> None:
    """Nobody gets out of the folder of static files, however the way is written; nor a listing."""
    ask = "curl -s --path-as-is -o /dev/null -w '%{http_code} ' "
    up = ("..", "%2e%2e", "..%2f..", "..%5c..", "....//")
    paths = [
        *(f"/static/{each}/{each}/{each}/{each}/{each}/etc/passwd" for each in up),
        *("/static//etc/passwd", "/static/", "/static", "/../status.json", "/.git/config", "//etc"),
        *("/metrics/../status.json", "/docs", "/openapi.json", "/status.json/", "/%00"),
    ]
    urls = " ".join(f"'http://127.0.0.1:{port}{path}'" for port in (8181, 9090) for path in paths)
    script = f'for url in {urls}; do {ask} "$url"; done'
    codes = workstation.exec(script).stdout.split()
    assert len(codes) == 2 * len(paths)
    assert set(codes) <= {"400", "404", "405", "307"}, dict(zip(2 * paths, codes, strict=True))
    body = workstation.exec(
        "curl -s --path-as-is -L http://127.0.0.1:8181/static/../../../../../../../etc/passwd"
    ).stdout
    assert "root:" not in body


def test_no_secret_is_shown(workstation: Workstation) -> None:
    """Nothing that is served holds what a file of secrets holds."""
    served = workstation.exec(
        "curl -s http://127.0.0.1:8181/status.json http://127.0.0.1:8181/ "
        "http://127.0.0.1:9090/metrics http://127.0.0.1:8181/readyz"
    ).stdout
    assert '"ready":true' in served
    assert "gatehouse_check_ok{" in served
    kept = workstation.exec("find /etc/gatehouse/secrets -type f -exec awk 1 {} +").stdout
    secrets = [line for line in kept.split() if len(line) >= 8]
    assert len(secrets) >= 5
    # A number: a failing test prints no secret.
    assert sum(secret in served for secret in secrets) == 0


def test_page_survives_the_end_of_its_process(workstation: Workstation) -> None:
    """The ports are systemd's: who asks while the process is gone waits for the next."""
    pid = "systemctl show -p MainPID --value gatehouse-health"
    before = workstation.exec(pid).stdout
    workstation.exec("systemctl kill -s KILL gatehouse-health")
    code = workstation.exec(
        "curl -s -m 30 -o /dev/null -w '%{http_code}' http://127.0.0.1:8181/healthz"
    ).stdout
    assert code == "200"
    wait_for(lambda: workstation.exec(pid).stdout not in {before, "0\n"}, 30, "another process")
