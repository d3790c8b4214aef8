"""Docker: the daemon is hardened, and so is every container of the stack."""

from gatehouse.checks.check import Check, equals, silent
from gatehouse.settings import Settings

# Each line prints the containers for which something is not as it should be.
_HARDENED = """
look() { docker ps -aq --filter label=com.docker.compose.project=gatehouse |
    xargs -r docker inspect -f "{{.Name}} $1"; }
look '{{.HostConfig.ReadonlyRootfs}} {{.HostConfig.CapDrop}} {{.HostConfig.CapAdd}}' |
    grep -v ' true \\[ALL\\] \\[\\]$'
look '{{.HostConfig.SecurityOpt}} {{.HostConfig.Privileged}}' |
    grep -v ' \\[no-new-privileges:true\\] false$'
look 'user={{.Config.User}}' | grep -E 'user=(0|root|$)'
look 'memory={{.HostConfig.Memory}} cpus={{.HostConfig.NanoCpus}}' | grep -E '=0( |$)'
look 'pids={{.HostConfig.PidsLimit}}' | grep -E '=(0|<nil>)$'
look '{{range .Mounts}}{{.Source}} {{end}}' | grep docker.sock
true"""


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
            command=_HARDENED,
            judge=silent,
            fix="deploy again: pyinfra inventory deploy.py",
        ),
    ]
