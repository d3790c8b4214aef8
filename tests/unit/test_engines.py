"""Engines: what the settings refuse, and what is rendered for one that is on."""

import json
import re
import struct
from dataclasses import replace
from typing import Any

import pytest
import yaml

from gatehouse.checks.engines import checks
from gatehouse.deploys.facts import HostFact, ModelFile
from gatehouse.deploys.preflight import problems as preflight
from gatehouse.render import Machine, render
from tests.given import BARE_HOST, MACHINE, model, problems, proxy, rendered, settings

UNITS = "/etc/systemd/system"
EMBED = "embed-arctic-l-v2"
CARD = Machine(cores=8, memory_mib=32768, gpus=1)
GGUF = b"GGUF" + struct.pack("<IQQ", 3, 1, 1)


def engine(name: str = "chat-mine-llamacpp", /, **fields: object) -> dict[str, Any]:
    """Give one entry of `engines_extra`."""
    return {"name": name, "kind": "llamacpp", "port": 8090, "file": "mine.gguf"} | fields


def on(*engines: dict[str, Any], **changes: object) -> dict[str, Any]:
    """Give settings with engines of one's own, switched on."""
    return {"engines_extra": [each | {"enabled": True} for each in engines]} | changes


def service(name: str, machine: Machine = MACHINE, /, **changes: object) -> dict[str, Any]:
    """Give an engine's Compose service."""
    text = rendered(machine, **changes).release["compose/engines.yaml"].content
    found: dict[str, Any] = yaml.safe_load(text)["services"][name]
    return found


@pytest.mark.parametrize(
    ("entry", "path", "words"),
    [
        (engine("Mine"), "/0/name", "breaks the naming convention"),
        (engine(port=80), "/0/port", "1024"),
        (engine(file=None), "/0", "give file"),
        (engine(file="/models/x.gguf"), "/0/file", "below models_dir"),
        (engine(file="a/../../x"), "/0/file", "without .."),
        (engine(idle_seconds=0), "/0/idle_seconds", "greater than or equal to 1"),
        (engine(kind="openai", file=None), "/0", "give image or command"),
        (engine(command=["/bin/x"], image="x:1"), "/0", "give one of them"),
        (engine(command=["llama-server"]), "/0", "absolute path"),
        (engine(kind="vllm", device="cpu"), "/0", 'remove device = "cpu"'),
        (engine(pulls=["mistral:7b"]), "/0", "Ollama's"),
        (engine(sha256="abc"), "/0/sha256", "pattern"),
        (engine(prot=1), "/0/prot", "did you mean 'port'?"),
        (engine(image="mine:latest", enabled=True), "engines/chat-mine-llamacpp/image", "pin"),
    ],
)
def test_engine_that_cannot_be_meant_is_refused(
    entry: dict[str, Any], path: str, words: str
) -> None:
    """Each mistake is named with its place and what to do."""
    found = problems(engines_extra=[entry])
    key = f"engines_extra{path}" if path.startswith("/") else path
    assert words in found[key]


def test_two_engines_on_one_port_are_refused() -> None:
    """Ports are compared among the engines that are on, and with the stack's own."""
    found = problems(**on(engine("chat-a-x"), engine("chat-b-x"), engine("chat-c-x", port=4000)))
    assert "the port of engine chat-a-x" in found["engines/chat-b-x/port"]
    assert "litellm_port" in found["engines/chat-c-x/port"]
    assert not problems(engines_extra=[engine("chat-a-x"), engine("chat-b-x")])


def test_idle_time_below_the_health_interval_is_refused() -> None:
    """An engine that would stop before it is seen to be ready is a mistake."""
    found = problems(**on(engine(idle_seconds=5)), engines_health_interval_seconds=6.0)
    assert "engines_health_interval_seconds = 6" in found["engines/chat-mine-llamacpp/idle_seconds"]


def test_gpu_that_is_ruled_out_is_refused() -> None:
    """An engine that needs a GPU and a mode without one contradict each other."""
    found = problems(models_enable=["chat-qwen2.5-0.5b-vllm"], gpu_mode="none")
    assert 'gpu_mode = "none"' in found["engines/chat-qwen2.5-0.5b-vllm/device"]


