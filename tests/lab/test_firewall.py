"""The optional firewall: strangers are refused, nobody is locked out, and off leaves nothing."""

import shlex
from collections.abc import Iterator

import pytest

from gatehouse.checks.firewall import SSH_PORTS
from gatehouse.lab.common import run
from gatehouse.lab.workstation import Workstation
from tests.deploying import Deploy, deploy
from tests.lab.conftest import failing, wait_until_healthy
from tests.waiting import wait_for

SERVICE, PUBLISHED, ALLOWED, ON_BRIDGE, NOT_ALLOWED = 8555, 8556, 8557, 8558, 8559
UDP_ALLOWED, UDP_REFUSED = 8561, 8562
SETTINGS = {
    "firewall_enabled": True,
    "firewall_ports": [ALLOWED],
    "firewall_udp_ports": [UDP_ALLOWED],
    "firewall_bridge_ports": [ON_BRIDGE],
}
# From nowhere: nobody is there (RFC 5737).
LOCKED_OUT = {"firewall_ssh_networks": ["203.0.113.0/24"]}
ECHO = """
import socket, sys
here = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
here.bind(("0.0.0.0", int(sys.argv[1])))
while True:
    data, where = here.recvfrom(100)
    here.sendto(data, where)
"""
CALL = """
import socket, sys
here = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
here.settimeout(2)
here.sendto(b"?", (sys.argv[1], int(sys.argv[2])))
try:
    print(here.recv(100).decode())
except TimeoutError:
    print("no answer")
"""
# Somebody's own programs, and a container whose port Docker publishes for everybody.
STRANGERS = f"""
for port in {UDP_ALLOWED} {UDP_REFUSED}; do
    systemd-run --quiet --collect --unit stranger-$port python3 -I -c {shlex.quote(ECHO)} $port
done
for port in {SERVICE} {ALLOWED} {ON_BRIDGE} {NOT_ALLOWED}; do
    systemd-run --quiet --collect --unit stranger-$port python3 -I -m http.server $port
done
image=$(docker inspect -f '{{{{.Config.Image}}}}' gatehouse-redis-1)
docker run -d --name stranger -p {PUBLISHED}:6379 --entrypoint redis-server "$image" --protected-mode no
"""
GONE = f"""
systemctl stop $(printf 'stranger-%s ' {SERVICE} {ALLOWED} {ON_BRIDGE} {NOT_ALLOWED} {UDP_ALLOWED} {UDP_REFUSED})
docker rm -f stranger"""
# A neighbour on a bridge of the host's own that is called as Docker calls its networks.
HOME = """
ip netns add home && ip link add br-lan type bridge && ip link add home0 type veth peer name home1
ip link set home0 master br-lan up && ip link set home1 netns home
ip addr add 10.77.0.1/24 dev br-lan && ip link set br-lan up
ip netns exec home ip addr add 10.77.0.2/24 dev home1 && ip netns exec home ip link set home1 up"""
NO_HOME = "ip netns delete home; ip link delete br-lan"
FROM_HOME = (
    "ip netns exec home python3 -I -c 'import socket; "
    f'socket.create_connection(("10.77.0.1", {PUBLISHED}), timeout=2)\''
)
# What waits for the network before the system is up, as cloud-init does.
EARLY = """
mkdir -p /run/early/sysinit.target.wants && cd /run/early
cat >early.service <<'END'
[Unit]
DefaultDependencies=no
Wants=cards.service
After=cards.service
Before=sysinit.target
[Service]
ExecStart=/bin/true
END
cat >cards.service <<'END'
[Unit]
DefaultDependencies=no
Wants=network-pre.target
After=network-pre.target
[Service]
ExecStart=/bin/true
END
ln -s ../early.service sysinit.target.wants/early.service
SYSTEMD_UNIT_PATH=/run/early: systemd-analyze verify --man=no gatehouse-filter.service 2>&1
rm -r /run/early"""
RAW = "iptables -w 10 -t raw -C PREROUTING -j GATEHOUSE"
INSIDE = "docker exec -i gatehouse-litellm-1 python3 -c 'import socket, sys; socket.create_connection((\"172.30.40.1\", {}), timeout=2)'"
LEFT = (
    "ls /etc/gatehouse/firewall.nft /etc/gatehouse/filter.sh /var/lib/gatehouse/firewall.nft "
    "/etc/systemd/system/gatehouse-filter.service; nft list table inet gatehouse; "
    "systemctl list-units --all --no-legend 'gatehouse-filter*'"
)


def seen(workstation: Workstation) -> dict[int, str]:
    """Give what a neighbour sees of the host's ports."""
    with workstation.neighbour() as neighbour:
        ports = (22, 4000, SERVICE, PUBLISHED, ALLOWED)
        return dict(neighbour.scan(workstation.address, ports, timeout_seconds=1))


