"""The supply chain: what is locked, who answers for it, and what is never used."""

import hashlib
import json
import re
import threading
from collections.abc import Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner

from gatehouse.__main__ import main
from gatehouse.checks.docker import STACK
from gatehouse.commands.advisories import ask
from gatehouse.deploys.facts import HostFact
from gatehouse.deploys.images import wanted
from gatehouse.deploys.preflight import problems as unfit
from gatehouse.images import Locked, Platform, by_digest, ids, pinned, read, references, written
from gatehouse.registry import Registries, UnresolvedError, parse
from gatehouse.render import render
from gatehouse.render.template import ROOT
from gatehouse.render.tree import CURRENT
from gatehouse.settings import Invalid
from gatehouse.signature import (
    IDENTITY,
    ISSUER,
    KEY_SHA256,
    KEY_URL,
    UnknownSignerError,
    repository,
    signer,
)
from gatehouse.signature import wanted as signed
from tests.given import BARE_HOST, MACHINE, problems, run, settings

LITELLM = "ghcr.io/berriai/litellm-non_root"
INDEXES = "application/vnd.oci.image.index.v1+json"
MANIFEST = "application/vnd.oci.image.manifest.v1+json"
TOKEN = "a-token-of-the-test"


def digest(text: str | bytes) -> str:
    """Give the digest of a text."""
    return (
        "sha256:" + hashlib.sha256(text if isinstance(text, bytes) else text.encode()).hexdigest()
    )


REDIS = Locked(
    digest("index"),
    {
        "linux/amd64": Platform(digest("amd64"), digest("config of amd64")),
        "linux/arm64": Platform(digest("arm64"), digest("config of arm64")),
    },
)


class Registry(ThreadingHTTPServer):
    """A registry of one image for two platforms, which wants a token that its realm gives away."""

    def __init__(self) -> None:
        """Listen on a free port of 127.0.0.1."""
        super().__init__(("127.0.0.1", 0), Answer)
        self.host = f"127.0.0.1:{self.server_port}"
        self.asked: list[str] = []
        parts = {
            name: json.dumps(
                {"mediaType": MANIFEST, "config": {"digest": digest(f"config of {name}")}}
            ).encode()
            for name in ("amd64", "arm64", "s390x")
        }
        index = {
            "mediaType": INDEXES,
            "manifests": [
                {"digest": digest(text), "platform": {"os": "linux", "architecture": name}}
                for name, text in parts.items()
            ]
            + [{"digest": digest("x"), "platform": {"os": "unknown", "architecture": "unknown"}}],
        }
        self.content = {digest(text): text for text in parts.values()}
        self.content["1.0"] = json.dumps(index).encode()
        blob = json.dumps({"os": "linux", "architecture": "arm64"}).encode()
        plain = {"mediaType": MANIFEST, "config": {"digest": digest(blob)}}
        self.content["plain"] = json.dumps(plain).encode()
        self.content[digest(blob)] = blob


class Answer(BaseHTTPRequestHandler):
    """Answers of the registry."""

    server: Registry

    def do_GET(self) -> None:
        """Give a token, or what was asked for to somebody who has one."""
        self.server.asked.append(self.path)
        if self.path.startswith("/token"):
            self.reply(200, json.dumps({"token": TOKEN}).encode())
        elif self.headers["Authorization"] != f"Bearer {TOKEN}":
            realm = f'Bearer realm="http://{self.server.host}/token",service="test",scope="all"'
            self.reply(401, b"{}", **{"WWW-Authenticate": realm})
        else:
            found = self.server.content.get(self.path.rpartition("/")[2])
            self.reply(200 if found else 404, found or b"{}")

    def reply(self, status: int, body: bytes, **headers: str) -> None:
        """Send it."""
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Keep quiet."""


@pytest.fixture
def registry() -> Iterator[Registry]:
    """Have the registry answer."""
    with Registry() as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield server
        server.shutdown()


@pytest.mark.parametrize(
    ("reference", "api", "tag"),
    [
        ("redis:7-alpine", "https://registry-1.docker.io/v2/library/redis", "7-alpine"),
        ("redis", "https://registry-1.docker.io/v2/library/redis", "latest"),
        ("prom/prometheus:v3", "https://registry-1.docker.io/v2/prom/prometheus", "v3"),
        ("ghcr.io/a/b:1@sha256:0", "https://ghcr.io/v2/a/b", "1"),
        ("localhost:5000/x/y:2", "http://localhost:5000/v2/x/y", "2"),
        ("mirror.example:5000/x", "https://mirror.example:5000/v2/x", "latest"),
    ],
)
def test_reference_is_taken_apart_as_docker_does(reference: str, api: str, tag: str) -> None:
    """Docker Hub's short names, ports and digests are understood; only this machine is plain."""
    found = parse(reference)
    assert (found.api, found.tag) == (api, tag)


