"""How long services take to start on this host: what an upgrade's preview says of its downtime."""

from pyinfra.api.host import Host

from gatehouse.deploys.facts import Run
from gatehouse.probes.upgrade import STARTS

_KEPT = 60


def record(host: Host, service: str) -> None:
    """Write down for how long a service has been starting until now; a failure is no matter."""
    host.get_fact(
        Run,
        command=f"""
began=$(docker inspect -f '{{{{.State.StartedAt}}}}' gatehouse-{service}-1) || exit 1
image=$(docker inspect -f '{{{{.Config.Image}}}}' gatehouse-{service}-1) || exit 1
seconds=$(( $(date +%s) - $(date -d "$began" +%s) ))
{{ tail -n {_KEPT} {STARTS} 2>/dev/null
printf '{{"service":"{service}","seconds":%d,"image":"%s","at":%d}}\\n' \
"$seconds" "$image" "$(date +%s)"; }} >{STARTS}.new &&
chmod 640 {STARTS}.new && chgrp --reference=/var/lib/gatehouse {STARTS}.new &&
mv {STARTS}.new {STARTS}""",
    )
