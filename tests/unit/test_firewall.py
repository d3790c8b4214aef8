"""The firewall: the rules that the script makes are the ones that the check looks for."""

import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from gatehouse.checks.firewall import SSH_PORTS, checks
from gatehouse.deploys.firewall import _locked_out
from gatehouse.render import Machine
from gatehouse.render.firewall import FILTER, FILTER_UNIT, RULES
from tests.given import MACHINE, model, problems, rendered, settings
from tests.waiting import wait_for

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


def closed(**changes: object) -> str:
    """Give the rules about what may come in."""
    machine = Machine(MACHINE.cores, MACHINE.memory_mib, ssh_ports=frozenset({22, 2222}))
    return rendered(machine, firewall_enabled=True, **changes).files[RULES].content


def test_nothing_is_closed_unless_it_is_wanted() -> None:
    """As shipped, what may come in is the operator's own affair."""
    files = rendered().files
    assert not {RULES, FILTER, FILTER_UNIT} & files.keys()
    assert {RULES, FILTER, FILTER_UNIT} <= rendered(firewall_enabled=True).files.keys()


def test_rules_refuse_and_let_ssh_in() -> None:
    """What comes in is refused, but for SSH on every port that sshd has, from where it may."""
    rules = closed(firewall_ssh_networks=["192.0.2.0/24", "2001:db8::/32"])
    assert "hook input priority filter; policy drop;" in rules
    assert "ip saddr { 192.0.2.0/24 } tcp dport { 22, 2222 } accept" in rules
    assert "ip6 saddr { 2001:db8::/32 } tcp dport { 22, 2222 } accept" in rules
    assert "# SSH listens on: 22 2222\n" in rules
    assert "ip6 saddr { " not in closed(firewall_ssh_networks=["192.0.2.0/24"])


def test_rules_are_loaded_at_once_and_are_a_table_of_their_own() -> None:
    """One transaction replaces our table; nobody else's is named."""
    rules = closed()
    begin = rules.index("table inet gatehouse")
    assert rules[begin:].startswith("table inet gatehouse\ndelete table inet gatehouse\ntable ")
    assert "flush" not in rules
    assert rules.count("table ") == 3 + rules[:begin].count("table ")


def test_gateway_is_open_where_it_is_public_only() -> None:
    """A public bind address opens the gateway's port; Postgres and Redis stay closed."""
    assert "tcp dport { 4000 }" not in closed()
    public = {"network_bind_address": "192.0.2.10", "network_bind_public": True}
    rules = closed(**public, firewall_ports=[443])
    assert "\t\ttcp dport { 443, 4000 } accept" in rules
    assert "ct original proto-dst { 443, 4000 } accept" in rules
    assert "5434" not in rules
    assert "6379" not in rules


def test_containers_reach_what_is_configured() -> None:
    """Engines, servers of this host in models, and the metrics that Prometheus asks for."""
    mine = model(api_base="http://host.docker.internal:8123/v1")
    other = model("chat-other-vllm", api_base="http://192.0.2.1:8124/v1")
    rules = closed(
        models_extra=[mine, other],
        models_enable=["chat-hermes-3-llama-3.1-8b"],
        metrics_prometheus=True,
        firewall_bridge_ports=[9999],
    )
    found = re.search(r'iifname "gw-edge" ip daddr 172.30.40.1 tcp dport \{ (.*) \}', rules)
    assert found
    ports = set(map(int, found.group(1).split(", ")))
    assert {8123, 9090, 9999} < ports
    assert 8124 not in ports
    engines = settings(models_enable=["chat-hermes-3-llama-3.1-8b"]).active_engines
    assert {engine.port for engine in engines} <= ports


def test_named_interfaces_are_trusted() -> None:
    """A VPN may be let in as a whole, into containers too."""
    rules = closed(firewall_interfaces=["tailscale0", "virbr*"])
    assert rules.count('iifname "tailscale0" accept') == rules.count('iifname "virbr*" accept') == 2


def test_udp_is_let_in_where_it_is_named() -> None:
    """A VPN that this host serves, in a process of its own or in a container."""
    assert "udp dport { 51820" not in closed()
    rules = closed(firewall_udp_ports=[51820, 3478])
    assert "\t\tudp dport { 51820, 3478 } accept" in rules
    assert "meta l4proto udp ct original proto-dst { 51820, 3478 } accept" in rules


def test_bridge_that_is_not_dockers_is_no_container() -> None:
    """A bridge of the host's own cards may be called as Docker calls its own: br-lan."""
    assert '\t\tiifname "br-*" accept' in closed()
    machine = Machine(MACHINE.cores, MACHINE.memory_mib, bridges=frozenset({"br-lan", "br-ex"}))
    rules = rendered(machine, firewall_enabled=True).files[RULES].content
    assert '\t\tiifname "br-*" iifname != { "br-ex", "br-lan" } accept' in rules
    assert 'iifname "br-*" accept' not in rules
    assert "# Bridges named like Docker's that are not: br-ex br-lan\n" in rules