def comes_in(workstation: Workstation) -> bool:
    """Tell whether a new SSH connection comes about."""
    options = ["-o", "ControlMaster=no", "-o", "ControlPath=none", "-o", "ConnectTimeout=2"]
    config = str(workstation.access.ssh_config)
    return not run(
        ["ssh", "-F", config, *options, workstation.name, "true"], check=False
    ).returncode


def rules(workstation: Workstation) -> str:
    """Give our rules, as the kernel has them."""
    return workstation.exec("nft -s list table inet gatehouse").stdout


@pytest.fixture(scope="module")
def strangers(workstation: Workstation) -> Iterator[dict[int, str]]:
    """Have somebody's programs run, and give what a neighbour sees of them without a firewall."""
    workstation.exec(STRANGERS)
    try:
        yield seen(workstation)
    finally:
        workstation.exec(GONE, check=False)


@pytest.fixture(scope="module")
def closed(workstation: Workstation, strangers: dict[int, str]) -> Iterator[Deploy]:
    """Have the firewall on for these tests; afterwards nothing of it is left."""
    assert strangers[SERVICE] == "open"
    try:
        yield deploy(workstation, settings=SETTINGS)
    finally:
        deploy(workstation)
        left = workstation.exec(LEFT, check=False).stdout
        assert left == ""
        assert seen(workstation) == strangers


def test_strangers_are_refused(
    workstation: Workstation, strangers: dict[int, str], closed: Deploy
) -> None:
    """Programs and published ports answer before and not after; what is allowed, and SSH, do."""
    assert "Firewall | Let in only what is allowed" in closed.changed
    before = dict.fromkeys((22, SERVICE, PUBLISHED, ALLOWED), "open") | {4000: "closed"}
    assert strangers == before
    after = dict.fromkeys((4000, SERVICE, PUBLISHED), "filtered") | {22: "open", ALLOWED: "open"}
    assert seen(workstation) == after
    workstation.exec("systemctl restart docker")
    assert seen(workstation) == after
    # A daemon that restarts asks after everybody's health anew.
    wait_until_healthy(workstation)


def called(workstation: Workstation, port: int) -> str:
    """Give what a neighbour is answered who calls a UDP port."""
    with workstation.neighbour() as neighbour:
        return neighbour.exec("python3", "-I", "-c", CALL, workstation.address, str(port)).strip()


def test_udp_is_let_in_where_it_is_named(workstation: Workstation, closed: Deploy) -> None:
    """A VPN's port answers; another one that somebody listens on does not."""
    assert closed.code == 0
    assert called(workstation, UDP_ALLOWED) == "?"
    assert called(workstation, UDP_REFUSED) == "no answer"


def test_bridge_called_as_dockers_is_no_container(workstation: Workstation, closed: Deploy) -> None:
    """A neighbour on `br-lan` reaches a published port until the rules know that bridge."""
    assert closed.code == 0
    workstation.exec(HOME)
    try:
        workstation.exec(FROM_HOME)
        found = workstation.exec("gatehouse status --component firewall", check=False)
        assert found.returncode == 1
        assert "br-lan is not" in found.stdout
        assert deploy(workstation, settings=SETTINGS).changed != []
        assert "timed out" in workstation.exec(FROM_HOME, check=False).stderr
        assert failing(workstation, **SETTINGS) == []
    finally:
        workstation.exec(NO_HOME)
        deploy(workstation, settings=SETTINGS)


def test_ssh_is_let_in_wherever_it_listens(workstation: Workstation, closed: Deploy) -> None:
    """A second sshd with its port on its command line; not what it forwards for a session."""
    assert closed.code == 0
    assert workstation.exec(SSH_PORTS).stdout.split() == ["22"]
    workstation.exec(
        "systemd-run --quiet --collect --unit second-sshd /usr/sbin/sshd -D -p 2222 -o GatewayPorts=yes"
    )
    try:
        wait_for(
            lambda: workstation.exec(SSH_PORTS).stdout.split() == ["22", "2222"], 30, "both ports"
        )
        found = workstation.exec("gatehouse status --component firewall", check=False)
        assert "port 2222 is not let in" in found.stdout
    finally:
        workstation.exec("systemctl stop second-sshd")


