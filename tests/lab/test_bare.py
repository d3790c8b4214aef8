"""From a machine without Docker to a gateway, and what may be changed about it later."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from gatehouse.lab.common import ROOT
from gatehouse.lab.images import LabImages
from gatehouse.lab.progress import Progress
from gatehouse.lab.settings import overrides
from gatehouse.lab.workstation import Workstation
from tests.deploying import SECONDS, Deploy, deploy
from tests.gateway import question
from tests.given import PROVIDER_KEY
from tests.lab.conftest import containers, failing, gateway_of, recreated

# Made up, and unlike anything that a host holds by chance.
FIRST_KEY, SECOND_KEY = "first-canary-6b1f0d5c9e27", "second-canary-a84e3370d1f2"
# Prints the files that hold the text of its standard input; FIFOs and devices are passed over.
SEARCH = """
pattern=$(mktemp -p /dev/shm) && cat >"$pattern"
grep -rlFD skip -f "$pattern" /etc /opt /srv /root /home /tmp /run /usr/local /var 2>/dev/null |
    grep -v /overlay2/
docker ps -aq | xargs docker inspect | grep -qFf "$pattern" && echo "docker inspect"
docker ps -aq | xargs -n 1 docker logs 2>&1 | grep -qFf "$pattern" && echo "docker logs"
cd /opt/gatehouse/current && docker compose config | grep -qFf "$pattern" && echo "docker compose"
journalctl --no-pager -o cat | grep -qFf "$pattern" && echo "the journal"
ps -eo args= | grep -qFf "$pattern" && echo "ps"
rm "$pattern"
"""
SOURCES = "/etc/apt/sources.list.d/gatehouse-docker.sources"
OWN_PACKAGES = {"containerd.io", "docker-ce", "docker-ce-cli", "docker-compose-plugin"}
# Docker's repository as a folder: the distribution's engine, packed under the names of Docker's
# own packages, signed with a key that is made for it. Prints the key's fingerprint.
REPOSITORY = r"""
set -eu
export GNUPGHOME=/root/gnupg
stable=dists/trixie/stable/binary-$(dpkg --print-architecture)
DEBIAN_FRONTEND=noninteractive apt-get -q install -y --no-install-recommends gpg gpg-agent >&2
mkdir -p -m 700 $GNUPGHOME && mkdir -p /srv/docker/debian/$stable /srv/docker/debian/pool
cd /srv/docker/debian
gpg --batch --quiet --passphrase '' --quick-generate-key 'The repository' ed25519 sign never
gpg --armor --export >gpg

package() {
    name=$1 units=$2; shift 2
    for old in "$@"; do dpkg-deb -x /var/cache/apt/archives/"${old}"_*.deb /root/$name; done
    rm -r /root/$name/usr/share && rm -rf /root/$name/etc && mkdir /root/$name/DEBIAN
    printf '%s\n' "Package: $name" "Version: 5:28.0" "Maintainer: nobody" \
        "Architecture: $(dpkg --print-architecture)" "Description: $name" >/root/$name/DEBIAN/control
    if [ -n "$units" ]; then
        printf '%s\n' '#!/bin/sh' 'set -e' 'systemctl daemon-reload' "systemctl unmask $units" \
            "systemctl enable --now $units" >/root/$name/DEBIAN/postinst
        chmod 755 /root/$name/DEBIAN/postinst
    fi
    dpkg-deb --root-owner-group -Znone -b /root/$name pool/$name.deb >&2
    dpkg-deb -f pool/$name.deb
    printf '%s\n' "Filename: pool/$name.deb" "Size: $(stat -c %s pool/$name.deb)" \
        "SHA256: $(sha256sum <pool/$name.deb | cut -d ' ' -f 1)" ""
}

{
    package containerd.io containerd.service containerd runc
    package docker-ce-cli "" docker-cli
    package docker-compose-plugin "" docker-compose
    package docker-ce "docker.socket docker.service" docker.io
} >$stable/Packages
printf '%s\n' "Suite: trixie" "Codename: trixie" "Components: stable" \
    "Architectures: $(dpkg --print-architecture)" "Date: $(date -Ru)" "SHA256:" \
    " $(sha256sum <$stable/Packages | cut -d ' ' -f 1) $(stat -c %s $stable/Packages)"\
" ${stable#dists/trixie/}/Packages" >Release
gpg --batch --clearsign --output dists/trixie/InRelease Release
gpg --with-colons --list-keys | awk -F : '$1 == "fpr" { print $10; exit }'
"""


@pytest.fixture(scope="module")
def machine(lab_images: LabImages, archive: Path, progress: Progress) -> Iterator[Workstation]:
    """A workstation without Docker; its only source of images is the archive."""
    settings = overrides(lab_images, archive)
    with Workstation.start(
        "s-bare", image=lab_images.bare, settings=settings, progress=progress
    ) as started:
        assert started.exec("command -v docker", check=False).returncode == 1
        yield started


@pytest.fixture(scope="module")
def first(machine: Workstation) -> Deploy:
    """Run the first deploy, with a provider key."""
    return deploy(machine, environment={PROVIDER_KEY: FIRST_KEY})


@pytest.fixture(scope="module")
def bare(machine: Workstation, first: Deploy) -> Workstation:
    """Give the workstation, after it has become a gateway."""
    assert first.code == 0
    return machine


@pytest.fixture(scope="module")
def repository(bare: Workstation) -> dict[str, object]:
    """Have the folder that stands for Docker's repository; gives the settings that name it."""
    fingerprint = bare.exec(REPOSITORY).stdout.strip()
    return {
        "docker_source": "docker",
        "docker_repository_url": "file:///srv/docker",
        "docker_repository_fingerprint": fingerprint,
    }


