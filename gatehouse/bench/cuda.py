"""Processes that hold memory of a card: CUDA's driver library and nothing else."""

import ctypes
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

_OK = 0
_SECONDS = 60.0


class CardError(Exception):
    """It could not be measured; the text says why."""


@contextmanager
def holding(gpu: int, mib: int) -> Iterator[int]:
    """Have a process that holds so much memory of the card; gives its id."""
    environment = os.environ | {
        # As NVML counts; CUDA itself would begin with the fastest card.
        "CUDA_DEVICE_ORDER": "PCI_BUS_ID",
        "CUDA_VISIBLE_DEVICES": str(gpu),
    }
    process = subprocess.Popen(
        [sys.executable, "-m", "gatehouse.bench.cuda", str(mib)],
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        # It says `ready`, or ends and so closes its output.
        if process.stdout is None or process.stdout.readline() != "ready\n":
            raise CardError(f"{mib} MiB could not be allocated on card {gpu}, see above")
        yield process.pid
    finally:
        process.communicate(timeout=_SECONDS)


def hold(mib: int) -> int:
    """Allocate on the first card that is visible, say `ready`, and hold until the input ends."""
    try:
        cuda = ctypes.CDLL("libcuda.so.1")
    except OSError as error:
        raise CardError(f"the driver's CUDA library is not there ({error})") from error
    device, context, pointer = ctypes.c_int(), ctypes.c_void_p(), ctypes.c_uint64()

    def call(name: str, *arguments: object) -> None:
        code = getattr(cuda, name)(*arguments)
        if code != _OK:
            raise CardError(f"{name} failed with CUDA's error {code}")

    call("cuInit", ctypes.c_uint(0))
    call("cuDeviceGet", ctypes.byref(device), ctypes.c_int(0))
    call("cuDevicePrimaryCtxRetain", ctypes.byref(context), device)
    call("cuCtxSetCurrent", context)
    call("cuMemAlloc_v2", ctypes.byref(pointer), ctypes.c_size_t(mib * 2**20))
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    # The driver takes everything back when the process ends, however it ends.
    sys.stdin.read()
    return 0


if __name__ == "__main__":
    try:
        sys.exit(hold(int(sys.argv[1])))
    except CardError as error:
        sys.exit(str(error))
