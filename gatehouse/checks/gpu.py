"""The graphics card: the driver answers, and containers that were given a card have it."""

from gatehouse.checks.check import Check, silent
from gatehouse.settings import Settings

# What was deployed decides: with gpu_mode = "auto" a host without a card has nothing to hold true.
_WHERE_USED = """
grep -qE '"card": *"nvidia"' /opt/gatehouse/current/engines/engines.json 2>/dev/null || exit 0
"""
# Prints what is wrong with the CDI specification, if anything. A library's name in it holds the
# version of the driver that it was written for; the kernel's own version is the one that counts.
SPECIFICATION = r"""
specs=$(grep -lsE 'kind"?: *"?nvidia\.com/gpu' /etc/cdi/* /var/run/cdi/*)
[ -n "$specs" ] || echo "no CDI specification of nvidia.com/gpu in /etc/cdi or /var/run/cdi"
driver=$(grep -oE '[0-9]+(\.[0-9]+)+' /proc/driver/nvidia/version 2>/dev/null | head -n 1)
for spec in $specs; do
    written=$(grep -oE 'libcuda\.so\.[0-9]+(\.[0-9]+)+' "$spec" | sort -u | tr '\n' ' ')
    case "$written" in
    "" | *"libcuda.so.$driver "*) ;;
    *) [ -z "$driver" ] || echo "$spec is for ${written% }, the driver is $driver" ;;
    esac
done
"""
_DRIVER = 'said=$(timeout 30 nvidia-smi -L 2>&1) || echo "nvidia-smi: ${said:-no answer in 30 s}"'
# Docker names the devices that it found since 28.2 only; an older one has what its folders hold.
_KNOWN = r"""
info=$(docker info -f '{{json .}}' 2>&1)
case "$info" in
*'"nvidia.com/gpu=all"'*) ;;
*'"DiscoveredDevices":['*) echo "Docker does not know nvidia.com/gpu=all" ;;
*'"CDISpecDirs":["'*) ;;
*) echo "Docker's CDI is off (features.cdi in daemon.json)" ;;
esac
true"""
# 126 and 127: there is no nvidia-smi in the container, so nothing can be said.
_LOST = r"""
[ ! -e /run/gatehouse/gpu-lost.json ] || cat /run/gatehouse/gpu-lost.json
docker ps -q --filter label=com.docker.compose.project=gatehouse |
    xargs -r docker inspect \
        -f '{{.Name}}{{range .HostConfig.DeviceRequests}} {{.Driver}} {{.DeviceIDs}}{{end}}' |
    sed -n 's|^/\([^ ]*\) .*nvidia\.com/gpu.*|\1|p' | while read -r container; do
    said=$(timeout 30 docker exec "$container" nvidia-smi -L 2>&1 </dev/null)
    case $? in 0 | 126 | 127) ;; *) echo "$container: ${said:-no answer}" ;; esac
done
true"""
_PERSISTENCE = """
systemctl cat nvidia-persistenced.service >/dev/null 2>&1 || exit 0
timeout 30 nvidia-smi --query-gpu=index,persistence_mode --format=csv,noheader 2>&1 |
    grep -i disabled
true"""
_CDI_AGAIN = "systemctl restart nvidia-cdi-refresh (or gatehouse-cdi, where that is missing)"


def checks(settings: Settings) -> list[Check]:
    """Give the checks of the cards; none where they are not to be used."""
    if settings.gpu_mode == "none":
        return []
    where = "" if settings.gpu_mode == "nvidia" else _WHERE_USED
    statements = [
        (
            "the driver answers",
            "nvidia-smi lists the cards",
            _DRIVER,
            "run nvidia-smi on the host; after an update of the driver, reboot",
        ),
        (
            "the CDI specification fits the driver",
            "a specification for the driver that runs",
            SPECIFICATION + "true",
            _CDI_AGAIN,
        ),
        (
            "Docker can hand out the cards",
            "Docker knows nvidia.com/gpu=all",
            _KNOWN,
            f"{_CDI_AGAIN}, then deploy again: pyinfra inventory deploy.py",
        ),
        (
            "no container has lost its card",
            "nvidia-smi answers in every container that was given a card",
            _LOST,
            "systemctl start gatehouse-gpu-watch: it gives the engine a new container",
        ),
        (
            "the watchdog is armed",
            "an active timer",
            "systemctl is-active --quiet gatehouse-gpu-watch.timer || "
            "echo gatehouse-gpu-watch.timer is not active",
            "systemctl enable --now gatehouse-gpu-watch.timer",
        ),
        (
            "the driver stays loaded",
            "persistence mode, where the driver's package has nvidia-persistenced",
            _PERSISTENCE,
            "systemctl restart nvidia-persistenced",
        ),
    ]
    return [
        Check(
            name=f"gpu: {name}",
            component="gpu",
            expected=expected,
            command=f"{where}{command}",
            judge=silent,
            fix=fix,
        )
        for name, expected, command, fix in statements
    ]
