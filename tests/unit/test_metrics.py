"""Metrics: every part of the document is one, and what the shipped rules ask for is there."""

import json
import re
import time
from typing import Any

import pytest
import yaml
from prometheus_client import generate_latest
from prometheus_client.parser import text_string_to_metric_families

from gatehouse.checks import every
from gatehouse.health.document import Document
from gatehouse.health.metrics import DRIFT, registry
from gatehouse.render.health import UNITS, files
from gatehouse.render.template import ROOT
from tests.document import check, checks, document, status
from tests.given import proxy, rendered, settings

RULES = ROOT / "compose/metrics/rules.yaml"
GRAFANA = ROOT / "compose/metrics/grafana.json"
NAME = re.compile(r"\bgatehouse_[a-z_]+\b")


def exported(found: dict[str, Any] | None) -> dict[str, dict[tuple[tuple[str, str], ...], float]]:
    """Give what is exported of a document: name → labels → value."""
    made = registry(Document.model_validate(found) if found else None, time.time(), ready=True)
    values: dict[str, dict[tuple[tuple[str, str], ...], float]] = {}
    for family in text_string_to_metric_families(generate_latest(made).decode()):
        for sample in family.samples:
            values.setdefault(sample.name, {})[tuple(sorted(sample.labels.items()))] = sample.value
    return values


def value(found: dict[str, Any], name: str, /, **labels: str) -> float:
    """Give one sample: the one that has these labels."""
    (one,) = [
        each for of, each in exported(found)[name].items() if labels.items() <= dict(of).items()
    ]
    return one


def expressions() -> dict[str, str]:
    """Give every expression that is shipped, by where it stands."""
    rules = yaml.safe_load(RULES.read_text())["groups"][0]["rules"]
    found = {rule["alert"]: rule["expr"] for rule in rules}
    for panel in json.loads(GRAFANA.read_text())["panels"]:
        for target in panel["targets"]:
            found[f"{panel['title']} {target['refId']}"] = target["expr"]
    return found


@pytest.mark.parametrize(("where", "expression"), expressions().items())
def test_what_is_asked_for_is_exported(where: str, expression: str) -> None:
    """No rule and no panel waits for a metric or a label that there is not."""
    there = exported(document())
    labels = {label for samples in there.values() for of in samples for label, _ in of}
    named = set(NAME.findall(expression)) | {"up"} & set(re.findall(r"\w+", expression))
    assert named, where
    assert named - {"up"} <= there.keys()
    asked = set(re.findall(r"(\w+)\s*(?:=~?|!=)\s*\"", expression))
    assert asked <= labels | {"instance", "job"}


def test_every_rule_says_what_and_what_to_do() -> None:
    """Each has a severity, a sentence and a command; its labels are those of its metric."""
    rules = yaml.safe_load(RULES.read_text())["groups"][0]["rules"]
    assert len({rule["alert"] for rule in rules}) == len(rules)
    there = exported(document())
    for rule in rules:
        assert rule["labels"]["severity"] in {"warning", "critical"}
        words = rule["annotations"]
        assert len(words["summary"]) > 10
        assert len(words["fix"]) > 5
        first = (NAME.findall(rule["expr"]) or ["up"])[0]
        labels = {label for of in there.get(first, {}) for label, _ in of} | {"instance"}
        used = set(re.findall(r"\$labels\.(\w+)", words["summary"] + words["fix"]))
        assert used <= labels, rule["alert"]


