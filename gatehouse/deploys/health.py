"""Health: the deploy ends with the checks, and with what the operator needs to know."""

from itertools import chain, repeat

from pyinfra import host as this_host
from pyinfra import logger
from pyinfra.api import FunctionCommand, operation
from pyinfra.api.deploy import deploy as pyinfra_deploy
from pyinfra.api.host import Host
from pyinfra.api.state import State

from gatehouse.checks import every
from gatehouse.deploys import Commands
from gatehouse.deploys.facts import Run, RunAll
from gatehouse.deploys.gateway import Gateway
from gatehouse.deploys.release import linked
from gatehouse.settings import Settings


@pyinfra_deploy("Health")
def deploy(gateway: Gateway) -> None:
    """Run every check; a check that does not hold fails the deploy."""
    checked(name="Check the gateway", settings=gateway.settings)
    release = gateway.rendered.release_id
    linked(name="Remember the release as good", link="good", release=release)


@operation()
def checked(settings: Settings) -> Commands:
    """Ensure nothing: only look, and fail where a statement about the gateway is not true."""
    failures = []
    checks = every(settings)
    results = this_host.get_fact(RunAll, commands=[check.command for check in checks])
    answers = chain(results, repeat(Run.default()))
    for check, seen in zip(checks, answers, strict=False):
        result = check.judge(seen["rc"], seen["out"])
        if not result.holds:
            failures += [
                f"{check.name}: expected {check.expected}, found {result.found}",
                f"  fix: {check.fix}",
            ]
    if failures:
        yield FunctionCommand(_fail, [failures], {})
        return
    this_host.noop("every check holds")
    url = f"http://{settings.network_bind_address}:{settings.litellm_port}"
    logger.info(
        f"{this_host.print_prefix}the gateway answers at {url}, its web interface at {url}/ui "
        f"(user {settings.litellm_admin_user}, password in /etc/gatehouse/secrets/ui_password)"
    )


def _fail(state: State, host: Host, failures: list[str]) -> bool:  # noqa: ARG001 - pyinfra's call
    for line in failures:
        logger.error(f"{host.print_prefix}{line}")
    return False
