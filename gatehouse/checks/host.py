"""The host: directories, modes and owners."""

from gatehouse.checks.check import Check, equals, silent
from gatehouse.settings import Settings

_AGAIN = "deploy again: pyinfra inventory deploy.py"


def checks(settings: Settings) -> list[Check]:
    """Give the checks of directories."""
    group = settings.host_group
    wanted = {
        "/opt/gatehouse": "755 root root",
        "/opt/gatehouse/releases": "755 root root",
        "/etc/gatehouse": f"750 root {group}",
        "/etc/gatehouse/secrets": "700 root root",
        "/etc/gatehouse/secrets/providers": "750 root gatehouse-secrets",
        "/var/lib/gatehouse": f"750 root {group}",
        "/var/lib/gatehouse/engines": f"750 root {group}",
        "/var/lib/gatehouse/state": f"750 root {group}",
    }
    return [
        *(
            Check(
                name=f"host: {path}",
                component="host",
                expected=expected,
                command=f"stat -c '%a %U %G' {path}",
                judge=equals(expected),
                fix=_AGAIN,
            )
            for path, expected in wanted.items()
        ),
        Check(
            name="host: nothing is writable for everybody",
            component="host",
            expected="no such path",
            command="find /opt/gatehouse /etc/gatehouse /var/lib/gatehouse ! -type l -perm -o+w",
            judge=silent,
            fix="chmod o-w on the paths that are listed",
        ),
    ]