def test_grafana_asks_any_prometheus() -> None:
    """The dashboard names no data source of ours, and no panel twice."""
    found = json.loads(GRAFANA.read_text())
    panels = found["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    assert {panel["datasource"]["uid"] for panel in panels} == {"${datasource}"}
    assert {each["name"] for each in found["templating"]["list"]} == {"datasource", "instance"}


def test_checks_are_gauges() -> None:
    """One for each check; what only follows is marked."""
    found = document(
        status=status(
            checks(
                redis_healthy={"state": "failure"},
                litellm_healthy={"state": "hushed", "because": ["redis: healthy"]},
            ),
            time.time(),
        )
    )
    assert len(exported(found)["gatehouse_check_ok"]) == 32
    for name, ok, hushed in (("redis", 0, 0), ("litellm", 0, 1), ("host", 1, 0)):
        labels = {"name": f"{name}: healthy", "component": name, "severity": "failure"}
        assert value(found, "gatehouse_check_ok", **labels) == ok
        assert value(found, "gatehouse_check_hushed", **labels) == hushed
    assert value(found, "gatehouse_checks", state="failures") == 1


def test_values_are_in_bytes_and_seconds() -> None:
    """What the document has in MiB is told in bytes; moments are seconds since the epoch."""
    found = document()
    assert value(found, "gatehouse_pool_total_bytes", pool="card 0") == 24000 * 2**20
    assert value(found, "gatehouse_pool_engine_bytes", engine="chat-a") == 7900 * 2**20
    assert value(found, "gatehouse_engine_state", engine="chat-a", state="awake") == 1
    assert value(found, "gatehouse_engine_state", engine="chat-a", state="asleep") == 0
    assert value(found, "gatehouse_keys", state="expiring") == 1
    ends = value(found, "gatehouse_key_expiry_timestamp_seconds", alias="ci-runner") - time.time()
    assert 5.9 * 86400 < ends < 6 * 86400
    assert value(found, "gatehouse_timer_ok", timer="probe") == 0
    assert value(found, "gatehouse_timer_ok", timer="collect") == 1
    assert value(found, "gatehouse_audit_entries_total", result="failed") == 1
    assert value(found, "gatehouse_document_age_seconds") == pytest.approx(12, abs=2)


def test_backups_are_measured() -> None:
    """Ages, sizes and results; what never happened is no zero."""
    found = document()
    assert value(found, "gatehouse_backup_repository_bytes") == 64_000_000
    assert value(found, "gatehouse_drill_ok") == 1
    age = time.time() - value(found, "gatehouse_backup_timestamp_seconds")
    assert age == pytest.approx(9 * 3600, abs=20)
    never = exported(document(backups={"limit_seconds": 3600}))
    assert "gatehouse_backup_timestamp_seconds" not in never
    assert "gatehouse_drill_ok" not in never
    assert "gatehouse_backup_ok" not in exported(document(backups=None))


def test_part_that_cannot_be_read_is_no_zero() -> None:
    """What is not known is not told as nothing; that it is not known is."""
    found = document(usage=None, engines=None, troubles={"usage": "x", "engines": "y"})
    there = exported(found)
    assert "gatehouse_last_day_requests" not in there
    assert "gatehouse_engine_connections" not in there
    assert value(found, "gatehouse_part_readable", part="usage") == 0
    assert value(found, "gatehouse_part_readable", part="keys") == 1


def test_little_is_known_without_a_document() -> None:
    """That there is none, and whether the gateway answers."""
    there = exported(None)
    assert there.keys() == {
        "gatehouse_ready",
        "gatehouse_document_readable",
        "gatehouse_build_info",
    }


def test_rules_and_dashboard_are_on_the_host() -> None:
    """A release brings them, for whichever Prometheus and Grafana."""
    release = rendered().release
    assert release["metrics/rules.yaml"].content == RULES.read_text()
    assert release["metrics/grafana.json"].content == GRAFANA.read_text()


def test_litellm_counts_only_if_asked() -> None:
    """LiteLLM's own metrics cost time in every request: off unless metrics_litellm."""
    assert "prometheus" not in proxy()["litellm_settings"]["callbacks"]
    assert "prometheus" in proxy(metrics_litellm=True)["litellm_settings"]["callbacks"]


def test_drift_is_what_the_checks_say_of_it() -> None:
    """The names by which drift is known are those of checks that there are."""
    names = [check.name for check in every(settings())]
    for ending in DRIFT:
        assert [name for name in names if name.endswith(ending)], ending
    found = status(
        [
            check("host: files are as rendered", state="failure", found="/etc/x"),
            check("redis: of the current release", state="hushed"),
            check("redis: healthy", state="failure"),
        ],
        time.time(),
    )
    assert value(document(status=found), "gatehouse_drift_checks") == 1


def test_prometheus_is_reached_and_reaches() -> None:
    """Where it is on, the metrics listen on the bridge too and know its name; the page does not."""
    off, on = (
        files(settings(metrics_prometheus=wanted))[f"{UNITS}/gatehouse-health.socket"].content
        for wanted in (False, True)
    )
    assert "172.30.40.1" not in off
    assert re.findall(r"^ListenStream=(.*)", on, re.MULTILINE) == [
        "127.0.0.1:8181",
        "127.0.0.1:9090",
        "172.30.40.1:9090",
    ]
    service = files(settings(metrics_prometheus=True))[f"{UNITS}/gatehouse-health.service"].content
    assert "--host host.docker.internal" in service
    assert "IPAddressAllow=localhost 172.30.40.0/24" in service
    target = yaml.safe_load(
        rendered(metrics_prometheus=True).release["metrics/prometheus.yaml"].content
    )
    assert target["scrape_configs"][0]["static_configs"][0]["targets"] == [
        "host.docker.internal:9090"
    ]


def test_alertmanager_tells_only_whom_it_was_told() -> None:
    """Without an address it has nobody to post to."""
    for url in (None, "https://hooks.example.org/x"):
        release = rendered(metrics_prometheus=True, metrics_alertmanager_url=url).release
        found = yaml.safe_load(release["metrics/alertmanager.yaml"].content)["receivers"][0]
        assert [each["url"] for each in found.get("webhook_configs", [])] == ([url] if url else [])
