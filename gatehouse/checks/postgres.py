"""Postgres."""

from gatehouse.checks.check import Check, equals
from gatehouse.checks.service import healthy
from gatehouse.settings import Settings


def checks(settings: Settings) -> list[Check]:
    """Give the checks of the database."""
    return [
        healthy("postgres"),
        Check(
            name="postgres: takes as many connections as set",
            component="postgres",
            expected=str(settings.postgres_connections),
            command="docker exec gatehouse-postgres-1 sh -c "
            "'PGPASSWORD=$(cat /run/secrets/postgres_password) psql -U litellm -d litellm "
            '-h 127.0.0.1 -Atc "show max_connections"\'',
            judge=equals(str(settings.postgres_connections)),
            fix="deploy again: pyinfra inventory deploy.py",
        ),
    ]
