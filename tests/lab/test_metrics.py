"""Metrics of a real host, judged by Prometheus' own tool."""

import json
import os
from collections.abc import Iterator
from pathlib import Path

import docker
import pytest
import yaml

from gatehouse.checks.metrics import checks
from gatehouse.lab import images
from gatehouse.lab.common import run
from gatehouse.lab.engine import engine, run_logged
from gatehouse.lab.images import LabImages
from gatehouse.lab.progress import Progress
from gatehouse.lab.workstation import Workstation
from gatehouse.render import Machine, render
from gatehouse.render.health import UNITS
from gatehouse.render.template import ROOT
from tests.lab.conftest import wanted
from tests.promtool import promtool
from tests.waiting import wait_for

RULES = ROOT / "compose/metrics/rules.yaml"
IMAGE = "gatehouse-lab/prometheus:13"
COPY = "/root/with-prometheus"
BOTH = "gatehouse-prometheus-1 gatehouse-alertmanager-1"
OF_HEALTH = [f"{UNITS}/gatehouse-health.socket", f"{UNITS}/gatehouse-health.service"]
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


@pytest.fixture(scope="module")
def prometheus(progress: Progress) -> tuple[str, str]:
    """Have the images of both: the official ones, or Debian's packages where no registry answers."""
    client = engine(progress)
    found: LabImages = images.ensure(client, progress)
    if found.source == "registry":
        named = images.defaults(ROOT / "group_data/all.py")
        official = (
            str(named["metrics_prometheus_image"]),
            str(named["metrics_alertmanager_image"]),
        )
        for image in official:
            client.images.pull(image)
        return official
    built(client)
    return IMAGE, IMAGE


def built(client: docker.DockerClient) -> None:
    """Build it, unless that was done."""
    if client.images.list(IMAGE):
        return
    command = [
        "docker",
        "build",
        "--network",
        "host",
        "--tag",
        IMAGE,
        "--label",
        "gatehouse.lab=_image",
    ]
    run_logged(
        [*command, str(ROOT / "tests/images/metrics")], "build-metrics", {"DOCKER_BUILDKIT": "0"}
    )


@pytest.fixture
def watched(workstation: Workstation, prometheus: tuple[str, str]) -> Iterator[Workstation]:
    """A host with both beside the gateway, of a release of its own; afterwards as it was."""
    settings = wanted(
        workstation,
        metrics_prometheus=True,
        metrics_prometheus_image=prometheus[0],
        metrics_alertmanager_image=prometheus[1],
    )
    tree = render(settings, Machine(cores=os.cpu_count() or 2))
    before = {path: workstation.exec(f"cat {path}").stdout for path in OF_HEALTH}
    container = f"gatehouse-lab-{workstation.name}"
    for image in set(prometheus):
        run(["sh", "-c", f"docker save {image} | docker exec -i {container} docker load -q"])
    for path, file in tree.release.items():
        if path.endswith((".yaml", ".env")):
            text = file.content.replace("/opt/gatehouse/current", COPY)
            workstation.exec(f"install -D /dev/stdin -m 644 {COPY}/{path}", text=text)
    for path in OF_HEALTH:
        workstation.exec(f"cat >{path}", text=tree.files[path].content)
    workstation.exec(
        "systemctl daemon-reload; systemctl restart gatehouse-health.socket gatehouse-health"
    )
    compose = f"docker compose --project-directory {COPY} -f {COPY}/compose.yaml"
    try:
        workstation.exec(
            f"{compose} up -d --no-deps --no-build --wait --wait-timeout 120 alertmanager prometheus"
        )
        yield workstation
    finally:
        workstation.exec(f"docker rm --force --volumes {BOTH}; rm -r {COPY}", check=False)
        workstation.exec("docker volume rm gatehouse_prometheus-data gatehouse_alertmanager-data")
        for path, text in before.items():
            workstation.exec(f"cat >{path}", text=text)
        workstation.exec(
            "systemctl daemon-reload; systemctl restart gatehouse-health.socket gatehouse-health"
        )


def test_prometheus_watches_the_gateway(watched: Workstation) -> None:
    """It reads the metrics through the bridge, has the rules, and knows its Alertmanager."""
    ask = "curl -s http://127.0.0.1:9091/api/v1"

    def asked(path: str) -> dict[str, list[dict[str, object]]]:
        found: dict[str, list[dict[str, object]]] = json.loads(
            watched.exec(f"{ask}/{path}").stdout
        )["data"]
        return found

    def health() -> set[object]:
        return {each["health"] for each in asked("targets?state=active")["activeTargets"]}

    wait_for(lambda: health() == {"up"}, 60, "both targets to be up")
    rules = asked("rules")["groups"][0]["rules"]
    assert isinstance(rules, list)
    assert len(rules) == len(yaml.safe_load(RULES.read_text())["groups"][0]["rules"])
    assert asked("alertmanagers")["activeAlertmanagers"]
    for check in checks(wanted(watched, metrics_prometheus=True)):
        done = watched.exec(["sh", "-c", check.command], check=False)
        result = check.judge(done.returncode, done.stdout)
        assert result.holds, f"{check.name}: {result.found}"
    listening = watched.exec("ss -Hltn").stdout
    places = [line.split()[3] for line in listening.splitlines()]
    assert sorted(place for place in places if place.endswith((":9091", ":9093"))) == [
        "127.0.0.1:9091",
        "127.0.0.1:9093",
    ]
    shape = "{{.HostConfig.ReadonlyRootfs}} {{.HostConfig.CapDrop}} {{.Config.User}}"
    hardened = watched.exec(f"docker inspect -f '{shape}' {BOTH}").stdout.splitlines()
    assert hardened == ["true [ALL] 65534:65534"] * 2