def test_registry_is_asked_with_its_token(registry: Registry) -> None:
    """The index and the two platforms that a host may be are resolved; no other is asked for."""
    found = Registries(Path("/nowhere")).resolve(f"{registry.host}/x/y:1.0")
    assert found.index == digest(registry.content["1.0"])
    assert found.platforms.keys() == {"linux/amd64", "linux/arm64"}
    assert found.platforms["linux/arm64"].config == digest("config of arm64")
    assert found.platforms["linux/arm64"].manifest in registry.content
    assert [path for path in registry.asked if path.startswith("/token")] == [
        "/token?service=test&scope=all"
    ]


def test_image_for_one_platform_is_resolved(registry: Registry) -> None:
    """Without an index the image's own configuration says what it is for."""
    found = Registries(Path("/nowhere")).resolve(f"{registry.host}/x:plain")
    assert found.index == digest(registry.content["plain"])
    assert list(found.platforms) == ["linux/arm64"]


def test_registry_that_lies_is_not_believed(registry: Registry) -> None:
    """What does not have the digest that it was asked for by is refused."""
    registry.content["1.0"] = json.dumps(
        {
            "mediaType": INDEXES,
            "manifests": [
                {
                    "digest": digest("other"),
                    "platform": {"os": "linux", "architecture": "amd64"},
                }
            ],
        }
    ).encode()
    registry.content[digest("other")] = b'{"config": {"digest": "x"}}'
    with pytest.raises(UnresolvedError, match="is not what its digest says"):
        Registries(Path("/nowhere")).resolve(f"{registry.host}/x:1.0")


def test_unknown_tag_is_said(registry: Registry) -> None:
    """A tag that the registry does not have is named."""
    with pytest.raises(UnresolvedError, match=r"has no x:7"):
        Registries(Path("/nowhere")).resolve(f"{registry.host}/x:7")


def naming(lock: Path, **images: str) -> Path:
    """Write an inventory with this lock and these images; LiteLLM's nobody answers for."""
    named = [key for key in settings().model_fields_set if key.endswith("_image")]
    data = dict.fromkeys(named, f"redis@{digest('mine')}") | images
    data |= {"litellm_image": "litellm.invalid/x:1.108.12", "images_lock": str(lock)}
    inventory = lock.with_name("inventory")
    inventory.write_text(f"hosts = [('@local', {data!r})]\n")
    return inventory


def test_lock_is_written_and_kept(registry: Registry, tmp_path: Path) -> None:
    """What a registry answers for is locked; what nobody answers for keeps its line."""
    lock = tmp_path / "images.lock"
    lock.write_text(written({"postgres.invalid/x:16": REDIS, "gone:1": REDIS}))
    image = f"{registry.host}/x/redis:1.0"
    inventory = naming(lock, redis_image=image, postgres_image="postgres.invalid/x:16")
    done = run(ROOT, "gatehouse", "lock", "--inventory", str(inventory))
    assert done.returncode == 2, done.stdout + done.stderr
    assert "2 could not be resolved" in done.stderr
    assert "postgres.invalid/x:16: not resolved, what is locked is kept" in done.stdout
    assert "litellm.invalid/x:1.108.12: not resolved, it stays without a digest" in done.stdout
    assert "gone:1: no setting names it any more" in done.stdout
    found = read(lock)
    assert found.keys() == {image, "postgres.invalid/x:16"}
    assert found[image].index == digest(registry.content["1.0"])
    again = run(ROOT, "gatehouse", "lock", "--inventory", str(inventory))
    assert f"{lock} holds" in again.stdout