@pytest.mark.parametrize(
    ("fields", "key", "words"),
    [
        ({"engine": "embed-arctic"}, "engine", "did you mean 'embed-arctic-l-v2'?"),
        ({"engine": "chat-qwen2.5-0.5b-vllm"}, "backend", "serves it as"),
        ({"engine": EMBED, "on_cold": "fallback"}, "on_cold", "give models_fallbacks an entry"),
    ],
)
def test_model_that_contradicts_its_engine_is_refused(
    fields: dict[str, Any], key: str, words: str
) -> None:
    """What a model says of its engine has to be true."""
    found = problems(models_extra=[model(api_base=None, **fields)])
    assert words in found[f"models/chat-mine-vllm/{key}"]


def test_model_has_one_address() -> None:
    """A model with an engine has no api_base of its own."""
    found = problems(models_extra=[model(engine=EMBED)])
    assert "remove api_base" in found["models_extra/0"]


def test_model_switches_its_engine_on() -> None:
    """An engine is on exactly when a model that is on names it, or it is enabled itself."""
    assert not settings().active_engines
    assert [e.name for e in settings(models_enable=[EMBED]).active_engines] == [EMBED]
    both = settings(models_enable=["chat-mistral-7b-ollama", "vision-qwen3-vl-4b-ollama"])
    assert [e.name for e in both.active_engines] == ["ollama-local"]


@pytest.mark.parametrize(
    ("name", "base"),
    [
        ("chat-hermes-3-llama-3.1-8b", "http://host.docker.internal:8084/v1"),
        (EMBED, "http://host.docker.internal:8082/v1"),
        ("rerank-bge-v2-m3", "http://host.docker.internal:8079"),
        ("chat-qwen2.5-0.5b-vllm", "http://host.docker.internal:8000/v1"),
        ("chat-mistral-7b-ollama", "http://host.docker.internal:11434"),
    ],
)
def test_shipped_engine_is_where_its_model_looks(name: str, base: str) -> None:
    """LiteLLM gets the address of the engine's port, in the form that its provider wants."""
    (entry,) = [
        each
        for each in proxy(CARD, models_enable=[name])["model_list"]
        if each["model_name"] == name
    ]
    assert entry["litellm_params"]["api_base"] == base


@pytest.mark.parametrize(
    ("fields", "seconds"),
    [
        ({"engine": "chat-own-x"}, 15),
        ({"engine": "chat-own-x", "keepalive_seconds": 0}, 0),
        ({}, None),
    ],
)
def test_silent_stream_of_an_engine_gets_comments(
    fields: dict[str, Any], seconds: int | None
) -> None:
    """A chat model that may have to load first keeps its clients' connections alive."""
    fields = {"api_base": None} | fields if fields else fields
    config = proxy(engines_extra=[engine("chat-own-x")], models_extra=[model(**fields)])
    (entry,) = [each for each in config["model_list"] if each["model_name"] == "chat-mine-vllm"]
    assert entry["litellm_params"].get("keepalive_seconds") == seconds


def test_vllm_gets_its_arguments() -> None:
    """The values that were found right on the first workstation."""
    found = service("chat-qwen2.5-0.5b-vllm", CARD, models_enable=["chat-qwen2.5-0.5b-vllm"])
    words = " ".join(found["command"])
    for expected in (
        "--model /models/Qwen2.5-0.5B-Instruct",
        "--served-model-name chat-qwen2.5-0.5b-vllm",
        "--tool-call-parser hermes --enable-auto-tool-choice",
        "--max-model-len 4096 --max-num-seqs 32",
        "--gpu-memory-utilization 0.2",
    ):
        assert expected in words
    assert found["environment"]["HF_HUB_OFFLINE"] == "1"


def test_ollama_gets_its_arguments() -> None:
    """Ollama keeps its files below the models' folder, and is reached through its port only."""
    found = service("ollama-local", models_enable=["chat-mistral-7b-ollama"])
    assert found["command"] == ["serve"]
    assert found["environment"]["OLLAMA_HOST"] == "0.0.0.0:11434"
    assert "/var/lib/gatehouse/models/ollama:/models/ollama" in found["volumes"]
    assert "ports" not in found


