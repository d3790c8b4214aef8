"""What is true of every service."""

from gatehouse.checks.check import Check, Result
from gatehouse.checks.docker import ANSWERS, STACK, Containers
from gatehouse.checks.probe import of

_WAIT_SECONDS = 90


def healthy(component: str, *needs: str) -> Check:
    """Give the check that the component's container is healthy."""

    def judge(containers: Containers) -> Result:
        mine = [each for each in containers if each["service"] == component]
        seen = [f"{each['status']} {each['health']}" for each in mine]
        return Result(seen == ["running healthy"], ", ".join(seen) or "no container")

    return Check(
        name=f"{component}: healthy",
        component=component,
        expected="running healthy",
        command=STACK,
        judge=of("containers", judge),
        fix=f"cd /opt/gatehouse/current && docker compose logs --tail 50 {component}",
        needs=(ANSWERS, *needs),
        repair=_start(component),
    )


def _start(component: str) -> str:
    """Start it where it stands still, restart it where it is sick, and wait for its health."""
    name = f"gatehouse-{component}-1"
    state = f"docker inspect -f '{{{{.State.Running}}}} {{{{.State.Health.Status}}}}' {name}"
    return f"""case "$({state})" in
"true starting") ;;
true*) docker restart {name} ;;
*) docker start {name} ;;
esac >/dev/null || exit 1
for i in $(seq {_WAIT_SECONDS}); do
    [ "$({state})" = "true healthy" ] && exit 0
    sleep 1
done
echo "{name} is not healthy after {_WAIT_SECONDS} s"; exit 1"""
