"""Postgres: enough connections, and a place for its data."""

import pytest

from gatehouse.checks.postgres import checks
from tests.given import problems, settings, variables
from tests.unit.test_compose import OWN


@pytest.mark.parametrize(("pool", "server", "fits"), [(80, 100, True), (81, 100, False)])
def test_pool_leaves_connections(pool: int, server: int, *, fits: bool) -> None:
    """20 connections are kept for migrations and for people."""
    found = problems(litellm_pool_connections=pool, postgres_connections=server)
    assert list(found) == ([] if fits else ["litellm_pool_connections"])


def test_workers_have_a_connection_each() -> None:
    """More workers than connections in the pool would make the pool larger than it is set."""
    assert "litellm_workers" in problems(litellm_workers=26)
    assert not problems(litellm_workers=25)


def test_connections_reach_the_server_and_its_check() -> None:
    """The number of connections is told to the server, and the check expects it."""
    assert variables(postgres_connections=200)["GATEHOUSE_POSTGRES_CONNECTIONS"] == "200"
    assert "max_connections=${GATEHOUSE_POSTGRES_CONNECTIONS:?}" in OWN["postgres"]["command"]
    found = {check.name: check for check in checks(settings(postgres_connections=200))}
    assert found["postgres: takes as many connections as set"].expected == "200"


def test_data_outlives_the_container() -> None:
    """The data are in a named volume, where the image keeps them."""
    assert OWN["postgres"]["volumes"] == ["postgres-data:/var/lib/postgresql/data"]


def test_database_has_no_way_out() -> None:
    """The database is on the inner network only."""
    assert OWN["postgres"]["networks"] == OWN["redis"]["networks"] == ["inner"]