def test_whoever_is_logged_in_here_must_come_in_again() -> None:
    """By a network that SSH is let in from, or by an interface that everything is let in by."""
    inside, outside = "10.1.2.3", "198.51.100.7"
    narrow = settings(
        firewall_enabled=True,
        firewall_ssh_networks=["10.0.0.0/8"],
        firewall_interfaces=["wg0", "virbr*"],
    )
    assert _locked_out(narrow, [inside], {inside: "eth0"}) == ""
    assert outside in _locked_out(narrow, [inside, outside], {inside: "eth0", outside: "eth0"})
    assert outside in _locked_out(narrow, [outside], {})
    for device in ("wg0", "virbr1", "lo"):
        assert _locked_out(narrow, [outside], {outside: device}) == ""


@pytest.fixture
def listener(tmp_path: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Give a process that calls itself as sshd's first one does."""
    title = "sshd: /usr/sbin/sshd -D [listener] 0 of 10-100 startups"
    with subprocess.Popen(["bash", "-c", f'exec -a "{title}" cat'], stdin=subprocess.PIPE) as one:
        named = Path(f"/proc/{one.pid}/cmdline")
        wait_for(lambda: b"[listener]" in named.read_bytes(), 10, "the process to have its title")
        yield one
        one.kill()


def test_ports_of_ssh_are_found(tmp_path: Path, listener: subprocess.Popen[bytes]) -> None:
    """As it is configured, where systemd listens for it, where it was told on its command line.

    What it forwards for somebody who is logged in is none of its ports.
    """
    other = os.getpid()
    made = {
        "sshd": "echo port 22",
        "systemctl": 'case "$*" in *is-active*ssh.socket) ;; *show*) echo "[::]:2022 (Stream)" ;; *) exit 3 ;; esac',
        "ss": f"""cat <<'END'
LISTEN 0 128 0.0.0.0:2222 0.0.0.0:* users:(("sshd",pid={listener.pid},fd=6))
LISTEN 0 128 127.0.0.1:2223 0.0.0.0:* users:(("sshd",pid={listener.pid},fd=7))
LISTEN 0 128 0.0.0.0:8899 0.0.0.0:* users:(("sshd",pid={other},fd=7))
LISTEN 0 128 [::]:2322 [::]:* users:(("dropbear",pid={other},fd=7))
LISTEN 0 128 [::1]:2323 [::]:* users:(("dropbear",pid={other},fd=8))
END""",
    }
    for name, script in made.items():
        (tmp_path / name).write_text(f"#!/bin/sh\n{script}\n")
        (tmp_path / name).chmod(0o755)

    def seen() -> list[str]:
        env = {"PATH": f"{tmp_path}:/usr/bin:/bin"}
        return subprocess.check_output(["sh", "-c", SSH_PORTS], text=True, env=env).split()

    assert seen() == ["22", "2022", "2222", "2322"]
    # It cannot say as what it is configured where its folder is missing: as before a first start.
    (tmp_path / "sshd").write_text("#!/bin/sh\nexit 255\n")
    assert seen() == ["2022", "2222", "2322"]


def test_rules_are_loaded_before_the_network_and_after_others() -> None:
    """What waits for the network before the system is up would end a cycle by dropping the rules."""
    unit = rendered(firewall_enabled=True).files[FILTER_UNIT].content
    assert "DefaultDependencies=no" in unit
    assert "Before=network-pre.target shutdown.target" in unit
    assert "After=nftables.service\nPartOf=nftables.service" in unit


@pytest.mark.parametrize(
    "changes",
    [
        {"firewall_ports": [0]},
        {"firewall_udp_ports": [65536]},
        {"firewall_ssh_networks": []},
        {"firewall_ssh_networks": ["192.0.2.0/33"]},
        {"firewall_ssh_networks": ["192.0.2.1/24"]},
        {"firewall_interfaces": ['eth0" accept; #']},
        {"firewall_undo_seconds": 5},
    ],
)
def test_setting_that_nft_would_refuse_is_refused(changes: dict[str, object]) -> None:
    """What cannot become a rule, or would become another one, is refused by its name."""
    (key,) = changes
    assert [found.partition("/")[0] for found in problems(**changes)] == [key]


def test_closed_host_is_checked() -> None:
    """The rules in force, and that SSH is let in, are checked only where they are wanted."""
    names = [check.name for check in checks(settings(firewall_enabled=True))]
    assert names[1:] == [
        "firewall: only what is allowed comes in",
        "firewall: SSH is let in where it listens",
        "firewall: only Docker's bridges are taken for Docker's",
    ]
    assert len(checks(settings())) == 1


def test_script_that_keeps_rules_is_valid_shell() -> None:
    """Any POSIX shell can read it, and the undo stands before the rules do."""
    script = rendered(firewall_enabled=True).files[FILTER].content
    subprocess.run(["sh", "-n"], input=script, text=True, check=True)
    body = script.partition("try() {")[2].partition("\n}")[0]
    assert body.index("systemd-run") < body.index('nft -f "$wanted"')
