"""The host: group, directories, and the settings that it was made with."""

from pyinfra import host
from pyinfra.api import StringCommand, operation
from pyinfra.api.deploy import deploy as pyinfra_deploy

from gatehouse.deploys import Commands
from gatehouse.deploys.facts import Paths, Run
from gatehouse.deploys.files import put
from gatehouse.deploys.gateway import Gateway

# Path → mode and whether the group is the readers' (else root's).
DIRECTORIES = {
    "/opt/gatehouse": ("755", False),
    "/opt/gatehouse/releases": ("755", False),
    "/etc/gatehouse": ("750", True),
    "/etc/gatehouse/secrets": ("700", False),
    "/var/lib/gatehouse": ("750", True),
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
    directories(name="Make the directories", readers=settings.host_group)
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
def directories(readers: str) -> Commands:
    """Ensure that each directory exists with its owner and mode."""
    found = host.get_fact(Paths, paths=list(DIRECTORIES))
    right = True
    for path, (mode, for_readers) in DIRECTORIES.items():
        group = readers if for_readers else "root"
        stat = found.get(path)
        if stat and (stat.kind, stat.mode, stat.owner, stat.group) == (
            "directory",
            mode,
            "root",
            group,
        ):
            continue
        right = False
        yield StringCommand("install", "-d", "-o", "root", "-g", group, "-m", mode, path)
    if right:
        host.noop("the directories are as they should be")
