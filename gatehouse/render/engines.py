"""Engines: their containers, their units, and what their runtime on the host reads."""

import hashlib
import json
import re
from typing import Any

import yaml

from gatehouse.render.file import File
from gatehouse.render.machine import Machine
from gatehouse.render.template import template
from gatehouse.settings import Engine, Settings
from gatehouse.settings.models import offered
from gatehouse.settings.rules import FIRST_ADDRESS

UNITS = "/etc/systemd/system"
PYTHON = "/opt/gatehouse/venv/bin/python -I"
# An engine that runs on the host itself gets a loopback address of its own.
_LOOPBACK = "127.30.42"
_FOLDERS = {"vllm", "tgi"}
_EVERYWHERE = "0.0.0.0"  # noqa: S104 - inside its container, on a network that leads nowhere
_QUIET = {
    "vllm": {"HF_HUB_OFFLINE": "1", "VLLM_NO_USAGE_STATS": "1", "DO_NOT_TRACK": "1"},
    "tgi": {"HF_HUB_OFFLINE": "1", "DISABLE_USAGE_STATS": "1"},
    "ollama": {"OLLAMA_MODELS": "/models/ollama", "OLLAMA_NOPRUNE": "1"},
}


def unit(engine: Engine) -> str:
    """Give the name, without its ending, of the units that people know."""
    return f"gatehouse-engine-{engine.name}"


def container(engine: Engine) -> str | None:
    """Give the name of the engine's container; None for a program of the host."""
    return None if engine.command else f"gatehouse-{engine.name}-1"


def on_gpu(settings: Settings, machine: Machine, engine: Engine) -> bool:
    """Tell whether the engine runs on a GPU of this machine."""
    return engine.device != "cpu" and machine.card(settings) == "nvidia"


def address(settings: Settings, engine: Engine) -> str:
    """Give where the server itself listens; it stays when others are switched on and off."""
    number = FIRST_ADDRESS + [each.name for each in settings.all_engines].index(engine.name)
    if engine.command:
        return f"{_LOOPBACK}.{number}"
    return str(settings.network_engines_subnet[number])


def with_egress(settings: Settings) -> list[str]:
    """Give the addresses of the engines that may open connections to the outside."""
    return [
        address(settings, engine)
        for engine in settings.active_engines
        if engine.egress and not engine.command
    ]


def image(settings: Settings, machine: Machine, engine: Engine) -> str | None:
    """Give the image that the engine runs; None for a program of the host."""
    if engine.command:
        return None
    if engine.image:
        return engine.image
    if engine.kind in {"vllm", "ollama", "tgi"}:
        return str(getattr(settings, f"engines_{engine.kind}_image"))
    gpu = on_gpu(settings, machine, engine)
    return settings.engines_llamacpp_gpu_image if gpu else settings.engines_llamacpp_image


def images(settings: Settings, machine: Machine) -> list[str]:
    """Give the images of all engines that are on, each once."""
    found = (image(settings, machine, engine) for engine in settings.active_engines)
    return list(dict.fromkeys(each for each in found if each))


def arguments(engine: Engine, *, gpu: bool) -> list[str]:
    """Give the server's command line inside its container."""
    model = f"/models/{engine.file}"
    port = str(engine.inner_port)
    slots = str(engine.parallel)
    context = str(engine.context_tokens)
    if engine.kind in {"llamacpp", "embed", "rerank"}:
        # llama.cpp shares its context out among its slots, and reads a question to an embedder or a
        # reranker in one piece.
        whole = str(engine.context_tokens * engine.parallel)
        found = ["--model", model, "--alias", engine.name, "--host", _EVERYWHERE, "--port", port]
        found += ["--ctx-size", whole, "--parallel", slots]
        found += ["--n-gpu-layers", "999" if gpu else "0", "--no-webui"]
        extra = {
            "llamacpp": ["--jinja"],
            "embed": ["--embeddings", "--batch-size", context, "--ubatch-size", context],
            "rerank": ["--reranking", "--batch-size", context, "--ubatch-size", context],
        }
        found += extra[engine.kind]
    elif engine.kind == "vllm":
        found = ["--model", model, "--served-model-name", engine.name, "--host", _EVERYWHERE]
        found += ["--port", port, "--max-model-len", context, "--max-num-seqs", slots]
    elif engine.kind == "tgi":
        found = ["--model-id", model, "--hostname", _EVERYWHERE, "--port", port]
        found += ["--max-total-tokens", context, "--max-concurrent-requests", slots]
    else:
        found = ["serve"] if engine.kind == "ollama" else []
    return [*found, *engine.arguments]


