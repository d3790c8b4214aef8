"""The supply chain for real: a registry, images held by digest, and signatures made by cosign."""

import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from gatehouse.deploys.images import SIGNED
from gatehouse.images import read, written
from gatehouse.lab import images
from gatehouse.lab.common import LABEL, ROOT, run
from gatehouse.lab.engine import engine
from gatehouse.lab.progress import Progress
from gatehouse.lab.workstation import Workstation
from tests.deploying import deploy, settings_of
from tests.lab.conftest import containers, failing, recreated
from tests.waiting import wait_for

# What a deploy does before anything is switched, and nothing else.
ONLY_IMAGES = """\
from gatehouse.deploys import images
from gatehouse.deploys.gateway import this_gateway

images.deploy(this_gateway())
"""
# Forgets what came from the registry of these tests; the images have other names, too.
PULLED = """
docker images -q | sort -u | xargs docker inspect -f \
    '{{range .RepoTags}}{{println .}}{{end}}{{range .RepoDigests}}{{println .}}{{end}}' |
grep '^127.0.0.1:' | xargs -r docker rmi --force"""


@dataclass(frozen=True)
class Registry:
    """A registry that the operator and the workstation reach by the same name."""

    container: str
    host: str

    def push(self, image: str, name: str) -> str:
        """Put an image there and give its reference."""
        reference = f"{self.host}/{name}"
        run(["docker", "tag", image, reference])
        run(["docker", "push", "--quiet", reference])
        run(["docker", "rmi", reference])
        return reference

    def cosign(self, *arguments: str) -> str:
        """Run cosign beside it, where the keys are."""
        command = ["docker", "exec", "--env", "COSIGN_PASSWORD=", "--workdir", "/tmp"]  # noqa: S108
        return run([*command, self.container, "cosign", *arguments]).stdout


@pytest.fixture(scope="module")
def registry(workstation: Workstation, progress: Progress) -> Iterator[Registry]:
    """Have a registry on the workstation's LAN; its address on both sides is 127.0.0.1."""
    client = engine(progress)
    server = client.containers.run(
        images.ensure_supply(client, progress),
        name=f"{workstation.container}-registry",
        network=workstation.container,
        ports={"5000/tcp": ("127.0.0.1", 0)},
        labels={LABEL: workstation.name},
        detach=True,
    )
    try:
        server.reload()
        port = server.ports["5000/tcp"][0]["HostPort"]
        address = server.attrs["NetworkSettings"]["Networks"][workstation.container]["IPAddress"]
        # Docker speaks plain HTTP to loopback only.
        workstation.exec(
            "systemd-run --quiet --collect --unit registry-here systemd-socket-activate "
            f"-l 127.0.0.1:{port} /usr/lib/systemd/systemd-socket-proxyd {address}:5000"
        )
        asked = f"curl -sf http://127.0.0.1:{port}/v2/"
        wait_for(lambda: workstation.exec(asked, check=False).returncode == 0, 30, "the registry")
        yield Registry(server.name or "", f"127.0.0.1:{port}")
    finally:
        server.remove(force=True)
        workstation.exec("systemctl stop registry-here.service", check=False)


@pytest.fixture(scope="module", autouse=True)
def as_before(workstation: Workstation) -> Iterator[None]:
    """Leave the workstation as it was."""
    yield
    deploy(workstation)
    workstation.exec(f"rm -f {SIGNED} /usr/local/bin/cosign")
    workstation.exec(PULLED)
    assert failing(workstation) == []


def inventory(workstation: Workstation, folder: Path, **settings: object) -> Path:
    """Write an inventory of the workstation with changed settings."""
    path = folder / "inventory"
    data = settings_of(workstation) | settings
    path.write_text(f"hosts = [({workstation.name!r}, {data!r})]\n")
    return path


def locked(workstation: Workstation, folder: Path, **settings: object) -> Any:  # noqa: ANN401 - subprocess' own
    """Run `python -m gatehouse lock` as an operator does."""
    path = inventory(workstation, folder, **settings)
    command = [str(ROOT / ".venv/bin/python"), "-m", "gatehouse", "lock", "--inventory", str(path)]
    return subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=300
    )


