"""Docker: the daemon is hardened, and so is every container of the stack."""

from gatehouse.checks.check import Check, equals, silent
from gatehouse.settings import Settings

_CONTAINERS = "docker ps -aq --filter label=com.docker.compose.project=gatehouse"
_HARDENED = (
    "{{.HostConfig.ReadonlyRootfs}} {{.HostConfig.CapDrop}} {{.HostConfig.CapAdd}} "
    "{{.HostConfig.SecurityOpt}} {{.HostConfig.Privileged}} {{.HostConfig.NetworkMode | len | lt 4}}"
)


def checks(settings: Settings) -> list[Check]:
    """Give the checks of the engine and of how containers run."""
    return [
        Check(
            name="docker: live restore as set",
            component="docker",
            expected=str(settings.docker_live_restore).lower(),
            command="docker info -f '{{.LiveRestoreEnabled}}'",
            judge=equals(str(settings.docker_live_restore).lower()),
            fix="look at /etc/docker/daemon.json, then: systemctl restart docker",
        ),
        Check(
            name="docker: containers are hardened",
            component="docker",
            expected="read-only, no capabilities, no new privileges, not root, limits set",
            command=f"""
{_CONTAINERS} | xargs -r docker inspect -f '{{{{.Name}}}} {{{{.HostConfig.ReadonlyRootfs}}}} {{{{.HostConfig.CapDrop}}}} {{{{.HostConfig.CapAdd}}}} {{{{.HostConfig.SecurityOpt}}}} {{{{.HostConfig.Privileged}}}}' |
    grep -v ' true \\[ALL\\] \\[\\] \\[no-new-privileges:true\\] false$'
{_CONTAINERS} | xargs -r docker inspect -f '{{{{.Name}}}} user={{{{.Config.User}}}}' | grep -E 'user=(0|root|$)'
{_CONTAINERS} | xargs -r docker inspect -f '{{{{.Name}}}} memory={{{{.HostConfig.Memory}}}} cpus={{{{.HostConfig.NanoCpus}}}} pids={{{{.HostConfig.PidsLimit}}}}' |
    grep -E '=(0|<nil>)( |$)'
{_CONTAINERS} | xargs -r docker inspect -f '{{{{.Name}}}} {{{{range .Mounts}}}}{{{{.Source}}}} {{{{end}}}}' | grep docker.sock; true""",
            judge=silent,
            fix="deploy again: pyinfra inventory deploy.py",
        ),
    ]
