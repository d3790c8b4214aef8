"""The host's graphics cards: what was found, and whether engines can use them. Pure."""

import re
from dataclasses import dataclass

from gatehouse.settings import Settings

# Printed by HostFact as further `key=value` lines. A driver in trouble may never answer, hence the
# time limits. 0x10de is NVIDIA, 0x03… a display controller or an accelerator.
COMMAND = """
for device in /sys/bus/pci/devices/*; do
    grep -qx 0x10de "$device/vendor" 2>/dev/null && grep -q '^0x03' "$device/class" 2>/dev/null &&
        echo "gpu_pci=${device##*/}"
done
sed -n 's/^NVRM version: /gpu_module=/p' /proc/driver/nvidia/version 2>/dev/null
if command -v nvidia-smi >/dev/null; then
    gpus=$(timeout 30 nvidia-smi --format=csv,noheader,nounits \\
        --query-gpu=index,uuid,name,memory.total,driver_version 2>&1)
    echo "gpu_smi=$?"; printf '%s\\n' "$gpus" | sed 's/^/gpu=/'
fi
nvidia-ctk --version 2>/dev/null | sed -n '1s/^/gpu_toolkit=/p'
"""
_NUMBERS = re.compile(r"\d+(?:\.\d+)+")
_FIELDS = 5
_MEND = 'or set gpu_mode = "none" to run engines on the CPU'


@dataclass(frozen=True)
class Gpu:
    """One card that the driver answers for."""

    index: int
    uuid: str
    name: str
    memory_mib: int


@dataclass(frozen=True)
class Gpus:
    """What a host has of NVIDIA's.

    `pci` are the cards on its bus, driver or not; `cards` those that nvidia-smi lists. `module` is
    the version of the loaded kernel module, `driver` the one that nvidia-smi gives; `trouble` is
    what nvidia-smi says instead of a list, and `installed` whether there is an nvidia-smi at all.
    """

    pci: tuple[str, ...] = ()
    cards: tuple[Gpu, ...] = ()
    module: str = ""
    driver: str = ""
    installed: bool = False
    trouble: str = ""
    toolkit: str = ""

    @property
    def present(self) -> bool:
        """Whether there is a card, in whatever state."""
        return bool(self.pci or self.cards or self.module)


NONE = Gpus()


def read(lines: dict[str, list[str]]) -> Gpus:
    """Read the lines of `COMMAND`, by key."""
    code = next(iter(lines.get("gpu_smi", [])), "")
    said = [line.strip() for line in lines.get("gpu", []) if line.strip()]
    rows = [[word.strip() for word in line.split(",")] for line in said]
    cards = [row for row in rows if len(row) == _FIELDS and row[0].isdigit()]
    good = code == "0" and len(cards) == len(rows)
    return Gpus(
        pci=tuple(lines.get("gpu_pci", [])),
        # A card without memory of its own says [N/A]: it shares the host's.
        cards=tuple(
            Gpu(int(index), uuid, name, int(memory) if memory.isdigit() else 0)
            for index, uuid, name, memory, _ in (cards if good else [])
        ),
        module=_version(lines, "gpu_module"),
        driver=cards[0][4] if good and cards else "",
        installed=bool(code),
        trouble="" if good or not code else " ".join(said) or f"exit code {code}",
        toolkit=_version(lines, "gpu_toolkit"),
    )


def _version(lines: dict[str, list[str]], key: str) -> str:
    found = _NUMBERS.search(" ".join(lines.get(key, [])))
    return found.group() if found else ""


def numbers(version: str) -> tuple[int, ...]:
    """Give a version's numbers, to be compared."""
    return tuple(int(number) for number in re.findall(r"\d+", version))


def card(settings: Settings, found: Gpus) -> str:
    """Decide what engines run on: `nvidia` or `none`."""
    if settings.gpu_mode == "none" or _trouble(settings, found):
        return "none"
    return "nvidia"


def problems(settings: Settings, found: Gpus) -> list[str]:
    """Give the reasons why a host that is to use its card (`gpu_mode = "nvidia"`) cannot."""
    trouble = _trouble(settings, found) if settings.gpu_mode == "nvidia" else ""
    return [trouble] if trouble else []


def warnings(settings: Settings, found: Gpus) -> list[str]:
    """Give what the operator should know where `gpu_mode = "auto"` leaves a card unused."""
    if settings.gpu_mode != "auto" or not found.present:
        return []
    trouble = _trouble(settings, found)
    return [f"engines will run on the CPU: {trouble}"] if trouble else []


def _trouble(settings: Settings, found: Gpus) -> str:
    """Say why the cards cannot be used; an empty text where they can."""
    if not found.present and not found.installed:
        return (
            'gpu_mode = "nvidia", but no NVIDIA card is on this host\'s bus: set gpu_mode = "auto" '
            'or "none"'
        )
    if not found.installed:
        return (
            "there is an NVIDIA card but no driver: install it (Debian: `apt-get install "
            "nvidia-driver` from contrib and non-free; Ubuntu: `ubuntu-drivers install`) and "
            f"reboot, {_MEND}"
        )
    if found.trouble:
        return f"nvidia-smi fails: {found.trouble}; {_cure(found.trouble)}, {_MEND}"
    if not found.cards:
        return f"the driver runs but lists no card (nvidia-smi -L): reboot, {_MEND}"
    if numbers(found.driver) < numbers(settings.gpu_driver_min):
        return (
            f"the NVIDIA driver is {found.driver}, gpu_driver_min is {settings.gpu_driver_min}: "
            f"update the driver and reboot, lower gpu_driver_min, {_MEND}"
        )
    return ""


def _cure(said: str) -> str:
    if "mismatch" in said:
        return "the driver was updated under the running kernel: reboot"
    if "communicate with the NVIDIA driver" in said:
        return (
            "its kernel module is not loaded: reboot, and look at `dkms status` and `dmesg` if it "
            "stays so (Secure Boot refuses a module that is not signed)"
        )
    return "reboot, and look at `dmesg | grep NVRM` if it stays so"