def service(settings: Settings, machine: Machine, engine: Engine) -> dict[str, Any]:
    """Give the engine's Compose service, without the label that its own hash is put in."""
    gpu = on_gpu(settings, machine, engine)
    environment = {"HOME": "/tmp", **_QUIET.get(engine.kind, {})}  # noqa: S108 - in its container
    if engine.kind == "ollama":
        environment["OLLAMA_HOST"] = f"{_EVERYWHERE}:{engine.inner_port}"
        environment["OLLAMA_NUM_PARALLEL"] = str(engine.parallel)
        environment["OLLAMA_CONTEXT_LENGTH"] = str(engine.context_tokens)
    volumes = [f"{settings.models_dir}:/models:ro"]
    if engine.kind == "ollama":
        # The one that manages its files itself.
        volumes.append(f"{settings.models_dir}/ollama:/models/ollama")
    found: dict[str, Any] = {
        "extends": {"file": "hardened.yaml", "service": "hardened"},
        "profiles": ["engines"],
        "restart": "no",
        "image": image(settings, machine, engine),
        "user": settings.engines_user,
        "command": arguments(engine, gpu=gpu),
        "environment": environment | engine.environment,
        "volumes": volumes,
        "tmpfs": ["/tmp:mode=1777,size=2g,exec,nosuid,nodev"],  # noqa: S108 - the same
        "networks": {"engines": {"ipv4_address": address(settings, engine)}},
        "shm_size": "1g",
        "mem_limit": f"{machine.engine_memory_mib(engine)}m",
        "cpus": machine.cpus(float(machine.cores)),
        "pids_limit": settings.engines_pids,
        "stop_grace_period": f"{settings.engines_stop_grace_seconds}s",
        # Its unit asks it; nobody else may, for that would keep it awake.
        "healthcheck": {"disable": True},
    }
    if gpu:
        device = {
            "driver": "cdi",
            "device_ids": [f"nvidia.com/gpu={engine.gpu_index}"],
            "capabilities": ["gpu"],
        }
        found["deploy"] = {"resources": {"reservations": {"devices": [device]}}}
    return found


def compose(settings: Settings, machine: Machine, shared: list[str]) -> tuple[str, dict[str, str]]:
    """Give compose/engines.yaml and for each engine the hash of what it runs with.

    `shared`: texts that every service depends on.
    """
    services, inputs = {}, {}
    for engine in settings.active_engines:
        if engine.command:
            continue
        found = service(settings, machine, engine)
        text = "\0".join([*shared, json.dumps(found, sort_keys=True)])
        inputs[engine.name] = hashlib.sha256(text.encode()).hexdigest()[:16]
        services[engine.name] = found | {"labels": {"gatehouse.inputs": inputs[engine.name]}}
    # Compose reads `$` as the beginning of a variable.
    text = yaml.safe_dump({"services": services}, sort_keys=False, width=100).replace("$", "$$")
    return "# Rendered by Gatehouse: what only a loop can say.\n" + text, inputs


