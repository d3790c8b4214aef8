"""What tests start from: the shipped defaults, changed here and there, and what they give."""

import copy
import functools
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import yaml

from gatehouse.render import Machine, Rendered, render
from gatehouse.render.template import ROOT
from gatehouse.settings import Invalid, Settings, defaults, validate

PROVIDER_KEY = "OLLAMA_API_KEY"
MACHINE = Machine(cores=8, memory_mib=32768)
# What HostFact prints on a workstation that has everything but Docker.
BARE_HOST = """\
system=debian 13
system_name=Debian GNU/Linux 13 (trixie)
systemd=yes
cores=8
memory_kib=33554432
disk_path=/var/lib
disk_kib=104857600
ntp=yes
listener=LISTEN 0      128          0.0.0.0:22         0.0.0.0:*    users:(("sshd",pid=1,fd=3))
engine=
compose=
secrets_group=
"""


@functools.cache
def _defaults() -> dict[str, Any]:
    return defaults(ROOT / "group_data/all.py")


def values(**changes: object) -> dict[str, Any]:
    """Give the plain values of all settings, with changes."""
    return copy.deepcopy(_defaults()) | changes


def settings(**changes: object) -> Settings:
    """Give valid settings."""
    return validate(values(**changes))


def problems(**changes: object) -> dict[str, str]:
    """Give key → message of what is wrong with the changed settings."""
    try:
        validate(values(**changes))
    except Invalid as invalid:
        found: dict[str, str] = {}
        for problem in invalid.problems:
            found[problem.key] = "\n".join(filter(None, [found.get(problem.key), problem.message]))
        return found
    return {}


def rendered(machine: Machine = MACHINE, /, **changes: object) -> Rendered:
    """Render everything."""
    return render(settings(**changes), machine)


def proxy(machine: Machine = MACHINE, /, **changes: object) -> dict[str, Any]:
    """Give LiteLLM's configuration as LiteLLM reads it."""
    text = rendered(machine, **changes).release["litellm/config.yaml"].content
    config: dict[str, Any] = yaml.safe_load(text)
    return config


def variables(machine: Machine = MACHINE, /, **changes: object) -> dict[str, str]:
    """Give the variables of the Compose files."""
    lines = rendered(machine, **changes).release[".env"].content.splitlines()
    pairs = (line.split("=", 1) for line in lines if not line.startswith("#"))
    return {name: value.strip("'") for name, value in pairs}


def model(name: str = "chat-mine-vllm", /, **fields: object) -> dict[str, Any]:
    """Give one entry of `models_extra`."""
    return {
        "name": name,
        "backend": "hosted_vllm/mine",
        "api_base": "http://host.docker.internal:8000/v1",
    } | fields


def checkout(path: Path) -> Path:
    """Make a checkout that can be written to, of links to this one."""
    for name in (
        "compose",
        "config.py",
        "deploy.py",
        "docs",
        "gatehouse",
        "group_data",
        "templates",
    ):
        (path / name).symlink_to(ROOT / name)
    (path / "inventory").write_text('workstation = ["@local"]\n')
    return path


def run(cwd: Path, *command: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run `python -m COMMAND` in a checkout, without provider keys of the person who tests."""
    inherited = {key: value for key, value in os.environ.items() if key != PROVIDER_KEY}
    return subprocess.run(
        [sys.executable, "-m", *command],
        cwd=cwd,
        env=inherited | {"PYINFRA_PROGRESS": "off"} | environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
