"""The variables of the Compose files: the release's `.env`."""

import hashlib
import re
from collections.abc import Iterable, Mapping

from gatehouse.render.machine import Machine
from gatehouse.settings import Settings

_VARIABLE = re.compile(r"\$\{(GATEHOUSE_\w+)")


def variables(settings: Settings, machine: Machine) -> dict[str, str]:
    """Give every variable that the Compose files use, without the hashes; none is a secret."""
    s = settings
    workers = machine.workers(s)
    return {
        "GATEHOUSE_BIND": str(s.network_bind_address),
        "GATEHOUSE_SUBNET": str(s.network_subnet),
        "GATEHOUSE_INNER_SUBNET": str(s.network_inner_subnet),
        "GATEHOUSE_ENGINES_SUBNET": str(s.network_engines_subnet),
        "GATEHOUSE_HOST_ADDRESS": str(s.network_subnet[1]),
        "GATEHOUSE_SECRETS_GID": str(s.secrets_gid),
        "GATEHOUSE_LOG_MAX": f"{s.docker_log_max_mib}m",
        "GATEHOUSE_LOG_FILES": str(s.docker_log_files),
        "GATEHOUSE_POSTGRES_IMAGE": s.postgres_image,
        "GATEHOUSE_POSTGRES_USER": s.postgres_user,
        "GATEHOUSE_POSTGRES_PORT": str(s.postgres_port),
        "GATEHOUSE_POSTGRES_CONNECTIONS": str(s.postgres_connections),
        "GATEHOUSE_POSTGRES_MEMORY": f"{s.postgres_memory_mib}m",
        "GATEHOUSE_POSTGRES_CPUS": machine.cpus(s.postgres_cpus),
        "GATEHOUSE_POSTGRES_PIDS": str(s.postgres_pids),
        "GATEHOUSE_POSTGRES_STOP_GRACE": f"{s.postgres_stop_grace_seconds}s",
        "GATEHOUSE_POSTGRES_START_PERIOD": f"{s.postgres_start_timeout_seconds}s",
        "GATEHOUSE_REDIS_IMAGE": s.redis_image,
        "GATEHOUSE_REDIS_USER": s.redis_user,
        "GATEHOUSE_REDIS_PORT": str(s.redis_port),
        "GATEHOUSE_REDIS_MEMORY": f"{s.redis_memory_mib}m",
        "GATEHOUSE_REDIS_CPUS": machine.cpus(s.redis_cpus),
        "GATEHOUSE_REDIS_PIDS": str(s.redis_pids),
        "GATEHOUSE_REDIS_STOP_GRACE": f"{s.redis_stop_grace_seconds}s",
        "GATEHOUSE_REDIS_START_PERIOD": f"{s.redis_start_timeout_seconds}s",
        "GATEHOUSE_LITELLM_IMAGE": s.litellm_image,
        "GATEHOUSE_LITELLM_USER": s.litellm_user,
        "GATEHOUSE_LITELLM_PORT": str(s.litellm_port),
        "GATEHOUSE_LITELLM_WORKERS": str(workers),
        "GATEHOUSE_LITELLM_WORKER_REQUESTS": str(s.litellm_worker_requests),
        "GATEHOUSE_LITELLM_MEMORY": f"{machine.proxy_memory_mib(s)}m",
        "GATEHOUSE_LITELLM_CPUS": machine.cpus(s.litellm_cpus or float(workers)),
        "GATEHOUSE_LITELLM_PIDS": str(s.litellm_pids),
        "GATEHOUSE_LITELLM_STOP_GRACE": f"{s.litellm_stop_grace_seconds}s",
        "GATEHOUSE_LITELLM_START_PERIOD": f"{s.litellm_start_timeout_seconds}s",
        "GATEHOUSE_LITELLM_ADMIN": s.litellm_admin_user,
        "GATEHOUSE_LITELLM_NO_DOCS": str(not s.litellm_api_docs),
        "GATEHOUSE_LITELLM_MCP_STDIO": str(s.mcp_stdio_allowed).lower(),
    }


def inputs_hash(texts: Iterable[str], values: Mapping[str, str]) -> str:
    """Hash what one service runs with: its files, and the variables that they name.

    A service is recreated exactly when this changes. 16 hexadecimal digits.
    """
    digest = hashlib.sha256()
    for text in texts:
        digest.update(text.encode() + b"\0")
        for name in sorted(set(_VARIABLE.findall(text)) & values.keys()):
            digest.update(f"{name}={values[name]}\0".encode())
    return digest.hexdigest()[:16]


def dotenv(values: Mapping[str, str]) -> str:
    """Write the variables as Compose reads them: single quotes keep `$` and `#` as they are."""
    head = "# Rendered by Gatehouse for Compose; no secret is in here.\n"
    return head + "".join(f"{name}='{value}'\n" for name, value in values.items())
