"""`gatehouse models`, against a small hub on this machine."""

import hashlib
import json
import signal
import struct
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from types import SimpleNamespace
from typing import Any, ClassVar

import pytest
from click.testing import CliRunner, Result

from gatehouse.render.template import ROOT
from gatehouse.tool import models, pull, store
from gatehouse.tool.engine_documents import ModelsList
from gatehouse.tool.gguf import gguf_problem
from tests import hub as small
from tests.waiting import wait_for

HEADER = b"GGUF" + struct.pack("<IQQ", 3, 2, 5)
MODEL = HEADER + bytes(range(256)) * 4096  # a megabyte
DIGEST = hashlib.sha256(MODEL).hexdigest()


@dataclass
class Place:
    """A host with engines, and the hub that it asks."""

    hub: small.Hub
    config: Path
    folder: Path

    def write(self, *engines: dict[str, Any]) -> None:
        """Write down which engines there are."""
        content = {
            "version": 1,
            "models_dir": str(self.folder),
            "hub_url": self.hub.url,
            "engines": list(engines),
        }
        self.config.write_text(json.dumps(content))

    def call(self, *words: str) -> Result:
        """Call `gatehouse models`."""
        return CliRunner().invoke(models.models, list(words))

    def rows(self) -> dict[str, dict[str, Any]]:
        """Give what `list` says: file → row."""
        listed = self.call("list", "--json")
        assert listed.exit_code == 0, listed.output
        ModelsList.model_validate_json(listed.stdout)
        return {row["file"]: row for row in json.loads(listed.stdout)}

    def leftovers(self) -> set[str]:
        """Give the files of models_dir, its manifest aside."""
        found = {str(p.relative_to(self.folder)) for p in self.folder.rglob("*") if p.is_file()}
        return found - {"manifest.json"}


