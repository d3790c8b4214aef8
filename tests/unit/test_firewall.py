"""The firewall: the rules that the script makes are the ones that the check looks for."""

import re
import subprocess
from pathlib import Path

import pytest

from gatehouse.checks.firewall import checks
from tests.given import rendered, settings

# `-D`, `-F` and `-X` find nothing: the script would go on deleting otherwise.
IPTABLES = """#!/bin/sh
echo "$*" >>"$LOG"
case "$*" in *" -D "* | *" -F "*) exit 1 ;; esac
"""
NETWORKS = {"network_subnet": "10.9.0.0/24", "network_inner_subnet": "10.8.0.0/24"}
BRIDGES = ["lo", "gw-edge", "gw-inner", "gw-engines"]


@pytest.fixture
def rules(tmp_path: Path) -> list[str]:
    """Give the rules that `firewall.sh up` makes, in order."""
    fake, log = tmp_path / "iptables", tmp_path / "log"
    fake.write_text(IPTABLES)
    fake.chmod(0o755)
    script = rendered(**NETWORKS).files["/etc/gatehouse/firewall.sh"].content
    subprocess.run(
        ["sh", "-c", script, "firewall.sh", "up"],
        env={"PATH": f"{tmp_path}:/usr/bin:/bin", "LOG": str(log)},
        check=True,
    )
    return log.read_text().splitlines()


def test_script_makes_what_the_check_looks_for(rules: list[str]) -> None:
    """For each rule that is checked there is one that is made."""
    (check,) = checks(settings(**NETWORKS))
    looked_for = re.findall(r"iptables (.+ -C .+)", check.command)
    assert len(looked_for) == 8
    for rule in looked_for:
        assert {rule.replace("-C", "-A"), rule.replace("-C", "-I")} & set(rules)


def test_own_bridges_pass_before_anything_is_dropped(rules: list[str]) -> None:
    """Loopback and the stack's own bridges return first, and the chain is hooked in last."""
    raw = [rule for rule in rules if "-t raw" in rule and (" -A " in rule or " -I " in rule)]
    assert [rule.split()[-3] for rule in raw[:4]] == BRIDGES
    networks = ["127.0.0.0/8", "10.9.0.0/24", "10.8.0.0/24", "172.30.42.0/24"]
    assert [rule.split()[-3] for rule in raw[4:8]] == networks
    assert raw[-1].endswith("-I PREROUTING -j GATEHOUSE")


def test_inner_network_has_no_way_out(rules: list[str]) -> None:
    """What is only on the inner bridge, or an engine's, opens no connection elsewhere."""
    drops = [rule for rule in rules if "-t mangle -A" in rule]
    for network, drop in zip(("gw-inner", "gw-engines"), drops, strict=True):
        assert f"-i {network} ! -o {network}" in drop
        assert drop.endswith("--ctstate NEW -j DROP")


def test_engine_with_egress_passes_first() -> None:
    """An engine that may reach the outside returns before the others are dropped."""
    script = rendered(models_enable=["chat-mistral-7b-ollama"]).files["/etc/gatehouse/firewall.sh"]
    lines = [line.strip() for line in script.content.splitlines() if "gw-engines !" in line]
    assert lines[0].endswith("-s 172.30.42.14 -j RETURN")
    assert lines[1].endswith("-j DROP")


def test_rules_are_in_force_before_docker() -> None:
    """The unit is ordered before the engine, and calls the script that was written."""
    unit = rendered().files["/etc/systemd/system/gatehouse-firewall.service"].content
    assert "Before=docker.service" in unit
    assert "ExecStart=/bin/sh /etc/gatehouse/firewall.sh up" in unit
