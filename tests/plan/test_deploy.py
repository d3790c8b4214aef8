"""The deploy as pyinfra plans it: what it would do on a bare host, and that it then stays quiet."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.given import PROVIDER_KEY, model, run
from tests.plan.host import Answers, bare, deployed, inventory

ORDER = [
    "Host | Make the groups",
    "Host | Make the directories",
    "Host | Write the settings",
    "Firewall | Install iptables",
    "Firewall | Write the rules",
    "Firewall | Put the rules in force",
    "Firewall | Remove what is off",
    "Docker | Add Docker's package repository",
    "Docker | Install Docker's own packages",
    "Docker | Harden the daemon",
    "Docker | Have the daemon running",
    "Secrets | Make the host's own secrets",
    "Secrets | Take over provider keys",
    "Backup | Install restic",
    "Images | Pull the images",
    "Images | Have images that know the database",
    "The gatehouse command | Have Python",
    "The gatehouse command | Install the command",
    "The gatehouse command | Have it in use",
    "Release | Write the unit of the way back",
    "Release | Have it look at each boot",
    "Release | Write the release",
    "Release | Have LiteLLM read its configuration",
    "Release | Dump the database before its server changes",
    "Release | Make it the current one",
    "Postgres | Make way for changed networks",
    "Postgres | Have it healthy",
    "Redis | Have it healthy",
    "Engines | Remove what is off",
    "Engines | Write the units",
    "Engines | Make the runtime directory",
    "LiteLLM | Dump the database",
    "LiteLLM | Migrate the database",
    "LiteLLM | Have it healthy",
    "LiteLLM | Have the admin user",
    "Keys | Keep what is declared",
    "Timers | Write the units",
    "Timers | Arm the timers",
    "Timers | Remove what is switched off",
    "Metrics | Remove what is off",
    "Health | Make the page's group",
    "Health | Write the units",
    "Health | Remove what is off",
    "Health | Hold the ports",
    "Health | Show the page",
    "Health | Look again and again",
    "Health | Check the gateway",
    "Health | Remember the release as good",
]
# On a bare host there is nothing to take over, no network in the way and no engine to remove.
QUIET = {
    "Firewall | Remove what is off",
    "Images | Have images that know the database",
    "Secrets | Take over provider keys",
    "Postgres | Make way for changed networks",
    "Engines | Remove what is off",
    "Health | Remove what is off",
    "Metrics | Remove what is off",
    "Keys | Keep what is declared",
    "Timers | Remove what is switched off",
    # Nothing serves yet that could be protected.
    "Release | Have LiteLLM read its configuration",
    "Release | Dump the database before its server changes",
    "LiteLLM | Dump the database",
}


def plan(place: Path, answers: Answers, **data: object) -> dict[str, bool]:
    """Give the operations that pyinfra plans, in order, and whether each would change something."""
    inventory(place / "inventory", answers, **data)
    done = run(place, "pyinfra", "inventory", "deploy.py", "--dry", "--json")
    assert done.returncode == 0, done.stderr
    operations: list[dict[str, Any]] = json.loads(done.stdout)["plan"]
    return {operation["name"]: bool(operation["hosts_with_change"]) for operation in operations}


def test_bare_host_gets_everything_in_order(place: Path) -> None:
    """Rules before Docker, Docker before secrets and images, the release before its services."""
    planned = plan(place, bare())
    assert list(planned) == ORDER
    assert {name for name, changes in planned.items() if not changes} == QUIET


def test_deployed_host_is_left_alone(place: Path) -> None:
    """Where all is as it should be, no operation would change anything."""
    planned = plan(place, deployed())
    assert list(planned) == [name for name in ORDER if "package" not in name]
    assert not [name for name, changes in planned.items() if changes]


def test_changed_setting_changes_what_depends_on_it(place: Path) -> None:
    """A smaller cache is a new release and another Redis; nothing else is touched."""
    planned = plan(place, deployed(), redis_maxmemory_mib=128)
    assert {name for name, changes in planned.items() if changes} == {
        "Host | Write the settings",
        "Release | Write the release",
        "Release | Make it the current one",
        "Redis | Have it healthy",
        # Redis still runs with the larger one, and a plan asks it now.
        "Health | Check the gateway",
        "Health | Remember the release as good",
    }


def test_firewall_is_closed_where_it_is_wanted(place: Path) -> None:
    """Its package, its files and its rules come after the rules about neighbours, before Docker."""
    planned = plan(place, {"for c in nft": ["nft", "0"]} | bare(), firewall_enabled=True)
    begin = list(planned).index("Firewall | Put the rules in force")
    assert list(planned)[begin + 1 : begin + 4] == [
        "Firewall | Install nftables",
        "Firewall | Write what may come in",
        "Firewall | Let in only what is allowed",
    ]
    assert planned["Firewall | Let in only what is allowed"]


def test_changed_configuration_is_validated_before_the_switch(place: Path) -> None:
    """LiteLLM reads it where it is new; the database is dumped where a migration will run."""
    planned = plan(place, deployed(), litellm_retries=5)
    assert planned["Release | Have LiteLLM read its configuration"]
    assert not planned["LiteLLM | Dump the database"]
    planned = plan(place, deployed(), litellm_image="ghcr.io/berriai/litellm:v1.108.9")
    assert planned["Release | Dump the database before its server changes"]
    assert planned["LiteLLM | Dump the database"]


def test_database_mode_can_be_planned_on_a_bare_host(place: Path) -> None:
    """Models are added once the proxy is healthy; for a plan it need not run."""
    planned = plan(place, bare(), litellm_config_source="database", models_extra=[model()])
    begin = list(planned).index("LiteLLM | Have it healthy")
    assert list(planned)[begin + 1 : begin + 3] == [
        "LiteLLM | Have the admin user",
        "LiteLLM | Add new models to the database",
    ]


def test_ollama_gets_a_folder_to_write_to(place: Path) -> None:
    """Its folder is made for the user that engines run as, on a host that has an Ollama only."""
    folder = "Engines | Make Ollama's own folder"
    missing = {"pkaction": ["pkaction", "0"], **bare()}
    there = {"stat -c '%F %a %u:%g'": ["directory 755 65534:65534", "0"], **missing}
    for answers, changes in ((missing, True), (there, False)):
        planned = plan(place, answers, models_enable=["chat-mistral-7b-ollama"])
        assert planned[folder] == changes
    assert folder not in plan(place, bare())


def test_engine_below_the_floor_is_replaced_or_kept(place: Path) -> None:
    """An old engine is replaced by Docker's own, and kept where the distribution's is wanted."""
    old = deployed() | {
        "/etc/os-release": [
            *bare()["/etc/os-release"][:-3],
            "engine=26.1.5+dfsg1",
            "compose=2.26.1-4",
        ]
    }
    assert plan(place, old)["Docker | Install Docker's own packages"]
    assert not [
        name
        for name in plan(place, old, docker_source="distribution")
        if name.startswith("Docker | Install")
    ]


@pytest.mark.parametrize(
    ("answers", "reasons"),
    [
        (
            bare(system="fedora 42", system_name="Fedora 42", memory_kib="1048576", ntp="no"),
            ["Fedora 42 is not supported", "1024 MiB of memory", "nobody keeps the clock"],
        ),
        (bare() | {"id -u": ["none"]}, ["not root", "--use-sudo-password"]),
    ],
    ids=["unfit", "without rights"],
)
def test_unfit_host_is_refused_before_any_operation(
    place: Path, answers: Answers, reasons: list[str]
) -> None:
    """Exit code 1 with every reason in plain words, and not one operation ran."""
    inventory(place / "inventory", answers)
    done = run(place, "pyinfra", "inventory", "deploy.py", "-y")
    assert done.returncode == 1
    for reason in reasons:
        assert reason in done.stderr
    assert "Traceback" not in done.stderr
    assert "Starting operation" not in done.stderr


def test_provider_key_shows_nowhere(place: Path) -> None:
    """Not even with every output switched on does pyinfra print a provider key."""
    inventory(place / "inventory", bare())
    done = run(
        place,
        "pyinfra",
        "inventory",
        "deploy.py",
        "-y",
        "-vvv",
        "--debug",
        **{PROVIDER_KEY: "not-shown-0123"},
    )
    output = done.stdout + done.stderr
    assert "Take over provider keys" in output
    assert f"/etc/gatehouse/secrets/providers/{PROVIDER_KEY}" in output
    assert "not-shown-0123" not in output


def test_service_that_does_not_come_up_fails_the_deploy(place: Path) -> None:
    """A container that never appears ends the deploy with exit code 1 and shows its last lines."""
    inventory(place / "inventory", bare())
    done = run(place, "pyinfra", "inventory", "deploy.py", "-y")
    assert done.returncode == 1
    assert "postgres: there is no container. Its last lines:" in done.stderr
    assert "Redis" not in done.stderr.partition("there is no container")[2]


@pytest.mark.parametrize(
    ("says", "changes"),
    [
        (['{"changes": [], "reports": [], "left": []}', "0"], False),
        (['{"changes": ["team ops: make it"], "reports": [], "left": []}', "0"], True),
        (["Error: no such command 'keys'", "2"], True),
        (["no JSON", "0"], True),
    ],
)
def test_declared_keys_are_kept(place: Path, says: list[str], *, changes: bool) -> None:
    """The host is asked what differs from the new settings; where it cannot say, all is redone."""
    answers = {"gatehouse keys declare --plan": says, **deployed()}
    planned = plan(place, answers, keys_teams=[{"name": "ops"}])
    assert planned["Keys | Keep what is declared"] == changes
