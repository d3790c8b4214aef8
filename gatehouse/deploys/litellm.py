"""LiteLLM: the gateway, after its database's schema."""

import shlex

from pyinfra import host
from pyinfra.api import StringCommand, operation
from pyinfra.api.deploy import deploy as pyinfra_deploy

from gatehouse.checks.litellm import admin
from gatehouse.deploys import Commands, progress
from gatehouse.deploys.compose import Service, up
from gatehouse.deploys.facts import Run
from gatehouse.deploys.gateway import Gateway
from gatehouse.deploys.release import PYTHON, directory, good, migrates
from gatehouse.render.litellm import seed

_TABLE = (
    "docker exec gatehouse-postgres-1 psql -U litellm -d litellm -Atc "
    "'SELECT model_name FROM \"LiteLLM_ProxyModelTable\"'"
)
_ADMIN = (
    "docker exec gatehouse-postgres-1 psql -U litellm -d litellm -Atc "
    '"SELECT user_role FROM \\"LiteLLM_UserTable\\" WHERE user_id = \'default_user_id\'"'
)


@pyinfra_deploy("LiteLLM")
def deploy(gateway: Gateway) -> None:
    """Bring the database's schema up to date, then have the proxy healthy."""
    rendered = gateway.rendered
    timeout = gateway.settings.litellm_start_timeout_seconds
    migrate, proxy = (
        Service(name, rendered.release_id, rendered.inputs[name], timeout, job=job)
        for name, job in (("litellm-migrate", True), ("litellm", False))
    )
    snapshot(name="Dump the database", release=rendered.release_id, inputs=migrate.inputs)
    up(name="Migrate the database", service=migrate)
    up(name="Have it healthy", service=proxy)
    bootstrapped(name="Have the admin user", command=admin(gateway.settings))
    models = [model["model_name"] for model in seed(gateway.settings, gateway.machine)]
    if models:
        seeded(name="Add new models to the database", release=rendered.release_id, models=models)


@operation()
def snapshot(release: str, inputs: str) -> Commands:
    """Ensure a dump of the database before it is migrated, with LiteLLM stopped.

    So nothing is written that a way back would lose.
    """
    if not good() or not migrates(inputs):
        host.noop("nothing is migrated")
        return
    yield progress.run("dumping the database", f"{PYTHON}.release_database stopped {release}")


@operation()
def bootstrapped(command: str) -> Commands:
    """Ensure that the database knows the admin; LiteLLM adds it when it logs in (`command`)."""
    if host.get_fact(Run, command=_ADMIN)["out"] == "proxy_admin":
        host.noop("the admin is there")
        return
    yield StringCommand(command)


@operation()
def seeded(release: str, models: list[str]) -> Commands:
    """Ensure that the database knows each model; those that it has stay as they are there.

    The table is asked, not the proxy: a worker learns of a new model only half a minute later.
    """
    table = host.get_fact(Run, command=_TABLE)
    if table["rc"]:
        # Before the first deploy; and if it still fails then, it says why.
        yield StringCommand(_TABLE)
    missing = [name for name in models if name not in table["out"].splitlines()]
    if not missing:
        host.noop("the database has every model")
        return
    files = f"{directory(release)}/litellm"
    yield StringCommand(
        f'docker exec -i gatehouse-litellm-1 python3 -c "$(cat {files}/seed.py)" '
        f"{shlex.join(missing)} <{files}/models.json"
    )