def fetched(workstation: Workstation, folder: Path, **settings: object) -> tuple[int, str]:
    """Do what a deploy does with images, and nothing else; gives exit code and words."""
    program = folder / "only_images.py"
    program.write_text(ONLY_IMAGES)
    path = inventory(workstation, folder, **settings)
    done = subprocess.run(
        [ROOT / ".venv/bin/pyinfra", path, program, "-y"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    return done.returncode, " ".join((done.stdout + done.stderr).split())


def test_locked_image_is_what_runs_whatever_its_tag_becomes(
    workstation: Workstation, registry: Registry, tmp_path: Path
) -> None:
    """`lock` asks the registry, the deploy runs that digest, and a moved tag changes nothing."""
    before = containers(workstation)
    mine = settings_of(workstation)
    reference = registry.push(str(mine["redis_image"]), "redis:8")
    settings: dict[str, object] = {
        "images_source": "registry",
        "redis_image": reference,
        "images_lock": str(tmp_path / "images.lock"),
    }
    asked = locked(workstation, tmp_path, **settings)
    # The others' registries do not answer here; what does is locked all the same.
    assert asked.returncode in {0, 2}, asked.stderr
    digest = read(tmp_path / "images.lock")[reference].index
    done = deploy(workstation, settings=settings)
    assert (
        f"by tag alone: {mine['postgres_image']}, {mine['litellm_image']} (make lock)" in done.words
    )
    assert recreated(before, containers(workstation)) == {"redis"}
    runs = workstation.exec(
        "docker inspect -f '{{.Config.Image}}' gatehouse-redis-1"
    ).stdout.strip()
    assert runs == f"{reference}@{digest}"
    assert "1 of 3 images are held by digest" in workstation.exec(
        "gatehouse status", check=False
    ).stdout.replace("\n", " ")
    assert failing(workstation, images_source="registry", redis_image=runs) == []
    registry.push(str(mine["postgres_image"]), "redis:8")
    again = deploy(workstation, settings=settings)
    assert again.changed == []


def test_archive_with_another_image_than_the_locked_one_is_refused(
    workstation: Workstation, registry: Registry, tmp_path: Path
) -> None:
    """Carried-over images are known by their IDs: another one under the right name is not used."""
    mine = settings_of(workstation)
    name = "localhost/gatehouse-test/redis:8"
    right = registry.push(str(mine["redis_image"]), "archived:8")
    path = tmp_path / "images.lock"
    locked(workstation, tmp_path, redis_image=right, images_lock=str(path))
    path.write_text(written({name: read(path)[right]}))
    archive = tmp_path / "images.tar"
    settings = {
        "redis_image": name,
        "images_lock": str(path),
        "images_archive": str(archive),
    }
    try:
        # What somebody else has put under this name.
        base = run(
            ["docker", "build", "-q", "-t", name, "-"],
            text=f"FROM {mine['redis_image']}\nLABEL x=y\n",
        )
        assert base.stdout.startswith("sha256:")
        run(["docker", "save", "--output", str(archive), name])
        code, words = fetched(workstation, tmp_path, **settings)
        assert code == 1, words
        assert f"holds another {name} than images.lock says: sha256:" in words
        there = workstation.exec(f"docker image inspect {name}", check=False)
        assert there.returncode == 1
        run(["docker", "tag", str(mine["redis_image"]), name])
        run(["docker", "save", "--output", str(archive), name])
        code, words = fetched(workstation, tmp_path, **settings)
        assert code == 0, words
        workstation.exec(f"docker image inspect {name}")
        # It came in some other way, under the right name.
        workstation.exec(f"docker tag {mine['postgres_image']} {name}")
        code, words = fetched(workstation, tmp_path, **settings)
        assert code == 1, words
        assert f"{name} is sha256:" in words
        assert "not those of images.lock" in words
        assert "Traceback" not in words
    finally:
        workstation.exec(f"docker rmi --force {name}", check=False)
        run(["docker", "rmi", "--force", name], check=False)


def test_signature_is_required_before_anything_is_switched(
    workstation: Workstation, registry: Registry, progress: Progress, tmp_path: Path
) -> None:
    """Without cosign, without a signature, and with another's: refused; with the right one: once."""
    before = containers(workstation)
    release = workstation.exec("readlink /opt/gatehouse/current").stdout
    # Any image will do: nothing is ever started from it here.
    reference = registry.push(str(settings_of(workstation)["redis_image"]), "litellm:1.108.7")
    for name in ("mine", "other"):
        registry.cosign("generate-key-pair", "--output-key-prefix", name)
        key = run(["docker", "exec", registry.container, "cat", f"/tmp/{name}.pub"]).stdout  # noqa: S108
        (tmp_path / f"{name}.pub").write_text(key)
    settings: dict[str, object] = {
        "images_source": "registry",
        "images_lock": str(tmp_path / "images.lock"),
        "images_cosign": "required",
        "images_cosign_key": str(tmp_path / "mine.pub"),
        "litellm_image": reference,
    }
    refused = deploy(workstation, settings=settings, expect=1)
    assert "cosign is not on this host" in refused.words
    assert "Starting operation" not in refused.words
    supply = images.ensure_supply(engine(progress), progress)
    with (tmp_path / "cosign").open("wb") as file:
        subprocess.run(
            ["docker", "run", "--rm", supply, "cat", "/usr/bin/cosign"], stdout=file, check=True
        )
    subprocess.run(
        ["docker", "cp", tmp_path / "cosign", f"{workstation.container}:/usr/local/bin/cosign"],
        check=True,
    )
    workstation.exec("chmod 755 /usr/local/bin/cosign")
    unsigned = deploy(workstation, settings=settings, expect=1)
    assert f"{reference} is not verified to be signed by your key" in unsigned.words
    assert "no signatures found" in unsigned.words
    assert "Release | Write the release" not in unsigned.words
    (digest,) = workstation.exec(
        f"docker image inspect -f '{{{{join .RepoDigests \"\\n\"}}}}' {reference} | grep {registry.host}/litellm@"
    ).stdout.split()
    there = f"localhost:5000/{digest.partition('/')[2]}"
    sign = ("sign", "--tlog-upload=false", "--yes", "--key")
    registry.cosign(*sign, "other.key", there)
    code, words = fetched(workstation, tmp_path, **settings)
    assert code == 1, words
    assert "not verified to be signed by your key" in words
    assert "no matching signatures" in words, words
    assert workstation.exec(f"test -s {SIGNED}", check=False).returncode == 1
    registry.cosign(*sign, "mine.key", there)
    code, words = fetched(workstation, tmp_path, **settings)
    assert code == 0, words
    assert len(workstation.exec(f"cat {SIGNED}").stdout.splitlines()) == 1
    # It was verified: the registry is not asked again.
    run(["docker", "pause", registry.container])
    try:
        code, words = fetched(workstation, tmp_path, **settings)
    finally:
        run(["docker", "unpause", registry.container])
    assert code == 0, words
    assert containers(workstation) == before
    assert workstation.exec("readlink /opt/gatehouse/current").stdout == release