def test_gpu_is_asked_for_where_there_is_one() -> None:
    """With a card: CDI's device and the image with CUDA; without: neither, and no layers on it."""
    found = service(EMBED, CARD, models_enable=[EMBED])
    (device,) = found["deploy"]["resources"]["reservations"]["devices"]
    assert device["device_ids"] == ["nvidia.com/gpu=0"]
    assert "server-cuda-" in found["image"]
    found = service(EMBED, models_enable=[EMBED])
    assert "deploy" not in found
    assert "cuda" not in found["image"]
    assert found["command"][found["command"].index("--n-gpu-layers") + 1] == "0"
    forced = engine(device="cpu")
    assert "deploy" not in service("chat-mine-llamacpp", CARD, **on(forced))


def test_engine_is_hardened_and_published_nowhere() -> None:
    """Like every service, and reachable by the host's proxy only."""
    found = service(EMBED, models_enable=[EMBED])
    assert found["extends"]["service"] == "hardened"
    assert found["profiles"] == ["engines"]
    assert found["restart"] == "no"
    assert found["user"] == "65534:65534"
    assert not {"ports", "privileged", "cap_add"} & found.keys()
    assert found["mem_limit"] == "24576m"
    assert all(volume.endswith(":ro") for volume in found["volumes"])


def test_engine_is_recreated_for_its_own_changes_only() -> None:
    """Its inputs change with its arguments, not with another engine's."""
    one, two = engine("chat-a-x"), engine("chat-b-x", port=8091)
    before = rendered(**on(one, two)).engines
    after = rendered(**on(one, two | {"context_tokens": 4096})).engines
    assert before["chat-a-x"] == after["chat-a-x"]
    assert before["chat-b-x"] != after["chat-b-x"]
    # Its idle time is its unit's, not its container's.
    assert rendered(**on(one | {"idle_seconds": 9}, two)).engines == before


def test_address_stays_when_others_are_switched() -> None:
    """Each engine of the lists has its address, whether others are on or not."""
    one, two = engine("chat-a-x"), engine("chat-b-x", port=8091)
    alone = service("chat-b-x", engines_extra=[one, two | {"enabled": True}])
    both = service("chat-b-x", **on(one, two))
    assert alone["networks"] == both["networks"]


def test_dollar_reaches_the_engine() -> None:
    """What Compose would read as a variable stays what it is."""
    text = rendered(**on(engine(arguments=["$HOME"]))).release["compose/engines.yaml"].content
    assert "$$HOME" in text


def test_units_hold_the_port_and_start_nothing() -> None:
    """The socket is on loopback and the bridge; no unit of an engine is wanted by the boot."""
    files = rendered(models_enable=[EMBED]).files
    socket = files[f"{UNITS}/gatehouse-engine-{EMBED}.socket"].content
    assert re.findall(r"^ListenStream=(.*)$", socket, re.MULTILINE) == [
        "127.0.0.1:8082",
        "172.30.40.1:8082",
    ]
    for path, file in files.items():
        if EMBED in path and path.endswith(".service"):
            assert "WantedBy" not in file.content
            assert "Conflicts" not in file.content
    assert "StopWhenUnneeded=yes" in files[f"{UNITS}/gatehouse-server-{EMBED}.service"].content


def test_engine_that_always_runs_is_started_with_the_host() -> None:
    """With `boot = "always"` the unit is wanted by the boot, and has no idle time."""
    found = rendered(**on(engine(boot="always"))).files
    unit = found[f"{UNITS}/gatehouse-engine-chat-mine-llamacpp.service"].content
    assert "WantedBy=multi-user.target" in unit
    assert re.search(r"proxy\.sh chat-mine-llamacpp \S+ infinity$", unit, re.MULTILINE)


def test_program_of_the_host_is_sandboxed() -> None:
    """A command runs as nobody in particular, on an address of its own."""
    ollama = engine(
        "ollama-local",
        kind="ollama",
        file=None,
        port=11434,
        command=["/usr/local/bin/ollama", "serve"],
        environment={"OLLAMA_HOST": "{address}:{port}", "ODD": 'a"b%c'},
    )
    changes = on(ollama, engines=[])
    changes["models"] = [each | {"engine": None} for each in [model("chat-own-x")]]
    changes |= {"models_aliases": {}, "models_fallbacks": {}, "models_context_fallbacks": {}}
    tree = rendered(**changes)
    unit = tree.files[f"{UNITS}/gatehouse-server-ollama-local.service"].content
    assert 'ExecStart="/usr/local/bin/ollama" "serve"' in unit
    assert 'Environment="OLLAMA_HOST=127.30.42.10:11434"' in unit
    assert 'Environment="ODD=a\\"b%%c"' in unit
    assert "DynamicUser=yes" in unit
    assert "docker start" not in unit
    assert not tree.engines


