"""Engines: the model servers of this host, which run only while somebody uses them."""

import re
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from gatehouse.settings.field import Component, setting
from gatehouse.settings.models import Model, model_name
from gatehouse.settings.postgres import CONTAINER_USER, IMAGE

Kind = Literal["llamacpp", "embed", "rerank", "vllm", "ollama", "tgi", "openai"]
Device = Literal["auto", "gpu", "cpu"]

# What each kind listens on inside its container, and where it says that it is ready.
_PORTS: dict[str, int] = {"vllm": 8000, "ollama": 11434}
_HEALTH: dict[str, str] = {"ollama": "/api/version"}
_GPU_ONLY = {"vllm", "tgi"}
_FILE_NEEDED = {"llamacpp", "embed", "rerank", "vllm", "tgi"}


def _below(path: str | None) -> str | None:
    if path is not None and (path.startswith("/") or ".." in path.split("/")):
        raise ValueError("must be a path below models_dir, without a leading / and without ..")
    return path


class Engine(BaseModel):
    """One entry of `engines`: a model server, what it needs, and how long it may idle."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    name: Annotated[
        str,
        AfterValidator(model_name),
        Field(description="[type]-[name]-[engine], as models are called; part of its unit's name."),
    ]
    kind: Annotated[
        Kind,
        Field(
            description="llamacpp (chat), embed and rerank are llama.cpp servers; openai is any "
            "other image with an OpenAI-compatible API (arguments are all yours)."
        ),
    ]
    enabled: Annotated[
        bool, Field(description="True: on even if no model that is offered names it.")
    ] = False
    port: Annotated[
        int,
        Field(description="Port on 127.0.0.1 and on the bridge's address.", ge=1024, le=65535),
    ]
    image: Annotated[
        str | None, Field(description="Image. None: by kind, engines_…_image.", pattern=IMAGE)
    ] = None
    command: Annotated[
        list[str] | None,
        Field(
            description="Run this program of the host, sandboxed, instead of a container; "
            "{address}, {port} and {file} are filled in.",
            min_length=1,
        ),
    ] = None
    file: Annotated[
        str | None,
        Field(description="Model file or folder, below models_dir.", pattern=r"^[\w./+-]+$"),
        AfterValidator(_below),
    ] = None
    repository: Annotated[
        str | None,
        Field(
            description="Where `gatehouse models pull` gets it: owner/name on the model hub.",
            pattern=r"^[\w.-]+/[\w.-]+$",
        ),
    ] = None
    revision: Annotated[
        str, Field(description="Branch, tag or commit there.", pattern=r"^[\w./-]{1,100}$")
    ] = "main"
    sha256: Annotated[
        str | None,
        Field(description="Checksum that the file must have.", pattern=r"^[0-9a-f]{64}$"),
    ] = None
    licence: Annotated[
        str | None, Field(description="Licence of the model, shown before it is pulled.")
    ] = None
    pulls: Annotated[
        list[str], Field(description="Models that Ollama itself is told to pull: mistral:7b.")
    ] = []
    context_tokens: Annotated[
        int, Field(description="Longest conversation of one client.", ge=128, le=10_000_000)
    ] = 8192
    parallel: Annotated[int, Field(description="Requests served at once.", ge=1, le=1024)] = 1
    device: Annotated[
        Device, Field(description="auto: a GPU where there is one, else the CPU.")
    ] = "auto"
    gpu_index: Annotated[int, Field(description="Which GPU.", ge=0, le=63)] = 0
    memory_mib: Annotated[
        int | None,
        Field(
            description="Memory it needs on its device, in MiB, until it was measured. None: a "
            "guess from the size of its file.",
            ge=1,
            le=10_000_000,
        ),
    ] = None
    ram_mib: Annotated[
        int | None,
        Field(
            description="Memory limit of its container, in MiB. None: three quarters of the "
            "host's.",
            ge=64,
            le=10_000_000,
        ),
    ] = None
    idle_seconds: Annotated[
        int,
        Field(description="Stops after so long without a connection.", ge=1, le=604800),
    ] = 600
    load_seconds: Annotated[
        int, Field(description="Longest time from its start to healthy.", ge=5, le=7200)
    ] = 300
    drain_seconds: Annotated[
        int,
        Field(
            description="How long a start waits for busy engines to free memory, before it is "
            "refused.",
            ge=0,
            le=3600,
        ),
    ] = 0
    retry_seconds: Annotated[
        int,
        Field(description="After a failed load, refuse at once for so long.", ge=0, le=3600),
    ] = 30
    boot: Annotated[
        Literal["never", "always"],
        Field(description="always: started with the host, never stopped for being idle."),
    ] = "never"
    container_port: Annotated[
        int | None, Field(description="Port inside. None: the kind's own.", ge=1, le=65535)
    ] = None
    health_path: Annotated[
        str | None,
        Field(description="Answers 200 when it is ready. None: the kind's.", pattern=r"^/\S*$"),
    ] = None
    arguments: Annotated[list[str], Field(description="More arguments for the server.")] = []
    environment: Annotated[
        dict[str, str], Field(description="More environment for the server; never a secret.")
    ] = {}
    egress: Annotated[
        bool,
        Field(description="It may open connections to the outside (Ollama pulls by itself)."),
    ] = False

    @model_validator(mode="after")
    def _complete(self) -> Self:
        if self.kind in _FILE_NEEDED and not self.file and not self.command:
            raise ValueError(f"a {self.kind} engine serves one model: give file")
        if self.kind == "openai" and not self.image and not self.command:
            raise ValueError("an openai engine has no image of its own: give image or command")
        if self.command and self.image:
            raise ValueError("command runs on the host and image in a container: give one of them")
        if self.command and not re.match(r"^/\S+$", self.command[0]):
            raise ValueError("command must begin with the program's absolute path")
        if self.kind in _GPU_ONLY and self.device == "cpu":
            raise ValueError(f'{self.kind} needs a GPU: remove device = "cpu"')
        if self.pulls and self.kind != "ollama":
            raise ValueError("pulls is Ollama's: give repository and file instead")
        if self.repository and not self.file:
            raise ValueError("repository needs file: where the model is put below models_dir")
        return self

    @property
    def inner_port(self) -> int:
        """The port that the server itself listens on."""
        return self.container_port or _PORTS.get(self.kind, 8080)

    @property
    def health(self) -> str:
        """The path that answers 200 when the server is ready."""
        return self.health_path or _HEALTH.get(self.kind, "/health")

    @property
    def needs_gpu(self) -> bool:
        """Whether it cannot run without a GPU."""
        return self.device == "gpu" or self.kind in _GPU_ONLY


class EnginesSettings(Component):
    """Engines, the images they run, and what is common to all of them."""

    engines: Annotated[
        list[Engine],
        setting("The engines that Gatehouse ships; one is on when a model that is on names it."),
    ]
    engines_extra: Annotated[
        list[Engine], setting("Your own engines, in the same form; kept apart from the shipped.")
    ]
    engines_user: Annotated[
        str, setting("uid:gid that engines run as in their containers.", pattern=CONTAINER_USER)
    ]
    engines_pids: Annotated[
        int, setting("Process limit of an engine.", unit="processes", ge=64, le=32768)
    ]
    engines_health_interval_seconds: Annotated[
        float,
        setting(
            "How often a loading engine is asked whether it is ready.",
            unit="seconds",
            ge=0.01,
            le=60,
        ),
    ]
    engines_stop_grace_seconds: Annotated[
        int, setting("Time for an engine to end before it is killed.", unit="seconds", ge=1, le=300)
    ]
    engines_llamacpp_image: Annotated[
        str, setting("llama.cpp's server for the CPU.", pattern=IMAGE)
    ]
    engines_llamacpp_gpu_image: Annotated[
        str, setting("llama.cpp's server for NVIDIA GPUs.", pattern=IMAGE)
    ]
    engines_vllm_image: Annotated[str, setting("vLLM's OpenAI-compatible server.", pattern=IMAGE)]
    engines_ollama_image: Annotated[str, setting("Ollama's server.", pattern=IMAGE)]
    engines_tgi_image: Annotated[
        str, setting("Hugging Face's Text Generation Inference.", pattern=IMAGE)
    ]


def active(engines: list[Engine], models: list[Model], enable: list[str]) -> list[Engine]:
    """Give the engines that are on: enabled, or named by a model that is on."""
    used = {model.engine for model in models if model.enabled or model.name in enable}
    return [engine for engine in engines if engine.enabled or engine.name in used]
