"""Metrics of a real host, judged by Prometheus' own tool."""

import json
from pathlib import Path

import pytest
import yaml

from gatehouse.lab.common import run
from gatehouse.lab.workstation import Workstation
from gatehouse.render.template import ROOT
from tests.promtool import promtool

RULES = ROOT / "compose/metrics/rules.yaml"
LABELS = 'instance="big",job="gatehouse"'


@pytest.fixture(scope="module")
def tool() -> str:
    """Give promtool."""
    return str(promtool())


def test_metrics_follow_prometheus_conventions(workstation: Workstation, tool: str) -> None:
    """`promtool check metrics` has nothing to say about names, types, units and help."""
    workstation.exec("systemctl start gatehouse-collect")
    text = workstation.exec("curl -sf http://127.0.0.1:9090/metrics").stdout
    assert "gatehouse_ready 1.0" in text
    assert "gatehouse_document_stale 0.0" in text
    linted = run([tool, "check", "metrics"], text=text, check=False)
    assert (linted.returncode, linted.stdout + linted.stderr) == (0, "")


def test_rules_are_valid(tool: str) -> None:
    """`promtool check rules` reads all of them."""
    said = run([tool, "check", "rules", str(RULES)]).stdout
    count = len(yaml.safe_load(RULES.read_text())["groups"][0]["rules"])
    assert f"SUCCESS: {count} rules found" in said


@pytest.mark.parametrize(
    ("series", "alert", "minute", "labels"),
    [
        ("gatehouse_ready{%s}", "GatehouseNotReady", 3, {}),
        (
            'gatehouse_check_ok{name="redis: healthy",component="redis",severity="failure",%s}',
            "GatehouseCheckFails",
            3,
            {"name": "redis: healthy", "component": "redis"},
        ),
        ('gatehouse_timer_ok{timer="probe",%s}', "GatehouseTimerFails", 16, {"timer": "probe"}),
        ("up{%s}", "GatehouseGone", 4, {}),
    ],
    ids=lambda value: value if isinstance(value, str) and value.isalnum() else "",
)
def test_rule_fires_and_is_quiet(  # noqa: PLR0913, PLR0917 - two fixtures and four values
    tool: str, tmp_path: Path, series: str, alert: str, minute: int, labels: dict[str, str]
) -> None:
    """It fires when what it watches is 0 for long enough, not before, and not when it is 1."""
    named = series % LABELS
    severity = "warning" if "Timer" in alert else "critical"
    firing = {"instance": "big", "job": "gatehouse", "severity": severity} | labels
    rule = next(
        each
        for each in yaml.safe_load(RULES.read_text())["groups"][0]["rules"]
        if each["alert"] == alert
    )
    words = rule["annotations"]
    for label, value in firing.items():
        words = {
            key: text.replace(f"{{{{ $labels.{label} }}}}", value) for key, text in words.items()
        }
    tests = [
        {
            "interval": "1m",
            "input_series": [{"series": named, "values": f"{value}x60"}],
            "alert_rule_test": [
                {"eval_time": "1m", "alertname": alert, "exp_alerts": []},
                {
                    "eval_time": f"{minute}m",
                    "alertname": alert,
                    "exp_alerts": [{"exp_labels": firing, "exp_annotations": words}]
                    if fires
                    else [],
                },
            ],
        }
        for value, fires in ((0, True), (1, False))
    ]
    path = tmp_path / "test.yaml"
    path.write_text(json.dumps({"rule_files": [str(RULES)], "tests": tests}))
    done = run([tool, "test", "rules", str(path)], check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_what_only_follows_does_not_fire(tool: str, tmp_path: Path) -> None:
    """A hushed check is somebody else's alert."""
    check = 'name="litellm: healthy",component="litellm",severity="failure"'
    series = [
        {"series": f"gatehouse_check_ok{{{check},{LABELS}}}", "values": "0x30"},
        {"series": f"gatehouse_check_hushed{{{check},{LABELS}}}", "values": "1x30"},
    ]
    asked = {"eval_time": "20m", "alertname": "GatehouseCheckFails", "exp_alerts": []}
    test = {"interval": "1m", "input_series": series, "alert_rule_test": [asked]}
    path = tmp_path / "test.yaml"
    path.write_text(json.dumps({"rule_files": [str(RULES)], "tests": [test]}))
    done = run([tool, "test", "rules", str(path)], check=False)
    assert done.returncode == 0, done.stdout + done.stderr
