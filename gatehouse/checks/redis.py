"""Redis."""

from gatehouse.checks.check import Check, Result
from gatehouse.checks.service import healthy
from gatehouse.settings import Settings


def checks(settings: Settings) -> list[Check]:  # noqa: ARG001 - every component's signature
    """Give the checks of the cache."""
    return [
        healthy("redis"),
        Check(
            name="redis: refuses without its password",
            component="redis",
            expected="NOAUTH",
            command="docker exec gatehouse-redis-1 redis-cli get anything 2>&1",
            judge=lambda _, output: Result("NOAUTH" in output, output.strip()),
            fix="deploy again: pyinfra inventory deploy.py",
        ),
    ]