def packages(workstation: Workstation) -> set[str]:
    """Give the names of the installed packages that an engine is made of."""
    names = "'docker*' 'containerd*' runc"
    form = r"${db:Status-Status} ${Package}\n"
    found = workstation.exec(f"dpkg-query -W -f '{form}' {names} 2>/dev/null", check=False).stdout
    return {line.split()[1] for line in found.splitlines() if line.startswith("installed ")}


def places(workstation: Workstation, text: str) -> list[str]:
    """Give where a text is found on the host."""
    return workstation.exec(SEARCH, text=text).stdout.splitlines()


def test_bare_machine_becomes_a_gateway(bare: Workstation, first: Deploy) -> None:
    """Docker comes from the distribution, the images from the archive, and everything holds."""
    assert "Docker | Install the distribution's Docker" in first.changed
    assert "Images | Load the images from the archive" in first.changed
    assert packages(bare) >= {"docker.io", "docker-cli", "docker-compose"}
    # The archive was loaded, and does not stay.
    left = set(bare.exec("ls /var/lib/gatehouse").stdout.split())
    made = {"audit.jsonl", "backup", "engines", "releases", "snapshots", "starts.jsonl", "state"}
    assert left == made
    assert bare.exec("restic version").stdout.startswith("restic ")
    assert failing(bare) == []
    answer = gateway_of(bare).ask("GET", "/v1/models")
    assert "kimi-k2-1t-cloud" in {each["id"] for each in answer.json()["data"]}


def test_second_run_needs_no_key_and_changes_nothing(bare: Workstation) -> None:
    """The host holds what it was given: without the provider key it is the same host."""
    before = containers(bare)
    assert deploy(bare).changed == []
    assert containers(bare) == before


def test_provider_key_that_somebody_opened_is_closed(bare: Workstation) -> None:
    """The host's readers are put right by a deploy that does not know the key itself."""
    path = f"/etc/gatehouse/secrets/providers/{PROVIDER_KEY}"
    before = containers(bare)
    bare.exec(f"chown nobody {path} && chmod 644 {path}")
    assert deploy(bare).changed == ["Secrets | Make the host's own secrets"]
    assert bare.exec(f"stat -c '%a %U:%G' {path}").stdout.strip() == "440 root:gatehouse-secrets"
    assert containers(bare) == before


def test_replaced_provider_key_shows_nowhere(bare: Workstation) -> None:
    """A new value reaches the proxy alone, and neither value is found anywhere else."""
    before = containers(bare)
    done = subprocess.run(
        [
            *(Path(sys.executable).with_name("pyinfra"), bare.access.inventory, "deploy.py"),
            *("-y", "-vvv", "--debug"),
        ],
        cwd=ROOT,
        env=os.environ | {PROVIDER_KEY: SECOND_KEY, "PYINFRA_PROGRESS": "off"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )
    said = done.stdout + done.stderr
    assert done.returncode == 0, said
    assert recreated(before, containers(bare)) == {"litellm"}
    assert f"/etc/gatehouse/secrets/providers/{PROVIDER_KEY}" in said, "the output is not complete"
    assert SECOND_KEY not in said
    for path in bare.access.folder.iterdir():
        if path.is_file():
            assert not any(key in path.read_text() for key in (FIRST_KEY, SECOND_KEY)), path
    assert places(bare, SECOND_KEY) == [f"/etc/gatehouse/secrets/providers/{PROVIDER_KEY}"]
    assert places(bare, FIRST_KEY) == []


def test_repository_with_another_key_is_refused(
    bare: Workstation, repository: dict[str, object]
) -> None:
    """Packages of somebody else are not installed, and apt does not get to know them."""
    before = packages(bare)
    wrong = repository | {"docker_repository_fingerprint": "0123456789" * 4}
    refused = deploy(bare, settings=wrong, expect=1)
    assert f"no key with the fingerprint {'0123456789' * 4} at file:///srv/docker" in refused.words
    assert "Traceback" not in refused.words
    left = bare.exec(f"ls {SOURCES}* /etc/apt/keyrings/docker.asc*", check=False).stdout
    assert left == ""
    assert packages(bare) == before
    assert failing(bare) == []


def test_engine_is_replaced_by_dockers_own(
    bare: Workstation, repository: dict[str, object]
) -> None:
    """The distribution's packages give way to Docker's; containers and data outlive the change."""
    before = containers(bare)
    replaced = deploy(bare, settings=repository)
    assert "Docker | Add Docker's package repository" in replaced.changed
    assert "Docker | Install Docker's own packages" in replaced.changed
    assert packages(bare) == OWN_PACKAGES
    assert containers(bare) == before
    assert failing(bare, **repository) == []
    assert bare.exec(f"stat -c '%a %U' {SOURCES}").stdout.strip() == "644 root"


def test_changed_networks_are_made_anew(bare: Workstation) -> None:
    """The gateway works in other networks, and still knows the keys that it has given out."""
    gateway, key = gateway_of(bare), "sk-made-before-the-move-0123456789"
    made = gateway.ask("POST", "/key/generate", {"key": key})
    assert made.status == 200, made.text
    settings = {"network_subnet": "172.30.50.0/24", "network_inner_subnet": "172.30.51.0/24"}
    moved = deploy(bare, settings=settings)
    assert "Postgres | Make way for changed networks" in moved.changed
    routes = bare.exec("ip -4 route show").stdout
    assert "172.30.50.0/24 dev gw-edge" in routes
    assert "172.30.51.0/24 dev gw-inner" in routes
    assert "172.30.40.0/24" not in routes
    assert failing(bare, **settings) == []
    asked = question("chat-selftest-builtin", "hello")
    answer = gateway.ask("POST", "/v1/chat/completions", asked, key)
    assert answer.status == 200, answer.text
