"""All checks, in the order in which one depends on the other."""

from gatehouse.checks import (
    backup,
    docker,
    engines,
    firewall,
    gpu,
    health,
    host,
    keys,
    litellm,
    metrics,
    network,
    postgres,
    privacy,
    redis,
    secrets,
)
from gatehouse.checks.check import Check
from gatehouse.settings import Settings


def every(settings: Settings) -> list[Check]:
    """Give the checks of a host with these settings."""
    return [
        *host.checks(settings),
        *secrets.checks(settings),
        *docker.checks(settings),
        *firewall.checks(settings),
        *network.checks(settings),
        *postgres.checks(settings),
        *redis.checks(settings),
        *gpu.checks(settings),
        *engines.checks(settings),
        *health.checks(settings),
        *litellm.checks(settings),
        *metrics.checks(settings),
        *keys.checks(settings),
        *privacy.checks(settings),
        *backup.checks(settings),
    ]
