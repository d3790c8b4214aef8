"""Everything that Gatehouse writes on a host, by path."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass

from gatehouse.images import Locked, ids
from gatehouse.render import (
    callbacks,
    docker,
    engines,
    firewall,
    gpu,
    health,
    litellm,
    metrics,
    timers,
)
from gatehouse.render import release as back
from gatehouse.render.environment import dotenv, inputs_hash, variables
from gatehouse.render.file import File
from gatehouse.render.machine import Machine
from gatehouse.render.template import plain, template
from gatehouse.settings import Settings

CURRENT = "/opt/gatehouse/current"
COMPONENTS = ("postgres", "redis", "litellm")
# Not in the manifest: the operator's own keys stand beside ours.
MERGED = "/etc/docker/daemon.json"
# In it without its hash: it also holds what only the deploy uses, and that makes no new release.
SETTINGS = "/etc/gatehouse/settings.json"
# Secrets that the host makes for itself and that are mounted one by one; no container reads the
# last one.
MOUNTED = ("master_key", "postgres_password", "redis_password", "salt_key", "ui_password")
SECRETS = (*MOUNTED, "backup_password")
# Service → files of the release that it runs with, besides the hardened base and networks.
SERVICES = {
    "postgres": ("compose/postgres.yaml",),
    "redis": ("compose/redis.yaml", "redis/redis.conf", "redis/start.sh"),
    # The job depends on the image, not on the configuration: a changed model migrates nothing.
    "litellm-migrate": ("litellm/start.sh",),
    "litellm": (
        "compose/litellm.yaml",
        "litellm/config.yaml",
        "litellm/start.sh",
        "litellm/engines.json",
        *(f"litellm/{name}.py" for name in callbacks.CALLBACKS),
    ),
}


@dataclass(frozen=True)
class Rendered:
    """The files by absolute path, and the hash of what each service and engine runs with."""

    files: dict[str, File]
    inputs: dict[str, str]
    engines: dict[str, str]

    @property
    def release(self) -> dict[str, File]:
        """The files of the release, by path inside it."""
        return {
            path.removeprefix(f"{CURRENT}/"): file
            for path, file in self.files.items()
            if path.startswith(f"{CURRENT}/")
        }

    @property
    def release_id(self) -> str:
        """Twelve hexadecimal digits: the same content is the same release, on every machine."""
        digest = hashlib.sha256()
        for path, file in sorted(self.release.items()):
            digest.update(f"{path}\0{file.mode}\0{file.sha256}\0".encode())
        return digest.hexdigest()[:12]


def references(settings: Settings, machine: Machine) -> list[str]:
    """Give the image references that the stack and its engines run with."""
    stack = [settings.postgres_image, settings.redis_image, settings.litellm_image]
    if settings.metrics_prometheus:
        stack += [settings.metrics_prometheus_image, settings.metrics_alertmanager_image]
    return [*stack, *engines.images(settings, machine)]


def render(
    settings: Settings, machine: Machine, lock: Mapping[str, Locked] | None = None
) -> Rendered:
    """Render every file of one host. Secrets are references to files or the environment.

    `lock` says by which IDs its images are known.
    """
    values = variables(settings, machine) | metrics.variables(settings, machine)
    release = {
        "compose.yaml": _top(*COMPONENTS, "engines"),
        "compose/hardened.yaml": plain("hardened.yaml"),
        "redis/redis.conf": template("redis/redis.conf", settings=settings),
        "redis/start.sh": plain("redis/start.sh"),
        **metrics.files(settings),
        "litellm/config.yaml": litellm.config(settings, machine),
        "litellm/start.sh": plain("litellm/start.sh"),
        "litellm/engines.json": callbacks.engines_json(settings, machine),
        **{f"litellm/{name}.py": plain(f"litellm/{name}.py") for name in callbacks.CALLBACKS},
    }
    seed = litellm.seed(settings, machine)
    if seed:
        release["litellm/seed.py"] = plain("litellm/seed.py")
        release["litellm/models.json"] = json.dumps(seed, indent=2) + "\n"
    release |= {f"compose/{name}.yaml": plain(f"{name}.yaml") for name in COMPONENTS}
    shared = [release["compose.yaml"], release["compose/hardened.yaml"]]
    inputs = {
        service: inputs_hash([*shared, *(release[path] for path in paths)], values)
        for service, paths in SERVICES.items()
    }
    job = f"{inputs['litellm-migrate']} {settings.litellm_image}"
    inputs["litellm-migrate"] = hashlib.sha256(job.encode()).hexdigest()[:16]
    inputs |= metrics.inputs(settings, release, shared, values)
    if settings.metrics_prometheus:
        # Afterwards: what else runs is not recreated for it.
        release["compose.yaml"] = _top(*COMPONENTS, metrics.NAME, "engines")
    release["compose/engines.yaml"], of_engines = engines.compose(settings, machine, shared)
    release["engines/engines.json"] = engines.runtime(settings, machine)
    release["engines/proxy.sh"] = engines.proxy()
    values |= {
        f"GATEHOUSE_{service.upper().replace('-', '_')}_INPUTS": digest
        for service, digest in inputs.items()
    }
    release[".env"] = dotenv(values)
    files = {f"{CURRENT}/{path}": File(content) for path, content in release.items()}
    files[MERGED] = File(docker.text(docker.wanted(settings, machine.card(settings))))
    files[SETTINGS] = File(
        settings.model_dump_json(indent=2) + "\n", "640", group=settings.host_group
    )
    files |= firewall.files(settings, machine)
    files |= engines.units(settings, machine)
    files |= gpu.files(settings, machine.card(settings))
    files |= health.files(settings)
    files |= timers.files(settings)
    files |= back.files()
    images = {
        "postgres": settings.postgres_image,
        "redis": settings.redis_image,
        "litellm": settings.litellm_image,
        "litellm-migrate": settings.litellm_image,
        "prometheus": settings.metrics_prometheus_image,
        "alertmanager": settings.metrics_alertmanager_image,
    }
    services = {name: {"inputs": inputs[name], "image": images[name]} for name in inputs}
    locked = {each: ids(lock or {}, each) for each in references(settings, machine)}
    files[f"{CURRENT}/manifest.json"] = File(_manifest(files, services, of_engines, locked))
    return Rendered(dict(sorted(files.items())), inputs, of_engines)


def _manifest(
    files: dict[str, File],
    services: dict[str, dict[str, str]],
    of_engines: dict[str, str],
    locked: dict[str, list[str]],
) -> str:
    """Write down what is placed where and what runs with which inputs, for the checks of drift."""
    placed = {
        path: {
            "sha256": "" if path == SETTINGS else file.sha256,
            "mode": file.mode,
            "owner": file.owner,
            "group": file.group,
        }
        for path, file in sorted(files.items())
        if path != MERGED
    }
    content = {"files": placed, "services": services, "engines": of_engines, "images": locked}
    return json.dumps(content, indent=1, sort_keys=True) + "\n"


def _top(*components: str) -> str:
    return template("compose/compose.yaml", components=components, secrets=MOUNTED)
