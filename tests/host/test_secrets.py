"""Secrets: readable for their readers, and found nowhere else. No test reads one off the host."""

import pytest
from testinfra.host import Host

from gatehouse.providers import given
from gatehouse.settings import Settings
from tests.host.conftest import lines

OWN = [
    *("backup_password", "master_key", "postgres_password", "redis_password"),
    *("salt_key", "ui_password"),
]
DIRECTORY = "/etc/gatehouse/secrets"
# The secrets are grep's patterns by file; it says only whether one of them was found.
SEARCH = """
cd {directory} && set -- && for file in {names} providers/*; do
    [ -s "$file" ] && set -- "$@" -f "$file"; done; {{ {command}; }} 2>/dev/null | grep -cF "$@"; true"""
PLACES = {
    "docker inspect": "docker ps -aq | xargs docker inspect",
    "docker image history": "docker image ls -q | xargs -n 1 docker history --no-trunc",
    "docker compose config": "cd /opt/gatehouse/current && docker compose config",
    "the process list": "ps -eo args=",
    "the containers' logs": "docker ps -aq | xargs -n 1 docker logs 2>&1",
    "the journal": "journalctl --no-pager -o cat",
    "the rendered files": "find /opt/gatehouse -type f -exec cat {} +",
    "our other files": "find /etc/gatehouse -maxdepth 1 -type f -exec cat {} +; "
    "find /var/lib/gatehouse -type f ! -name '*.tar' -exec cat {} +",
    "the daemon's and systemd's configuration": "cat /etc/docker/* /etc/systemd/system/*.service",
    "temporary files": "find /tmp /var/tmp -xdev -type f -size -10M -exec cat {} +",
    "shells' histories": "cat /root/.*history /home/*/.*history",
}


def test_files_are_for_their_readers_only(host: Host) -> None:
    """Root owns every secret, and only the containers' group may read it."""
    found = lines(host, f"cd {DIRECTORY} && find . -type f -printf '%P %m %u:%g\\n' | sort")
    assert {line.split(" ", 1)[1] for line in found} == {"440 root:gatehouse-secrets"}
    own = [line.split()[0] for line in found if not line.startswith("providers/")]
    assert own == OWN


def test_secrets_are_long_and_all_different(host: Host) -> None:
    """Each holds 32 random bytes in hexadecimal; none is made of another."""
    command = (
        f"cd {DIRECTORY} && for f in {' '.join(OWN)}; do sed 's/^sk-//;s/^salt-//' $f | wc -c; done"
    )
    assert set(lines(host, command)) == {"64"}
    bodies = f"cd {DIRECTORY} && for f in {' '.join(OWN)}; do tail -c 64 $f; echo; done | sort -u | wc -l"
    assert lines(host, bodies) == [str(len(OWN))]


def test_provider_keys_given_here_are_on_the_host(host: Host, settings: Settings) -> None:
    """A provider key that the operator gives is one of the host's."""
    found = lines(host, f"ls {DIRECTORY}/providers")
    assert set(given(settings)) <= set(found)


@pytest.mark.parametrize("place", PLACES)
def test_no_secret_shows(host: Host, place: str) -> None:
    """None of the host's secrets appears there."""
    found = _search(host, PLACES[place])
    assert found == 0, f"{found} lines of {place} hold a secret"


def test_search_finds_what_is_there(host: Host) -> None:
    """The search above finds each secret where it is."""
    for name in OWN:
        assert _search(host, f"echo before; cat {DIRECTORY}/{name}; echo after") == 1, name


def _search(host: Host, command: str) -> int:
    """Give the number of lines of the command's output that hold a secret."""
    names = " ".join(OWN)
    return int(lines(host, SEARCH.format(directory=DIRECTORY, names=names, command=command))[0])
