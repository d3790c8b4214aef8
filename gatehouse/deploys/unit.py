"""systemd units."""

import shlex

from pyinfra import host
from pyinfra.api import StringCommand, operation

from gatehouse.deploys import Commands
from gatehouse.deploys.facts import Run


@operation()
def started(unit: str, newer_than: list[str]) -> Commands:
    """Ensure that a unit is enabled, runs, and was started after the files that it is made of.

    The restart is decided by what runs, not by what this run wrote, so a deploy that died between
    the two is made good by the next.
    """
    name = shlex.quote(unit)
    files = " ".join(map(shlex.quote, newer_than))
    state = host.get_fact(
        Run,
        command=f"""
systemctl is-enabled --quiet {name} || echo disabled
systemctl is-active --quiet {name} || echo stopped
since=$(systemctl show --timestamp=us+utc -p ActiveEnterTimestamp --value {name})
for file in {files}; do
    [ -n "$(find "$file" -newermt "${{since:-1970-01-01}}" 2>/dev/null)" ] && echo changed
done; true""",
    )["out"].split()
    if not state:
        host.noop(f"{unit} runs")
        return
    yield StringCommand(f"systemctl daemon-reload && systemctl enable {name}")
    yield StringCommand(f"systemctl restart {name}")
