"""An NVIDIA card, read through NVML: other people's processes are counted too."""

import importlib
from typing import Any

from gatehouse.engines.errors import EngineError
from gatehouse.engines.meter import ByProcess, Card


class NvmlMeter(ByProcess):
    """Reads the driver's library; works without root, and without the CUDA runtime."""

    def read(self, gpu_index: int) -> Card:
        """Read what is in use on a card now."""
        # Hosts without a card do not have the binding, and it comes without types.
        try:
            nvml: Any = importlib.import_module("pynvml")
        except ImportError:
            raise EngineError(
                "the Python package nvidia-ml-py is missing: deploy again with "
                "`pyinfra inventory deploy.py`"
            ) from None
        try:
            nvml.nvmlInit()
        except nvml.NVMLError as error:
            raise EngineError(
                f"the NVIDIA driver does not answer ({error}): `nvidia-smi` says more; after an "
                "update of the driver the host wants a reboot"
            ) from None
        try:
            return _read(nvml, gpu_index)
        except nvml.NVMLError as error:
            raise EngineError(
                f"card {gpu_index} cannot be read ({error}): `nvidia-smi -L` lists the cards; the "
                "engine's gpu_index says which to use"
            ) from None
        finally:
            nvml.nvmlShutdown()


def _read(nvml: Any, gpu_index: int) -> Card:  # noqa: ANN401 - the binding has no types
    handle = nvml.nvmlDeviceGetHandleByIndex(gpu_index)
    memory = nvml.nvmlDeviceGetMemoryInfo(handle)
    by_pid: dict[int, int] = {}
    for listed in (
        nvml.nvmlDeviceGetComputeRunningProcesses,
        nvml.nvmlDeviceGetGraphicsRunningProcesses,
    ):
        for process in listed(handle):
            # A process that computes and draws is in both lists with the same figure; the driver
            # gives none at all where it must not say (MIG, WSL).
            mib = (process.usedGpuMemory or 0) // 2**20
            by_pid[process.pid] = max(mib, by_pid.get(process.pid, 0))
    # What the driver keeps for itself is in use as well: total - free, never the plain `used`.
    return Card(memory.total // 2**20, (memory.total - memory.free) // 2**20, by_pid)
