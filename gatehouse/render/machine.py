"""What the host is, as far as rendering depends on it."""

from dataclasses import dataclass
from typing import Literal

from gatehouse.settings import Engine, Settings

_ASSUMED_CORES = 4
_ASSUMED_MEMORY_MIB = 16384
_ASSUMED_SSH = frozenset({22})
# What the proxy needs before its first worker: the gunicorn master and one migration.
_BASE_MIB = 512


@dataclass(frozen=True)
class Machine:
    """Cores, memory in MiB, names of the provider keys that the host holds, and NVIDIA GPUs.

    `gpus` counts those that can be used: their driver answers. `ssh_ports`: where sshd listens.
    `bridges`: those whose names begin as Docker's do, and that are not Docker's.
    """

    cores: int = _ASSUMED_CORES
    memory_mib: int = _ASSUMED_MEMORY_MIB
    provider_keys: frozenset[str] = frozenset()
    gpus: int = 0
    ssh_ports: frozenset[int] = _ASSUMED_SSH
    bridges: frozenset[str] = frozenset()

    def card(self, settings: Settings) -> Literal["nvidia", "none"]:
        """Tell what engines run on where they have the choice."""
        wanted = settings.gpu_mode == "nvidia" or (settings.gpu_mode == "auto" and self.gpus > 0)
        return "nvidia" if wanted else "none"

    def engine_memory_mib(self, engine: Engine) -> int:
        """Give the memory limit of an engine in MiB, as set or three quarters of the machine's."""
        return engine.ram_mib or (self.memory_mib * 3) // 4

    def workers(self, settings: Settings) -> int:
        """Give the number of workers: as set, within cores and half of the memory, at least 1."""
        cores = settings.host_cpu_cores or self.cores
        memory = (settings.host_memory_mib or self.memory_mib) // 2 - _BASE_MIB
        fitting = memory // settings.litellm_worker_memory_mib
        return max(1, min(settings.litellm_workers, cores, fitting))

    def proxy_memory_mib(self, settings: Settings) -> int:
        """Give the memory limit of the proxy in MiB, which grows with its workers."""
        return _BASE_MIB + self.workers(settings) * settings.litellm_worker_memory_mib

    def cpus(self, wanted: float) -> str:
        """Give a CPU limit that this machine has: Docker refuses one above its cores."""
        return f"{min(wanted, float(self.cores)):g}"