@pytest.mark.parametrize("reachable", [True, False])
def test_broken_lock_is_written_anew(
    registry: Registry, tmp_path: Path, *, reachable: bool
) -> None:
    """`lock` is the way out that the error names; where nobody answers, nothing is lost by it."""
    lock = tmp_path / "images.lock"
    lock.write_text("<<<<<<< HEAD\n")
    image = f"{registry.host if reachable else 'registry.invalid'}/x/redis:1.0"
    inventory = naming(lock, redis_image=image)
    done = run(ROOT, "gatehouse", "lock", "--inventory", str(inventory))
    assert done.returncode == 2, done.stdout + done.stderr
    assert f"{lock} cannot be used" in done.stdout
    if reachable:
        assert read(lock).keys() == {image}
    else:
        assert lock.read_text() == "<<<<<<< HEAD\n"
        assert "put it back from the repository" in done.stdout


def test_lock_reads_what_it_writes(tmp_path: Path) -> None:
    """The file is the lock, sorted, and none is a lock of nothing."""
    path = tmp_path / "images.lock"
    assert read(path) == {}
    lock = {"b:2": REDIS, "a:1": replace(REDIS, platforms={})}
    path.write_text(written(lock))
    assert read(path) == lock
    assert path.read_text().index('"a:1"') < path.read_text().index('"b:2"')


@pytest.mark.parametrize("text", ['["x:1"]\nindex = "sha256:1"', "[", '["x:1"]', 'a = "b"'])
def test_broken_lock_is_refused(text: str, tmp_path: Path) -> None:
    """A lock that says something else is no lock: nothing is deployed with it."""
    path = tmp_path / "images.lock"
    path.write_text(text)
    with pytest.raises(Invalid, match="images_lock"):
        read(path)


def test_shipped_lock_can_be_read() -> None:
    """The repository's own lock holds; every entry in it is of an image that the settings name."""
    assert read(ROOT / "images.lock").keys() <= set(references(settings()))


def test_locked_image_is_pulled_by_digest() -> None:
    """Where images are pulled, what is locked has its digest behind its tag, in engines too."""
    engine = {
        "name": "chat-mine-llamacpp",
        "kind": "llamacpp",
        "port": 9999,
        "image": "x/y:1",
        "memory_mib": 1,
    }
    named = settings(engines_extra=[engine | {"file": "a.gguf", "context_tokens": 1024}])
    found = pinned(named, {"redis:7-alpine": REDIS, "x/y:1": REDIS})
    assert found.redis_image == f"redis:7-alpine@{REDIS.index}"
    assert found.postgres_image == named.postgres_image
    assert found.engines_extra[0].image == f"x/y:1@{REDIS.index}"
    assert f"redis:7-alpine@{REDIS.index}" in wanted(found, MACHINE)


def test_archive_keeps_its_names() -> None:
    """An archive has no digests: its images are asked for by name and known by their IDs."""
    named = settings(images_source="archive", images_archive="x.tar")
    lock = {"redis:7-alpine": REDIS}
    assert pinned(named, lock) == named
    images = json.loads(render(named, MACHINE, lock).files[f"{CURRENT}/manifest.json"].content)
    assert images["images"]["redis:7-alpine"] == REDIS.ids
    assert images["images"]["postgres:16-alpine"] == []


def test_ids_are_those_of_the_locked_image_only() -> None:
    """Another digest of the same name has none of the lock's IDs."""
    lock = {"redis:7": REDIS}
    assert digest("config of arm64") in ids(lock, "redis:7")
    assert ids(lock, f"redis:7@{REDIS.index}") == REDIS.ids
    assert ids(lock, f"redis:7@{digest('other')}") == []
    assert ids(lock, "redis:8") == []
    assert by_digest(lock, "redis:7")
    assert by_digest({}, f"redis:7@{REDIS.index}")
    assert not by_digest(lock, "redis:8")