def runtime(settings: Settings, machine: Machine) -> str:
    """Give engines.json, which `gatehouse.engines` on the host reads."""
    models = offered(settings.all_models, settings.models_enable, machine.provider_keys)
    return (
        json.dumps(
            {
                "version": 1,
                "bridge": str(settings.network_subnet[1]),
                "card": machine.card(settings),
                "reserve_mib": settings.gpu_reserve_mib,
                "models_dir": settings.models_dir,
                "hub_url": settings.models_hub_url,
                "health_interval_seconds": settings.engines_health_interval_seconds,
                "engines": [
                    {
                        "name": engine.name,
                        "kind": engine.kind,
                        "port": engine.port,
                        "backend": f"{address(settings, engine)}:{engine.inner_port}",
                        "health": engine.health,
                        "container": container(engine),
                        "device": "gpu" if on_gpu(settings, machine, engine) else "cpu",
                        "gpu_index": engine.gpu_index,
                        "memory_mib": engine.memory_mib,
                        "file": engine.file,
                        "idle_seconds": engine.idle_seconds,
                        "load_seconds": engine.load_seconds,
                        "drain_seconds": engine.drain_seconds,
                        "retry_seconds": engine.retry_seconds,
                        "boot": engine.boot,
                        "sources": _sources(engine),
                        "models": [m.name for m in models.values() if m.engine == engine.name],
                    }
                    for engine in settings.active_engines
                ],
            },
            indent=2,
        )
        + "\n"
    )


def _sources(engine: Engine) -> list[dict[str, str | None]]:
    found: list[dict[str, str | None]] = [{"ollama": name} for name in engine.pulls]
    if engine.repository and engine.file:
        folder = engine.kind in _FOLDERS
        found.append(
            {
                "repository": engine.repository,
                "revision": engine.revision,
                "file": None if folder else engine.file.rsplit("/", 1)[-1],
                "sha256": engine.sha256,
                "licence": engine.licence,
            }
        )
    return found


def units(settings: Settings, machine: Machine) -> dict[str, File]:
    """Give every file of the engines outside the release, by absolute path."""
    engines = settings.active_engines
    found = {"/etc/tmpfiles.d/gatehouse.conf": File(template("engines/tmpfiles.conf"))}
    if not engines:
        return found
    for engine in engines:
        files = {
            f"{unit(engine)}.socket": template(
                "engines/engine.socket",
                engine=engine,
                unit=unit(engine),
                bridge=settings.network_subnet[1],
            ),
            f"{unit(engine)}.service": template(
                "engines/engine.service",
                engine=engine,
                unit=unit(engine),
                backend=f"{address(settings, engine)}:{engine.inner_port}",
                edge=settings.network_subnet,
                engines=settings.network_engines_subnet,
            ),
            f"gatehouse-server-{engine.name}.service": _server(settings, machine, engine),
        }
        found |= {f"{UNITS}/{name}": File(text) for name, text in files.items()}
    found[f"{UNITS}/gatehouse-rearm@.service"] = File(template("engines/gatehouse-rearm@.service"))
    found["/etc/polkit-1/rules.d/50-gatehouse.rules"] = File(
        template(
            "engines/polkit.rules",
            group=settings.host_group,
            names="|".join(re.escape(engine.name) for engine in engines).replace("/", "\\/"),
        )
    )
    return found


def proxy() -> str:
    """Give the script that a connection to an engine's port starts."""
    return template("engines/proxy.sh", python=PYTHON)


def _server(settings: Settings, machine: Machine, engine: Engine) -> str:
    places = {
        "address": address(settings, engine),
        "port": str(engine.inner_port),
        "file": f"{settings.models_dir}/{engine.file}",
    }
    command = [_filled(word, places) for word in [*(engine.command or []), *engine.arguments]]
    environment = [f"{key}={_filled(value, places)}" for key, value in engine.environment.items()]
    return template(
        "engines/server.service",
        engine=engine,
        unit=unit(engine),
        python=PYTHON,
        container=container(engine),
        grace=settings.engines_stop_grace_seconds,
        command=" ".join(map(_quoted, command)),
        environment=[_quoted(line) for line in environment],
        gpu=on_gpu(settings, machine, engine),
        memory=machine.engine_memory_mib(engine),
        pids=settings.engines_pids,
    )


def _filled(text: str, places: dict[str, str]) -> str:
    """Fill in {address}, {port} and {file}; other braces stay as they are."""
    for name, value in places.items():
        text = text.replace(f"{{{name}}}", value)
    return text


def _quoted(text: str) -> str:
    """Quote one word for a unit file, where `%` and `$` mean something."""
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%").replace("$", "$$")
    return f'"{escaped}"'