def test_runtime_reads_what_is_rendered() -> None:
    """engines.json says where each engine is and what it needs; no engine that is off is in it."""
    text = rendered(models_enable=[EMBED, "rerank-bge-v2-m3"]).release["engines/engines.json"]
    found = json.loads(text.content)
    assert [each["name"] for each in found["engines"]] == [EMBED, "rerank-bge-v2-m3"]
    (first, _) = found["engines"]
    assert (first["port"], first["backend"]) == (8082, "172.30.42.11:8080")
    assert first["models"] == [EMBED]
    assert first["device"] == "cpu"
    assert first["sources"][0]["file"] == "snowflake-arctic-embed-l-v2.0-q8_0.gguf"


def test_group_may_use_engines_and_nothing_else() -> None:
    """Polkit's rule names each engine's unit, dots taken literally."""
    rule = rendered(models_enable=["chat-hermes-3-llama-3.1-8b"]).files[
        "/etc/polkit-1/rules.d/50-gatehouse.rules"
    ]
    (pattern,) = re.findall(r"/(\^gatehouse-engine.*\$)/", rule.content)
    assert re.match(pattern, "gatehouse-engine-chat-hermes-3-llama-3.1-8b.service")
    assert not re.match(pattern, "gatehouse-engine-chat-hermes-3-llama-3x1-8b.service")
    assert not re.match(pattern, "ssh.service")
    assert 'isInGroup("gatehouse")' in rule.content


@pytest.mark.parametrize(
    ("files", "words"),
    [
        ({}, "is missing: copy it there"),
        ({"/var/lib/gatehouse/models/mine.gguf": ModelFile(12, b"<html>")}, "is a web page"),
    ],
)
def test_model_file_is_looked_at_before_anything_changes(
    files: dict[str, ModelFile], words: str
) -> None:
    """A missing or damaged model file ends the deploy before it begins."""
    found = replace(HostFact().process(BARE_HOST.splitlines()), model_files=files)
    (reason,) = preflight(settings(**on(engine())), found)
    assert words in reason
    right = {"/var/lib/gatehouse/models/mine.gguf": ModelFile(99, GGUF)}
    assert not preflight(settings(**on(engine())), replace(found, model_files=right))


def test_gpu_request_on_a_host_without_one_is_refused() -> None:
    """An engine that needs a card is not deployed to a host that has none."""
    found = HostFact().process(BARE_HOST.splitlines())
    reasons = preflight(settings(**on(engine(device="gpu"))), found)
    assert any("engine chat-mine-llamacpp needs a GPU" in reason for reason in reasons)


def test_port_of_an_engine_that_is_taken_is_refused() -> None:
    """Who has the port is named, and a socket of our own is not somebody else."""
    line = 'listener=LISTEN 0 128 127.0.0.1:8090 0.0.0.0:* users:(("nginx",pid=1,fd=3))'
    magic = f"model_file=99|{GGUF.hex()}|/var/lib/gatehouse/models/mine.gguf"
    lines = [*BARE_HOST.splitlines(), line, magic]
    (reason,) = preflight(settings(**on(engine())), HostFact().process(lines))
    assert "port 8090 is taken by" in reason
    assert not preflight(settings(**on(engine())), HostFact().process([*lines, "own_port=8090"]))


def test_checks_name_what_is_wrong() -> None:
    """Without engines there is nothing to check; with one, each check judges silence as right."""
    assert not checks(settings())
    found = checks(settings(models_enable=[EMBED]))
    assert {check.name for check in found} >= {"engines: ports are held"}
    for check in found[:3]:
        assert check.judge(0, "").holds
        assert not check.judge(0, "something").holds


def test_host_without_engines_gets_no_unit_of_one() -> None:
    """What is off leaves no trace beside the runtime directory."""
    files = render(settings(), MACHINE).files
    assert not [path for path in files if "gatehouse-engine" in path or "polkit" in path]
