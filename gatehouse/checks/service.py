"""What is true of every service."""

from gatehouse.checks.check import Check, equals

_OF = "docker ps -aq --filter label=com.docker.compose.project=gatehouse"


def healthy(component: str) -> Check:
    """Give the check that the component's container is healthy."""
    return Check(
        name=f"{component}: healthy",
        component=component,
        expected="running healthy",
        command=f"{_OF} --filter label=com.docker.compose.service={component} | "
        "xargs -r docker inspect -f '{{.State.Status}} {{.State.Health.Status}}'",
        judge=equals("running healthy"),
        fix=f"cd /opt/gatehouse/current && docker compose logs --tail 50 {component}",
    )