def test_other_image_than_the_locked_one_is_a_failing_check() -> None:
    """A container whose image is not one of the locked IDs is named; an unlocked one is not."""
    from gatehouse.checks import every  # noqa: PLC0415 - one use
    from tests.probes import documents, printed  # noqa: PLC0415 - the same

    named = settings(images_source="archive", images_archive="x.tar")
    rendered = render(named, MACHINE, {"redis:7-alpine": REDIS})
    stack: dict[str, Any] = documents(named, rendered)[STACK]
    (check,) = (each for each in every(named) if "locked images" in each.name)
    wrong = check.judge(0, printed(stack))
    assert not wrong.holds
    assert "gatehouse-redis-1 runs sha256:000" in wrong.found
    assert "postgres" not in wrong.found
    (redis,) = (each for each in stack["containers"] if each["service"] == "redis")
    redis["image_id"] = digest("config of amd64")
    assert check.judge(0, printed(stack)).holds


@pytest.mark.parametrize("version", ["1.108.11", "1.108.12", "1.106.11", "1.109.0", "2.0.0"])
def test_newer_version_is_signed_by_the_workflow(version: str) -> None:
    """Since 15 November 2026 nobody holds a key; the identity is the vendor's release workflow."""
    found = signer(f"{LITELLM}:v{version}", None)
    assert found.key == ""
    assert found.arguments == (
        f"--certificate-identity={IDENTITY}",
        f"--certificate-oidc-issuer={ISSUER}",
    )


@pytest.mark.parametrize("version", ["1.103.8", "1.104.6", "1.105.4", "1.106.3", "1.108.10"])
def test_version_before_it_is_signed_with_the_key(version: str) -> None:
    """The key's file must be fetched, and be the one that the vendor has published."""
    with pytest.raises(UnknownSignerError, match=re.escape(KEY_URL)):
        signer(f"{LITELLM}:v{version}", None)
    with pytest.raises(UnknownSignerError, match=KEY_SHA256):
        signer(f"docker.io/litellm/litellm:v{version}", "another key")


@pytest.mark.parametrize("version", ["1.104.5", "1.105.3", "1.106.1", "1.102.9"])
def test_version_of_the_replaced_key_is_signed_by_nobody(version: str) -> None:
    """The old key proves nothing any more."""
    with pytest.raises(UnknownSignerError, match="has replaced"):
        signer(f"{LITELLM}:v{version}", "any key")


def test_copy_of_ones_own_needs_ones_own_key(tmp_path: Path) -> None:
    """A mirror that signs its copies names its key; without one nobody is asked, or it is refused."""
    image = "registry.example/litellm:1.108.12"
    with pytest.raises(UnknownSignerError, match="images_cosign_key"):
        signer(image, None)
    assert signer(image, "mine").key == "mine"
    given = settings(litellm_image=image)
    nobody, why = signed(given)
    assert nobody is None
    assert "images_cosign_key" in why
    with pytest.raises(Invalid, match="images_cosign"):
        signed(settings(litellm_image=image, images_cosign="required"))
    key = tmp_path / "key.pub"
    key.write_text("mine")
    found, _ = signed(
        settings(litellm_image=image, images_cosign="required", images_cosign_key=str(key))
    )
    assert found == signer(image, "mine")
    with pytest.raises(Invalid, match="images_cosign_key"):
        signed(settings(litellm_image=image, images_cosign_key="/nowhere/key.pub"))


def test_signature_is_not_asked_for_where_it_is_off() -> None:
    """Off is off; an archive carries no signature, so it cannot be required of one."""
    assert signed(settings(images_cosign="off"))[0] is None
    assert signed(settings(images_source="archive", images_archive="x"))[0] is None
    found = problems(images_cosign="required", images_source="archive", images_archive="x")
    assert "carries no signatures" in found["images_cosign"]


def test_required_signature_needs_cosign_on_the_host() -> None:
    """A host without cosign is refused before anything is touched; optional is no reason."""
    without = HostFact().process(BARE_HOST.splitlines())
    (reason,) = unfit(settings(images_cosign="required"), without)
    assert "cosign is not on this host" in reason
    having = HostFact().process([*BARE_HOST.splitlines(), "cosign=yes"])
    assert unfit(settings(images_cosign="required"), having) == []
    assert unfit(settings(), without) == []