def test_rules_outlive_another_loading_of_a_distributions(
    workstation: Workstation, closed: Deploy
) -> None:
    """`systemctl restart nftables`, or a reload, begins with `flush ruleset`: ours come after it."""
    assert closed.code == 0
    before = rules(workstation)
    try:
        # Started, it asks nobody: what it has flushed is missed, and mended.
        workstation.exec("systemctl start nftables")
        assert "other rules are in force" in (
            workstation.exec("gatehouse status --component firewall", check=False).stdout
        )
        workstation.exec("systemctl restart gatehouse-filter gatehouse-firewall")
        for what in ("restart", "reload"):
            workstation.exec(f"systemctl {what} nftables")
            wait_for(
                lambda: workstation.exec(RAW, check=False).returncode == 0, 30, "the guard's rules"
            )
            assert rules(workstation) == before
    finally:
        workstation.exec("systemctl stop nftables")
        workstation.exec("systemctl restart gatehouse-filter gatehouse-firewall docker")
        wait_until_healthy(workstation)
    assert failing(workstation, **SETTINGS) == []


def test_boot_that_waits_for_the_network_early_keeps_the_rules(
    workstation: Workstation, closed: Deploy
) -> None:
    """No cycle of what comes after what, which systemd would end by leaving something out."""
    assert closed.code == 0
    assert "ordering cycle" not in workstation.exec(EARLY).stdout


def test_gateway_works_behind_the_firewall(workstation: Workstation, closed: Deploy) -> None:
    """Every check holds, containers reach what they need on the bridge, and nothing else there."""
    assert closed.code == 0
    assert failing(workstation, **SETTINGS) == []
    workstation.exec("curl -sf http://127.0.0.1:4000/health/liveliness")
    workstation.exec(INSIDE.format(ON_BRIDGE))
    refused = workstation.exec(INSIDE.format(NOT_ALLOWED), check=False)
    assert "timed out" in refused.stderr


def test_second_deploy_changes_nothing(workstation: Workstation, closed: Deploy) -> None:
    """Rules that are in force are left alone: no timer, no new connection."""
    assert closed.changed
    assert deploy(workstation, settings=SETTINGS).changed == []


def test_deploy_that_would_lock_out_is_undone(workstation: Workstation, closed: Deploy) -> None:
    """Rules through which the deploy cannot come in again fail it, and those before stay."""
    assert closed.code == 0
    before = rules(workstation)
    done = deploy(workstation, settings=SETTINGS | LOCKED_OUT, expect=None)
    assert done.code == 1
    assert "the firewall would lock you out: no new connection came in" in done.words
    assert "firewall_ssh_networks" in done.words
    assert rules(workstation) == before
    assert comes_in(workstation)
    # The next deploy puts the file right, too.
    assert deploy(workstation, settings=SETTINGS).code == 0


def test_rules_that_nobody_confirms_undo_themselves(
    workstation: Workstation, closed: Deploy
) -> None:
    """A deploy that dies after it has locked everybody out is undone by the host's own timer."""
    assert closed.code == 0
    before, wanted = rules(workstation), "/etc/gatehouse/firewall.nft"
    workstation.exec(f"cp -a {wanted} /root/kept.nft && sed -i '/ saddr .* dport/d' {wanted}")
    try:
        workstation.exec("sh /etc/gatehouse/filter.sh try 8")
        assert rules(workstation) != before
        assert not comes_in(workstation)
        wait_for(lambda: comes_in(workstation), 30, "the rules to undo themselves")
        assert rules(workstation) == before
        late = workstation.exec("sh /etc/gatehouse/filter.sh confirm", check=False)
        assert late.returncode == 1
        assert "firewall_undo_seconds" in late.stderr
    finally:
        workstation.exec(f"mv /root/kept.nft {wanted}")


def test_drift_is_found_and_mended(workstation: Workstation, closed: Deploy) -> None:
    """A rule that somebody adds is found; the doctor's repair brings back what was confirmed."""
    assert closed.code == 0
    before = rules(workstation)
    workstation.exec("nft insert rule inet gatehouse input tcp dport 4000 accept")
    found = workstation.exec("gatehouse status --component firewall", check=False)
    assert found.returncode == 1
    assert "other rules are in force" in found.stdout
    workstation.exec("gatehouse doctor --fix --yes", check=False)
    assert rules(workstation) == before
    assert failing(workstation, **SETTINGS) == []


def test_rules_are_in_force_after_a_power_cut(workstation: Workstation, closed: Deploy) -> None:
    """The same rules, and SSH comes in, without anybody doing anything."""
    assert closed.code == 0
    before = rules(workstation)
    workstation.restart(power_cut=True)
    wait_until_healthy(workstation)
    assert rules(workstation) == before
    workstation.exec(GONE, check=False)
    workstation.exec(STRANGERS)
    after = dict.fromkeys((4000, SERVICE, PUBLISHED), "filtered") | {22: "open", ALLOWED: "open"}
    assert seen(workstation) == after
    assert failing(workstation, **SETTINGS) == []
