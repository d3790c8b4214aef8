"""The host: directories, the release, and the settings that it was made with."""

import json

from testinfra.host import Host

from gatehouse.settings import Settings
from tests.host.conftest import lines

STAT = "stat -c '%n %F %a %U:%G'"


def test_directories_have_their_modes_and_owners(host: Host, settings: Settings) -> None:
    """Each directory is there for those who need it, and for nobody else."""
    readers = settings.host_group
    wanted = [
        "/opt/gatehouse directory 755 root:root",
        "/opt/gatehouse/releases directory 755 root:root",
        f"/etc/gatehouse directory 750 root:{readers}",
        "/etc/gatehouse/secrets directory 700 root:root",
        "/etc/gatehouse/secrets/providers directory 750 root:gatehouse-secrets",
        f"/var/lib/gatehouse directory 750 root:{readers}",
        "/var/lib/gatehouse/backup directory 700 root:root",
        f"/var/lib/gatehouse/engines directory 750 root:{readers}",
    ]
    paths = " ".join(line.split()[0] for line in wanted)
    assert lines(host, f"{STAT} {paths}") == wanted


def test_etc_holds_what_was_rendered_and_nothing_else(host: Host, settings: Settings) -> None:
    """No unfinished file of a killed run is left, and every file is for its readers only."""
    found = lines(host, "find /etc/gatehouse -maxdepth 1 -type f -printf '%f %m %u:%g\\n' | sort")
    readers = f"root:{settings.host_group}"
    assert found == [
        "docker-daemon.json 644 root:root",
        f"firewall.sh 640 {readers}",
        f"settings.json 640 {readers}",
    ]


def test_settings_are_the_operators(host: Host, settings: Settings) -> None:
    """The host was made with the inventory's settings: if not, deploy again."""
    found = json.loads(host.check_output("cat /etc/gatehouse/settings.json"))
    wanted = settings.model_dump(mode="json")
    differing = {key for key in found.keys() | wanted.keys() if found.get(key) != wanted.get(key)}
    assert not differing, "these changed since the last deploy"


def test_current_release_is_the_good_one(host: Host) -> None:
    """What serves has passed every check, stands in its own directory, and is kept complete."""
    current, good = lines(host, "cd /opt/gatehouse && readlink current good")
    assert current == good
    assert current.startswith("/opt/gatehouse/releases/")
    assert host.file(current).is_directory
    releases = lines(host, "ls /opt/gatehouse/releases")
    assert not [name for name in releases if "." in name], "an unfinished release is left"


def test_release_is_readable_for_all_and_writable_for_root(host: Host) -> None:
    """The files of the release hold no secret; only a deploy changes them."""
    command = "cd -P /opt/gatehouse/current && find . -type f -printf '%m %u:%g\\n' | sort -u"
    assert lines(host, command) == ["644 root:root"]


def test_groups_have_no_members_but_people(host: Host, settings: Settings) -> None:
    """The containers' group has its number and nobody in it."""
    group = str(host.check_output("getent group gatehouse-secrets"))
    assert group == f"gatehouse-secrets:x:{settings.secrets_gid}:"
    assert host.group(settings.host_group).exists