def engine(name: str = "chat-small", **source: object) -> dict[str, Any]:
    """Give an engine as the deploy writes it."""
    whole = {
        "repository": small.REPOSITORY,
        "revision": "main",
        "file": "small.gguf",
        "sha256": None,
        "licence": None,
    }
    return {
        "name": name,
        "kind": "llamacpp",
        "port": 8084,
        "file": "small.gguf",
        "load_seconds": 5,
        "models": ["chat-default"],
        "sources": [whole | source],
    }


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Place]:
    """Give a host whose one engine wants a file that the hub has."""
    for name in ("HF_ENDPOINT", "HF_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("no_proxy", "127.0.0.1,localhost")
    monkeypatch.setattr(models, "TOKEN_FILE", tmp_path / "no-token")
    monkeypatch.setattr(pull, "time", SimpleNamespace(sleep=lambda _: None))
    with small.hub() as hub:
        hub.files["small.gguf"] = MODEL
        found = Place(hub, tmp_path / "engines.json", tmp_path / "models")
        monkeypatch.setattr(store, "CONFIG", found.config)
        found.write(engine())
        yield found


def test_pull_puts_a_verified_file_in_place(place: Place) -> None:
    """The file is there, readable for everybody, and what is known of it is written down."""
    pulled = place.call("pull", "chat-small")
    assert pulled.exit_code == 0, pulled.output
    path = place.folder / "small.gguf"
    assert path.read_bytes() == MODEL
    assert path.stat().st_mode & 0o777 == 0o644
    known = json.loads((place.folder / "manifest.json").read_text())["files"]["small.gguf"]
    assert known["sha256"] == DIGEST
    assert known["size"] == len(MODEL)
    assert known["repository"] == small.REPOSITORY
    assert known["revision"] == "main"
    assert known["commit"] == small.COMMIT
    assert known["licence"] == "apache-2.0"
    assert place.leftovers() == {"small.gguf"}


def test_licence_is_said_before_the_download(place: Place) -> None:
    """The settings' licence counts, else the model's card, else a page to read is named."""
    said = place.call("pull", "--all").output
    assert said.index("apache-2.0") < said.index(DIGEST)
    place.write(engine(licence="llama3"))
    assert "according to the settings: llama3" in place.call("pull", "--all", "--again").output
    place.write(engine())
    place.hub.licence = None
    assert (
        f"read {place.hub.url}/{small.REPOSITORY}" in place.call("pull", "--all", "--again").output
    )


def test_what_is_there_is_not_pulled_again(place: Place) -> None:
    """The second pull asks the hub nothing."""
    place.call("pull", "--all")
    place.hub.tokens.clear()
    assert "is here" in place.call("pull", "chat-default").output
    assert not place.hub.tokens


def test_another_revision_is_pulled(place: Place) -> None:
    """A changed revision in the settings is another file."""
    place.call("pull", "--all")
    other = HEADER + b"another model " * 9
    place.hub.files["small.gguf"] = other
    place.write(engine(revision="v2"))
    assert place.call("pull", "--all").exit_code == 0
    assert (place.folder / "small.gguf").read_bytes() == other


def test_killed_pull_goes_on_where_it_was(place: Place) -> None:
    """What came before the kill is not asked for again, and the file is whole in the end."""
    place.hub.hold_after = 600_000
    program = f"""
from pathlib import Path
from gatehouse.tool import models, pull, store
store.CONFIG = Path({str(place.config)!r})
models.models(["pull", "--all"])
"""
    process = subprocess.Popen([sys.executable, "-c", program], cwd=ROOT, stdout=subprocess.DEVNULL)
    path = place.folder / "small.gguf"
    wait_for(lambda: sum(p.stat().st_size for p in store.parts(path)) == 600_000, 30, "a part")
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not path.exists()
    assert place.rows()["small.gguf"]["state"] == "partial"
    place.hub.hold_after = None
    pulled = place.call("pull", "--all")
    assert pulled.exit_code == 0, pulled.output
    assert place.hub.ranges == ["bytes=600000-"]
    assert path.read_bytes() == MODEL
    assert place.leftovers() == {"small.gguf"}


def test_broken_connection_is_gone_on_with(place: Place) -> None:
    """A download survives a connection that breaks again and again, as long as something comes."""
    place.hub.break_after, place.hub.breaks = 100_000, 7
    assert place.call("pull", "--all").exit_code == 0
    assert place.hub.ranges == [f"bytes={number}00000-" for number in range(1, 8)]
    assert (place.folder / "small.gguf").read_bytes() == MODEL


def test_connection_that_brings_nothing_is_given_up(place: Place) -> None:
    """A pull ends with what to do when nothing comes any more; what came stays."""
    place.hub.break_after, place.hub.breaks = 0, 100
    pulled = place.call("pull", "--all")
    assert pulled.exit_code == 1
    assert "the same command goes on" in pulled.output


def test_hub_that_announces_more_than_it_has_is_given_up(place: Place) -> None:
    """A pull never goes round in circles."""
    place.hub.size = len(MODEL) + 1000
    pulled = place.call("pull", "--all")
    assert pulled.exit_code == 1
    assert len(place.hub.ranges) < 5
    assert not (place.folder / "small.gguf").exists()


@pytest.mark.parametrize(
    ("source", "content", "said"),
    [
        ({"sha256": "0" * 64}, MODEL, "the setting sha256 says " + "0" * 64),
        ({}, b"<!DOCTYPE html><html>log in</html>", "it is a web page"),
        ({}, HEADER[:20], "it is cut off"),
    ],
)
def test_wrong_file_is_not_left(
    place: Place, source: dict[str, object], content: bytes, said: str
) -> None:
    """What is not what it should be is removed, and named."""
    place.hub.files["small.gguf"] = content
    place.write(engine(**source))
    pulled = place.call("pull", "--all")
    assert pulled.exit_code == 1
    assert said in pulled.output
    assert place.leftovers() == set()
    assert place.rows()["small.gguf"]["state"] == "missing"


def test_full_disk_is_refused_before(place: Place) -> None:
    """Nothing is begun that does not fit."""
    place.hub.size = 10**18
    pulled = place.call("pull", "--all")
    assert pulled.exit_code == 1
    assert "models_dir" in pulled.output
    assert "1000000.0 TB are to be downloaded" in pulled.output
    assert place.leftovers() == set()


def test_unknown_name_is_answered_with_a_known_one(place: Place) -> None:
    """A wrong name is wrong usage: exit code 2."""
    pulled = place.call("pull", "chat-smal")
    assert pulled.exit_code == 2
    assert "did you mean chat-small?" in pulled.output


def test_pull_without_names_asks_for_them(place: Place) -> None:
    """Nobody downloads gigabytes by leaving out a word."""
    pulled = place.call("pull")
    assert pulled.exit_code == 2
    assert "chat-small" in pulled.output


def test_hub_without_the_file_is_named(place: Place) -> None:
    """A wrong file name leads to the setting; others are pulled all the same."""
    wrong = engine("chat-other", file="other.gguf") | {"file": "other.gguf"}
    place.write(wrong, engine())
    pulled = place.call("pull", "--all")
    assert pulled.exit_code == 1
    assert "correct the engine's repository, revision or file" in " ".join(pulled.output.split())
    assert place.leftovers() == {"small.gguf"}


def test_hub_that_cannot_be_reached_is_named(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """The message leads to the mirror, the proxy and the page for hosts without any."""
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:1")
    pulled = place.call("pull", "--all")
    assert pulled.exit_code == 1
    for word in ("models_hub_url", "HTTPS_PROXY", "docs/airgap.md"):
        assert word in pulled.output


def test_token_is_for_the_hub_alone(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """A redirect to another host does not get the token; without one the way to it is named."""
    place.hub.token = "hf_secret"
    refused = place.call("pull", "--all")
    assert refused.exit_code == 1
    assert "HF_TOKEN" in refused.output
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    port = place.hub.url.rsplit(":", 1)[-1]
    place.hub.elsewhere = f"http://localhost:{port}"
    place.hub.tokens.clear()
    pulled = place.call("pull", "--all")
    assert pulled.exit_code == 0, pulled.output
    assert (f"127.0.0.1:{port}", "Bearer hf_secret") in place.hub.tokens
    assert {token for host, token in place.hub.tokens if host.startswith("localhost")} == {None}
    assert "hf_secret" not in refused.output + pulled.output


def test_repository_is_pulled_as_a_folder(place: Place) -> None:
    """Without a file the whole repository is wanted, but not the same weights twice."""
    place.hub.files = {
        ".gitattributes": b"x",
        "config.json": b"{}",
        "model.safetensors": b"weights",
        "pytorch_model.bin": b"the same",
        "onnx/model.onnx": b"the same",
        "tokenizer/vocab.json": b"{}",
    }
    place.write(engine(file=None) | {"file": "Small", "kind": "vllm"})
    pulled = place.call("pull", "--all")
    assert pulled.exit_code == 0, pulled.output
    names = {"config.json", "model.safetensors", "tokenizer/vocab.json"}
    assert place.leftovers() == {f"Small/{name}" for name in names}
    assert place.rows()["Small"]["state"] == "present"
    assert place.call("verify").exit_code == 0
    (place.folder / "Small/model.safetensors").write_bytes(b"weightz")
    damaged = place.call("verify")
    assert damaged.exit_code == 1
    assert "Small/model.safetensors is damaged" in damaged.output


@pytest.mark.parametrize("name", ["../outside", "/outside", "a/../../outside"])
def test_file_outside_is_refused(place: Place, name: str) -> None:
    """A hub cannot have a file written elsewhere."""
    place.hub.files = {name: b"x"}
    place.write(engine(file=None) | {"file": "Small"})
    pulled = place.call("pull", "--all")
    assert pulled.exit_code == 1
    assert "refused" in pulled.output
    assert not (place.folder.parent / "outside").exists()


def test_list_tells_every_state(place: Place) -> None:
    """Present, missing and unverified files are told apart; two engines may use one file."""
    place.write(
        engine(),
        engine("embed-small"),
        engine("chat-missing") | {"file": "missing.gguf"},
        engine("chat-mine") | {"file": "mine.gguf", "sources": []},
    )
    place.call("pull", "chat-small")
    (place.folder / "mine.gguf").write_bytes(MODEL)
    rows = place.rows()
    states = {file: row["state"] for file, row in rows.items()}
    assert states == {
        "small.gguf": "present",
        "missing.gguf": "missing",
        "mine.gguf": "unverified",
    }
    assert rows["small.gguf"]["engines"] == ["chat-small", "embed-small"]
    text = place.call("list").output
    assert text.splitlines()[0].split() == [
        "FILE",
        "STATE",
        "SIZE",
        "VERIFIED",
        "LICENCE",
        "ENGINES",
    ]
    assert "1.0 MB" in text


def test_verify_names_damage_and_the_cure(place: Place) -> None:
    """A changed byte is found; the command that it names makes it good."""
    place.call("pull", "--all")
    assert place.call("verify").exit_code == 0
    path = place.folder / "small.gguf"
    path.write_bytes(MODEL[:-1] + b"!")
    damaged = place.call("verify", "small.gguf")
    assert damaged.exit_code == 1
    assert "sudo gatehouse models pull --again chat-small" in damaged.output
    assert place.call("pull", "--again", "chat-small").exit_code == 0
    assert path.read_bytes() == MODEL


def test_truncated_file_is_not_taken_for_present(place: Place) -> None:
    """A file of another size than was written down is damaged, and a plain pull replaces it."""
    place.call("pull", "--all")
    path = place.folder / "small.gguf"
    path.write_bytes(MODEL[:1000])
    assert place.rows()["small.gguf"]["state"] == "damaged"
    assert place.call("pull", "--all").exit_code == 0
    assert path.read_bytes() == MODEL


def test_file_that_somebody_put_there_is_taken_over(place: Place) -> None:
    """It is hashed instead of downloaded; the settings' checksum decides whether it is right."""
    place.folder.mkdir()
    (place.folder / "small.gguf").write_bytes(MODEL)
    place.write(engine(sha256=DIGEST))
    assert place.call("pull", "--all").exit_code == 0
    assert not place.hub.tokens
    assert place.rows()["small.gguf"]["sha256"] == DIGEST


def test_other_file_that_somebody_put_there_stays(place: Place) -> None:
    """A person's file is not overwritten; the pull says what to do."""
    place.folder.mkdir()
    (place.folder / "small.gguf").write_bytes(HEADER + b"mine, and large enough " * 8)
    place.write(engine(sha256=DIGEST))
    pulled = place.call("pull", "--all")
    assert pulled.exit_code == 1
    assert "move it away" in pulled.output
    assert b"mine" in (place.folder / "small.gguf").read_bytes()


def test_two_pulls_at_once_are_one(place: Place) -> None:
    """The second says that the first is at work."""
    with store.writing(place.folder):
        pulled = place.call("pull", "--all")
    assert pulled.exit_code == 2
    assert "another `gatehouse models` is at work" in pulled.output


def test_host_without_engines_is_told_so(place: Place) -> None:
    """Without a configuration there is nothing to look at: exit code 2."""
    place.config.unlink()
    listed = place.call("list")
    assert listed.exit_code == 2
    assert "models_enable" in listed.output


class _Ollama(BaseHTTPRequestHandler):
    lines: ClassVar[list[dict[str, object]]] = []
    asked: ClassVar[list[dict[str, object]]] = []

    def log_message(self, *_: object) -> None:
        """Say nothing."""

    def do_POST(self) -> None:
        """Answer as Ollama does: one JSON object a line."""
        self.asked.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
        self.send_response(200)
        self.end_headers()
        for line in self.lines:
            self.wfile.write(json.dumps(line).encode() + b"\n")


@pytest.fixture
def ollama(place: Place) -> Iterator[type[_Ollama]]:
    """Give an Ollama that one of the host's engines is."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Ollama)
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    changes = {"port": server.server_port, "kind": "ollama", "file": None}
    place.write(engine("ollama-local") | changes | {"sources": [{"ollama": "mistral:7b"}]})
    _Ollama.asked.clear()
    yield _Ollama
    server.shutdown()
    server.server_close()
    thread.join()


def test_ollama_is_asked_to_pull(place: Place, ollama: type[_Ollama]) -> None:
    """An Ollama engine pulls by itself; that it is woken is said, and what it holds is listed."""
    layer = {"status": "pulling", "digest": "sha256:" + "a" * 64, "total": 1000}
    ollama.lines = [
        {"status": "pulling manifest"},
        layer,
        layer | {"completed": 400},
        layer | {"completed": 1000},
        {"status": "success"},
    ]
    pulled = place.call("pull", "mistral:7b")
    assert pulled.exit_code == 0, pulled.output
    assert "wakes" in pulled.output
    assert ollama.asked == [{"model": "mistral:7b", "stream": True}]
    row = place.rows()["ollama:mistral:7b"]
    assert (row["state"], row["size"]) == ("present", 1000)


def test_ollama_that_stops_halfway_has_not_pulled(place: Place, ollama: type[_Ollama]) -> None:
    """Only its own word for success counts."""
    ollama.lines = [{"status": "pulling manifest"}]
    assert place.call("pull", "ollama-local").exit_code == 1
    assert place.rows()["ollama:mistral:7b"]["state"] == "missing"


def test_ollama_that_fails_is_quoted(place: Place, ollama: type[_Ollama]) -> None:
    """What Ollama says is said, and nothing is written down."""
    ollama.lines = [{"error": "pull model manifest: file does not exist"}]
    pulled = place.call("pull", "ollama-local")
    assert pulled.exit_code == 1
    assert "file does not exist" in pulled.output
    assert place.rows()["ollama:mistral:7b"]["state"] == "missing"


@pytest.mark.parametrize(
    ("first", "size", "said"),
    [
        (HEADER, 10_000, None),
        (b"GGUF" + struct.pack("<IQQ", 2, 0, 3), 10_000, None),
        (b"", 0, "empty"),
        (HEADER[:10], 10, "cut off"),
        (HEADER, 30, "damaged"),
        (b"GGUF" + struct.pack("<IQQ", 1, 2, 5), 10_000, "version is 1"),
        (b"GGUF" + struct.pack(">IQQ", 3, 2, 5), 10_000, "big-endian"),
        (b"version https://git-lfs.github.com/spec", 130, "LFS pointer"),
        (b"\n<html>", 500, "web page"),
        (b"PK\x03\x04" + bytes(20), 10_000, "no GGUF"),
    ],
)
def test_gguf_is_told_from_what_is_none(first: bytes, size: int, said: str | None) -> None:
    """The first bytes and the size tell a model from what often lies in its place."""
    problem = gguf_problem(first, size)
    assert problem is None if said is None else said in str(problem)