@pytest.mark.parametrize(
    ("image", "name"),
    [
        (f"{LITELLM}:v1@sha256:0", LITELLM),
        ("docker.io/library/redis:7", "redis"),
        ("redis", "redis"),
        ("localhost:5000/x:1", "localhost:5000/x"),
        ("localhost:5000/x", "localhost:5000/x"),
    ],
)
def test_repository_is_named_as_docker_names_it(image: str, name: str) -> None:
    """Docker's digests stand behind the name without tag and without Docker Hub."""
    assert repository(image) == name


def advisories(answers: list[dict[str, Any]]) -> Iterator[str]:
    """Have a service that answers so, and give its address."""

    class Service(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))["queries"]
            found = {("jinja2", "1"): {"vulns": [{"id": "GHSA-x"}]}}
            body = json.dumps(
                {
                    "results": answers
                    or [found.get((q["package"]["name"], q["version"]), {}) for q in asked]
                }
            ).encode()
            self.send_response(200)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Keep quiet."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Service) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def test_advisories_are_told_of_each_pin(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A pinned version with a known hole is named and ends with 1; without one it ends with 0."""
    (tmp_path / "requirements-host.lock").write_text("")
    lock = tmp_path / "requirements.lock"
    monkeypatch.chdir(tmp_path)
    for service in advisories([]):
        lock.write_text("jinja2==1 \\\n    --hash=sha256:0\nclick==8 ; python_version > '3'\n")
        found = CliRunner().invoke(main, ["advisories", "--service", service])
        assert found.exit_code == 1, found.output
        assert "jinja2 1: GHSA-x" in found.output
        assert "1 of 2 pinned packages" in found.output
        lock.write_text("jinja2==2 \\\n    --hash=sha256:0\n")
        assert CliRunner().invoke(main, ["advisories", "--service", service]).exit_code == 0


def test_advisories_that_cannot_be_asked_for_are_no_good_news(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Nobody there, or an answer that fits no question, is exit code 2 and says so."""
    monkeypatch.chdir(ROOT)
    found = CliRunner().invoke(main, ["advisories", "--service", "http://advisories.invalid"])
    assert found.exit_code == 2
    assert "is not known" in found.output
    for service in advisories([{}]):
        with pytest.raises(ValueError, match="1 answers to 2 questions"):
            ask(service, [("a", "1"), ("b", "2")])


@pytest.mark.parametrize("lock", ["requirements.lock", "requirements-host.lock"])
def test_every_python_dependency_has_hashes(lock: str) -> None:
    """Nothing is installed that is not what was locked."""
    entries = re.split(r"^(?=[A-Za-z0-9])", (ROOT / lock).read_text(), flags=re.MULTILINE)
    packages = [entry for entry in entries if re.match(r"[A-Za-z0-9]", entry)]
    assert len(packages) > 5
    for package in packages:
        assert re.match(r"[A-Za-z0-9._-]+==", package), package[:80]
        assert "--hash=sha256:" in package, package[:80]


def steps() -> list[tuple[str, str]]:
    """Give each line of the workflows that uses an action, with its file."""
    return [
        (path.name, line.strip())
        for path in sorted((ROOT / ".github/workflows").glob("*.y*ml"))
        for line in path.read_text().splitlines()
        if re.match(r"\s*(-\s+)?uses:", line)
    ]


@pytest.mark.parametrize(("workflow", "line"), steps())
def test_action_is_pinned_by_commit(workflow: str, line: str) -> None:
    """An action is named by its commit, with the version that it is in a comment."""
    assert re.fullmatch(r"(- )?uses: [\w.-]+/[\w./-]+@[0-9a-f]{40} # v\d+(\.\d+){0,2}", line)


def test_workflows_use_what_the_steps_above_show() -> None:
    """The lines that were read are all that the workflows use."""
    used = []
    for path in (ROOT / ".github/workflows").glob("*.y*ml"):
        for job in yaml.safe_load(path.read_text())["jobs"].values():
            used += [each["uses"] for each in job["steps"] if "uses" in each]
    assert sorted(used) == sorted(line.split("uses: ")[1].split()[0] for _, line in steps())
    assert used
