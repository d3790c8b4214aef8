"""Health: the page and the metrics, and the checks that a deploy ends with."""

import time

from pyinfra import host as this_host
from pyinfra import logger
from pyinfra.api import FunctionCommand, StringCommand, operation
from pyinfra.api.deploy import deploy as pyinfra_deploy
from pyinfra.api.host import Host
from pyinfra.api.state import State

from gatehouse.checks import Finding, commands, every, findings
from gatehouse.deploys import Commands
from gatehouse.deploys.facts import Paths, Run, RunAll
from gatehouse.deploys.files import put
from gatehouse.deploys.gateway import Gateway
from gatehouse.deploys.release import remembered
from gatehouse.deploys.unit import started
from gatehouse.deploys.venv import LINK
from gatehouse.render import File
from gatehouse.render import health as render
from gatehouse.settings import Settings

_SOCKET = "gatehouse-health.socket"
_PAGE = "gatehouse-health.service"
_TIMER = "gatehouse-collect.timer"
_ALERTS = "gatehouse-alerts.service"
# LiteLLM calls its database "stalled" for 30 s after one slow lookup (1.108.7,
# PROXY_DB_LOOKUP_STALL_WINDOW_SECONDS); a busy start has some.
_SETTLE_SECONDS = 45
# Where a look takes a minute, what passes by itself takes longer, too.
_LOOKS = 4
_POLL_SECONDS = 3


@pyinfra_deploy("Health")
def deploy(gateway: Gateway) -> None:
    """Show the page, then run every check; a check that does not hold fails the deploy."""
    settings = gateway.settings
    grouped(name="Make the page's group", group=render.GROUP)
    files = render.files(settings)
    put(name="Write the units", files=files)
    gone(name="Remove what is off", paths=_off(files))
    units = render.UNITS
    started(name="Hold the ports", unit=_SOCKET, newer_than=[f"{units}/{_SOCKET}"])
    # A running program does not see that the one it was started from was replaced.
    program = [f"{units}/{_PAGE}", f"{units}/{_SOCKET}", LINK]
    started(name="Show the page", unit=_PAGE, newer_than=program)
    timer = [
        path
        for path in files
        if path.startswith((f"{units}/gatehouse-collect", f"{units}/{_ALERTS}"))
    ]
    started(name="Look again and again", unit=_TIMER, newer_than=timer)
    checked(name="Check the gateway", settings=gateway.settings)
    release = gateway.rendered.release_id
    remembered(
        name="Remember the release as good", release=release, number=settings.deploy_releases
    )


def _off(files: dict[str, File]) -> list[str]:
    """Give what stays behind of alerts that were switched off or given another address."""
    return [path for path in (f"{render.UNITS}/{_ALERTS}", render.ALERTS_URL) if path not in files]


@operation()
def grouped(group: str) -> Commands:
    """Ensure the group that may read the collector's document; nobody is a member."""
    if host_has(group):
        this_host.noop(f"the group {group} is there")
        return
    yield StringCommand("groupadd", "--system", group)


def host_has(group: str) -> bool:
    """Say whether the host knows the group."""
    known = this_host.get_fact(Run, command=f"getent group {group} || true")["out"]
    return any(line.startswith(f"{group}:") for line in known.splitlines())


@operation()
def gone(paths: list[str]) -> Commands:
    """Ensure that these files are not there."""
    there = [path for path in paths if path in this_host.get_fact(Paths, paths=paths)]
    if not there:
        this_host.noop("nothing is there that is off")
        return
    yield StringCommand("rm", "-f", *there)
    yield StringCommand("systemctl daemon-reload")


@operation()
def checked(settings: Settings) -> Commands:
    """Ensure nothing: only look, and fail where a statement about the gateway is not true.

    What passes by itself while it looks again has changed nothing, and is not told as a change.
    """
    failures = _settled(this_host, settings)
    if not failures:
        this_host.noop("every check holds")
        return
    yield FunctionCommand(_fail, [failures], {})


def _look(host: Host, settings: Settings) -> list[Finding]:
    checks = every(settings)
    asked = commands(checks)
    results = host.get_fact(RunAll, commands=asked)
    answers = {
        command: (seen["rc"], seen["out"]) for command, seen in zip(asked, results, strict=False)
    }
    return findings(checks, answers)


def _failures(found: list[Finding]) -> list[str]:
    """Give what to say of what fails, or nothing."""
    lines = [
        line
        for each in found
        if each.state == "failure" and not each.check.past
        for line in (each.line, f"  fix: {each.check.fix}")
    ]
    hushed = [each.check.name for each in found if each.state == "hushed"]
    if lines and hushed:
        lines.append(f"these follow from it: {', '.join(hushed)}")
    return lines


def _say(host: Host, settings: Settings, found: list[Finding]) -> None:
    for each in found:
        if each.state == "warning" or (each.state == "failure" and each.check.past):
            logger.warning(f"{host.print_prefix}{each.line}")
            logger.warning(f"{host.print_prefix}  fix: {each.check.fix}")
    url = f"http://{settings.network_bind_address}:{settings.litellm_port}"
    logger.info(
        f"{host.print_prefix}the gateway answers at {url}, its web interface at {url}/ui "
        f"(user {settings.litellm_admin_user}, password in /etc/gatehouse/secrets/ui_password)"
    )


def _settled(host: Host, settings: Settings) -> list[str]:
    """Give what to say of what fails, after looking again: a start leaves traces that pass.

    Whoever only plans looks once.
    """
    deadline, looks = time.monotonic() + _SETTLE_SECONDS, 0
    while failures := _failures(found := _look(host, settings)):
        looks += 1
        waited = looks >= _LOOKS and time.monotonic() > deadline
        if waited or not host.state.is_executing:
            return failures
        time.sleep(_POLL_SECONDS)
    _say(host, settings, found)
    return []


def _fail(state: State, host: Host, failures: list[str]) -> bool:  # noqa: ARG001 - pyinfra's call
    for line in failures:
        logger.error(f"{host.print_prefix}{line}")
    return False
