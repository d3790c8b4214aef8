"""Timers: what the host does by itself."""

import shlex

from pyinfra import host
from pyinfra.api import StringCommand, operation
from pyinfra.api.deploy import deploy as pyinfra_deploy

from gatehouse.deploys import Commands
from gatehouse.deploys.facts import Run
from gatehouse.deploys.files import put
from gatehouse.deploys.gateway import Gateway
from gatehouse.render import timers as render


@pyinfra_deploy("Timers")
def deploy(gateway: Gateway) -> None:
    """Have the timers of the jobs that are on, and none of those that are off."""
    jobs = render.active(gateway.settings)
    put(name="Write the units", files=render.files(gateway.settings))
    armed(
        name="Arm the timers",
        timers={render.timer(job): list(render.paths(job)) for job in jobs},
    )
    off = [job for job in render.JOBS if job not in jobs]
    removed(
        name="Remove what is switched off",
        timers={render.timer(job): list(render.paths(job)) for job in off},
    )


@operation()
def armed(timers: dict[str, list[str]]) -> Commands:
    """Ensure that each timer is enabled, runs, and was started after its files were written.

    `timers`: unit → the files that it is made of.
    """
    script = "".join(
        f"""
wrong=
systemctl is-enabled --quiet {unit} && systemctl is-active --quiet {unit} || wrong=yes
since=$(systemctl show --timestamp=us+utc -p ActiveEnterTimestamp --value {unit})
[ -z "$(find {shlex.join(files)} -newermt "${{since:-1970-01-01}}" 2>/dev/null)" ] || wrong=yes
[ -z "$wrong" ] || echo {unit}"""
        for unit, files in timers.items()
    )
    wrong = host.get_fact(Run, command=f"{script}\ntrue")["out"].split()
    if not wrong:
        host.noop(f"{len(timers)} timers run")
        return
    units = shlex.join(timers)
    yield StringCommand(f"systemctl daemon-reload && systemctl enable {units}")
    yield StringCommand(f"systemctl restart {units}")


@operation()
def removed(timers: dict[str, list[str]]) -> Commands:
    """Ensure that these timers and their services are gone."""
    script = "".join(
        f"\nfor file in {shlex.join(files)}; do [ ! -e $file ] || {{ echo {unit}; break; }}; done"
        for unit, files in timers.items()
    )
    found = host.get_fact(Run, command=f"{script}\ntrue")["out"].split()
    there = {unit: files for unit, files in timers.items() if unit in found}
    if not there:
        host.noop("no timer is there that should not be")
        return
    files = shlex.join(path for paths in there.values() for path in paths)
    yield StringCommand(
        f"systemctl disable --now {shlex.join(there)}; rm -f {files} && systemctl daemon-reload"
    )
