"""The host: group, directories, and the settings that it was made with."""

from pyinfra import host
from pyinfra.api import StringCommand, operation
from pyinfra.api.deploy import deploy as pyinfra_deploy

from gatehouse.deploys import Commands
from gatehouse.deploys.facts import Paths, Run
from gatehouse.deploys.files import put
from gatehouse.deploys.gateway import Gateway

READERS = "the readers' group"
# Path → mode, owner, group.
DIRECTORIES = {
    "/opt/gatehouse": ("755", "root", "root"),
    "/opt/gatehouse/releases": ("755", "root", "root"),
    "/etc/gatehouse": ("750", "root", READERS),
    "/etc/gatehouse/secrets": ("700", "root", "root"),
    "/etc/gatehouse/keys": ("700", "root", "root"),
    "/var/lib/gatehouse": ("750", "root", READERS),
    "/var/lib/gatehouse/backup": ("700", "root", "root"),
    "/var/lib/gatehouse/engines": ("750", "root", READERS),
    "/var/lib/gatehouse/state": ("750", "root", READERS),
    "/var/lib/gatehouse/releases": ("700", "root", "root"),
    "/var/lib/gatehouse/snapshots": ("700", "root", "root"),
}


@pyinfra_deploy("Host")
def deploy(gateway: Gateway) -> None:
    """Make the groups and directories, and keep the settings where people may read them."""
    settings = gateway.settings
    groups(
        name="Make the groups",
        readers=settings.host_group,
        secrets_gid=settings.secrets_gid,
    )
    wanted = {
        path: (mode, owner, settings.host_group if group is READERS else group)
        for path, (mode, owner, group) in DIRECTORIES.items()
    }
    directories(name="Make the directories", wanted=wanted)
    path = "/etc/gatehouse/settings.json"
    put(name="Write the settings", files={path: gateway.rendered.files[path]})


@operation()
def groups(readers: str, secrets_gid: int) -> Commands:
    """Ensure the readers' group, and the containers' group with its fixed number."""
    wanted = {readers: "", "gatehouse-secrets": f"-g {secrets_gid}"}
    known = host.get_fact(Run, command=f"getent group {readers} gatehouse-secrets || true")["out"]
    numbers = {line.split(":")[0]: line.split(":")[2] for line in known.splitlines()}
    numbers_wrong = numbers.get("gatehouse-secrets", str(secrets_gid)) != str(secrets_gid)
    for group, number in wanted.items():
        if group not in numbers:
            yield StringCommand("groupadd", "--system", number, group)
    if numbers_wrong:
        yield StringCommand("groupmod", "-g", str(secrets_gid), "gatehouse-secrets")
    if not wanted.keys() - numbers.keys() and not numbers_wrong:
        host.noop("the groups are there")


@operation()
def directories(wanted: dict[str, tuple[str, str, str]]) -> Commands:
    """Ensure that each directory exists; `wanted` is path → mode, owner, group."""
    found = host.get_fact(Paths, paths=list(wanted))
    right = True
    for path, (mode, owner, group) in wanted.items():
        stat = found.get(path)
        if stat and (stat.kind, stat.mode, stat.owner, stat.group) == (
            "directory",
            mode,
            owner,
            group,
        ):
            continue
        right = False
        yield StringCommand("install", "-d", "-o", owner, "-g", group, "-m", mode, path)
    if right:
        host.noop("the directories are as they should be")
