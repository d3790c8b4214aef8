"""Hosts that cannot become a gateway: each is told why, and left as it was."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field

import pytest

from gatehouse.lab.images import LabImages
from gatehouse.lab.progress import Progress
from gatehouse.lab.settings import overrides
from gatehouse.lab.workstation import Workstation
from tests.deploying import deploy
from tests.waiting import wait_for

MARK = "/run/before-the-deploy"
# What is newer than the mark, and what a gateway has; a fresh host prints nothing.
TOUCHED = f"""
find /etc /opt /srv /usr -newer {MARK}
ls -d /etc/gatehouse /opt/gatehouse /var/lib/gatehouse 2>/dev/null
getent group gatehouse gatehouse-secrets
iptables-save | grep -i gatehouse
docker ps -aq; docker image ls -q; docker volume ls -q
true"""
DAEMON_JSON = "/etc/docker/daemon.json"
# However often it has just been started.
ANEW = "systemctl reset-failed docker && systemctl restart docker"
# A package that starts its service when it is installed does not on a machine that is no server.
INSTALL = (
    '[ -n "$(ls /var/lib/apt/lists/*Packages* 2>/dev/null)" ] || apt-get -qq update && '
    "DEBIAN_FRONTEND=noninteractive apt-get -qq install -y --no-install-recommends"
)


@dataclass(frozen=True)
class Unfit:
    """One reason: how the host or the settings get it, how it goes again, and what is said."""

    words: list[str]
    settings: dict[str, object] = field(default_factory=dict)
    make: str = "true"
    mend: str = "true"


UNFIT = {
    "port": Unfit(
        make="systemd-run --quiet --collect --unit other python3 -m http.server 4000",
        mend="systemctl stop other",
        words=["port 4000 is taken by", '"python3"', "give litellm_port another port"],
    ),
    "system": Unfit(
        make="cp -P /etc/os-release /root/ && rm /etc/os-release && "
        "printf 'ID=fedora\\nVERSION_ID=42\\nPRETTY_NAME=\"Fedora 42\"\\n' >/etc/os-release",
        mend="rm /etc/os-release && mv /root/os-release /etc/",
        words=["Fedora 42 is not supported: use Debian 12, Debian 13"],
    ),
    "disk": Unfit(
        make="mkdir /srv/small && mount -t tmpfs -o size=64m tmpfs /srv/small && "
        f"""echo '{{"data-root": "/srv/small/docker"}}' >{DAEMON_JSON} && {ANEW}""",
        mend=f"rm -f {DAEMON_JSON} && {ANEW} && umount /srv/small && rmdir /srv/small",
        words=["0 GiB free on /srv/small/docker, 10 GiB needed (host_disk_min_gib)"],
    ),
    "daemon.json": Unfit(
        make=f"""echo '{{"log-driver": }}' >{DAEMON_JSON}""",
        mend=f"rm {DAEMON_JSON}",
        words=["/etc/docker/daemon.json cannot be read", "mend it or move it away"],
    ),
    "memory": Unfit(
        make="echo 'MemTotal: 2048000 kB' >/run/meminfo && mount --bind /run/meminfo /proc/meminfo",
        mend="umount /proc/meminfo",
        words=["2000 MiB of memory, 3500 MiB needed (host_memory_min_mib)"],
    ),
    "other disk": Unfit(
        make="mount -t tmpfs -o size=64m tmpfs /opt",
        mend="umount /opt",
        words=["64 MiB free on /opt, 256 MiB needed for what a deploy writes there"],
    ),
    "clock": Unfit(
        settings={"host_time_sync_required": True},
        words=["nobody keeps the clock", "host_time_sync_required = False"],
    ),
    "network": Unfit(
        make="ip route add 172.30.40.128/25 dev eth0",
        mend="ip route delete 172.30.40.128/25",
        words=["network_subnet = 172.30.40.0/24 overlaps 172.30.40.128/25", "through eth0"],
    ),
    "ufw": Unfit(
        make=f"{INSTALL} ufw && ufw allow 22/tcp && ufw --force enable",
        mend="ufw --force disable",
        settings={"firewall_enabled": True},
        words=["ufw is active", "firewall_enabled = False", "switch it off: ufw disable"],
    ),
    "firewalld": Unfit(
        make=f"{INSTALL} firewalld && systemctl start firewalld",
        mend="systemctl stop firewalld",
        settings={"firewall_enabled": True},
        words=["firewalld is active", "switch it off: systemctl disable --now firewalld"],
    ),
}


@pytest.fixture(scope="module")
def fresh(lab_images: LabImages, progress: Progress) -> Iterator[Workstation]:
    """A workstation that nobody has deployed to."""
    with Workstation.start(
        "s-fresh", image=lab_images.host, settings=overrides(lab_images), progress=progress
    ) as started:
        yield started


@contextmanager
def unfit(workstation: Workstation, *reasons: Unfit) -> Iterator[dict[str, object]]:
    """Have the host be unfit for each of these reasons; gives the settings that belong to them."""
    with ExitStack() as mending:
        for reason in reasons:
            workstation.exec(reason.make)
            mending.callback(workstation.exec, reason.mend)
        if UNFIT["port"] in reasons:
            wait_for(
                lambda: workstation.exec("ss -Hltn 'sport = :4000'").stdout, 30, "the other server"
            )
        workstation.exec(f"touch {MARK}")
        yield {key: value for reason in reasons for key, value in reason.settings.items()}


@pytest.mark.parametrize("reason", UNFIT)
def test_unfit_host_is_refused_untouched(fresh: Workstation, reason: str) -> None:
    """What was found and what mends it is said, with exit code 1; nothing is changed before."""
    with unfit(fresh, UNFIT[reason]) as settings:
        refused = deploy(fresh, settings=settings, expect=1)
        assert "this host cannot be provisioned, nothing was touched" in refused.words
        for words in UNFIT[reason].words:
            assert words in refused.words
        assert refused.words.count(" - ") == 1, "another reason is given, too"
        assert "Traceback" not in refused.words
        assert not fresh.exec(TOUCHED).stdout


def test_every_reason_is_given_at_once(fresh: Workstation) -> None:
    """Nobody has to deploy as often as there are reasons."""
    with unfit(fresh, *UNFIT.values()) as settings:
        refused = deploy(fresh, settings=settings, expect=1)
        for reason in UNFIT.values():
            for words in reason.words:
                assert words in refused.words
        assert not fresh.exec(TOUCHED).stdout
