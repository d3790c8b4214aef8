"""The hosts that are looked at: those that `--hosts` names, else the run's own workstation."""

import shlex
from collections.abc import Iterator
from dataclasses import dataclass

import pytest
import testinfra
from testinfra.host import Host

from gatehouse.checks import Finding, commands, every, findings
from gatehouse.commands.hosts import hosts
from gatehouse.deploys.facts import RunAll
from gatehouse.images import lock_of, pinned
from gatehouse.lab.common import ROOT
from gatehouse.settings import Settings, validate
from tests.agent import AGENT as CLIENT
from tests.gateway import Gateway
from tests.given import values

LAB = "lab"
# Runs one statement in the gateway's database; the statement follows as one word.
SQL = (
    "docker exec gatehouse-postgres-1 sh -c 'PGPASSWORD=$(cat /run/secrets/postgres_password) "
    'exec psql -h 127.0.0.1 -U litellm -d litellm -Atc "$1"\' sh'
)


@dataclass(frozen=True)
class Target:
    """One host: its name in the inventory, how testinfra reaches it, and the operator's settings."""

    name: str
    spec: str
    ssh_config: str | None
    settings: Settings


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run every test for every host, and the test of the checks for every check of each."""
    if "target" not in metafunc.fixturenames:
        return
    specs = (metafunc.config.option.hosts or LAB).split(",")
    ids = specs if len(specs) > 1 else [pytest.HIDDEN_PARAM]
    metafunc.parametrize("target", specs, ids=ids, indirect=True, scope="session")
    if "check_name" in metafunc.fixturenames:
        # In the order of the checks, each once; hosts with other ports have other names.
        names = dict.fromkeys(name for spec in specs for name in _checks(metafunc.config, spec))
        metafunc.parametrize("check_name", names)


def _checks(config: pytest.Config, spec: str) -> list[str]:
    settings = validate(values()) if spec == LAB else _settings(_inventory(config), _name(spec))
    return [check.name for check in every(settings)]


def _inventory(config: pytest.Config) -> str:
    inventory = config.getoption("inventory")
    if not inventory:
        raise pytest.UsageError("--hosts needs --inventory: `gatehouse verify` gives both")
    return str(inventory)


def _name(spec: str) -> str:
    """Give the host's name in the inventory: `ssh://big?sudo=true` is `big`."""
    name = spec.partition("://")[2].partition("?")[0]
    return "@local" if spec.startswith("local:") else name


def _settings(inventory: str, name: str) -> Settings:
    named = validate(hosts(inventory)[name])
    return pinned(named, lock_of(named))


@pytest.fixture(scope="session")
def target(request: pytest.FixtureRequest) -> Target:
    """Give the host that is looked at."""
    spec = request.param
    if spec != LAB:
        settings = _settings(_inventory(request.config), _name(spec))
        return Target(_name(spec), spec, request.config.getoption("ssh_config"), settings)
    access = request.getfixturevalue("workstation").access
    settings = _settings(str(access.inventory.relative_to(ROOT)), access.name)
    sudo = "" if access.user == "root" else "?sudo=true"
    return Target(access.name, f"ssh://{access.name}{sudo}", str(access.ssh_config), settings)


@pytest.fixture(scope="session")
def host(target: Target) -> Host:
    """Give testinfra's view of it, as root."""
    return testinfra.get_host(target.spec, ssh_config=target.ssh_config)


@pytest.fixture(scope="session")
def settings(target: Target) -> Settings:
    """Give what the operator wants of it."""
    return target.settings


@pytest.fixture(scope="session")
def checked(host: Host, settings: Settings) -> dict[str, Finding]:
    """Give what every check has found, from one command."""
    checks = every(settings)
    everything, asked = RunAll(), commands(every(settings))
    seen = everything.process(host.run(everything.command(asked)).stdout.split("\n"))
    pairs = zip(asked, seen, strict=True)
    answers = {command: (each["rc"], each["out"]) for command, each in pairs}
    return {each.check.name: each for each in findings(checks, answers)}


@pytest.fixture(scope="session")
def gateway(host: Host) -> Iterator[Gateway]:
    """Give a client of the gateway; the keys that it kept and what it is accounted for go again."""
    client = Gateway(host)
    yield client
    client.forget()
    rows = f"delete from \"LiteLLM_SpendLogs\" where metadata->>'user_agent' = '{CLIENT}'"
    host.check_output(SQL + " " + shlex.quote(rows))


def lines(host: Host, command: str) -> list[str]:
    """Give the lines that a command prints on the host."""
    return str(host.check_output(command)).splitlines()
