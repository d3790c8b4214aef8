"""Disks that can be filled without harm: small ones in memory, in place of a part of /var."""

FILLER = "/run/small/filler"
FILL = f"dd if=/dev/zero of={FILLER} bs=1M 2>/dev/null; true"
EMPTY = f"rm -f {FILLER}"
# What is left free while nothing fills it: Postgres' own files of 16 MB and some rows.
_SPARE_MIB = 48
# Whatever the gateway, Docker and the journal write under /var while they run. Not there: layers of
# images, which nobody writes to.
_FOLDERS = (
    "/var/lib/docker/volumes",
    "/var/lib/docker/containers",
    "/var/lib/gatehouse",
    "/var/log",
)
# Who writes there. LiteLLM does not, and goes on while the daemon is away (live restore).
_SERVICES = "gatehouse-postgres-1 gatehouse-redis-1"
_STOP = f"""
docker stop {_SERVICES}
systemctl stop docker.socket docker.service"""
_START = f"""
systemctl restart systemd-journald
systemctl start docker.service
docker start {_SERVICES}"""


def _small(folders: str) -> str:
    """Give the commands that put folders onto one small disk; nobody may write meanwhile."""
    return f"""
folders="{folders}"
mkdir -p /run/small /run/kept
size=$(( $(du -smc $folders | tail -n 1 | cut -f 1) + {_SPARE_MIB} ))
mount -t tmpfs -o size=${{size}}m,mode=755 tmpfs /run/small
for folder in $folders; do
    mkdir -p /run/small$folder /run/kept$folder
    mount --bind $folder /run/kept$folder
    cp -a $folder/. /run/small$folder/
    mount --bind /run/small$folder $folder
done"""


def _large(folders: str) -> str:
    """Give the commands that put folders back, with what was written meanwhile."""
    return f"""
{EMPTY}
for folder in {folders}; do
    [ -d /run/small$folder ] && umount -l $folder || exit 1
    find $folder -xdev -mindepth 1 -delete
    cp -a /run/small$folder/. $folder/
    umount /run/kept$folder
done
umount -l /run/small"""


def _volume(service: str) -> str:
    return f"$(docker volume inspect -f '{{{{.Mountpoint}}}}' gatehouse_{service}-data)"


def small_volume(service: str) -> str:
    """Give the commands that put a service's volume onto a small disk."""
    stop, start = f"docker stop gatehouse-{service}-1", f"docker start gatehouse-{service}-1"
    return f"set -e\n{stop}\nvolume={_volume(service)}\n{_small('$volume')}\n{start}"


def large_volume(service: str) -> str:
    """Give the commands that put the volume back."""
    stop, start = f"docker stop gatehouse-{service}-1", f"docker start gatehouse-{service}-1"
    return f"{stop}\nvolume={_volume(service)}\n{_large('$volume')}\n{start}"


SMALL_VAR = f"set -e\n{_STOP}\n{_small(' '.join(_FOLDERS))}\n{_START}"
LARGE_VAR = f"{_STOP}\n{_large(' '.join(_FOLDERS))}\n{_START}"
