"""What runs by itself: it will run again, and it could do its work."""

from gatehouse.checks.check import Check, silent
from gatehouse.settings import Settings


def checks(settings: Settings) -> list[Check]:
    """Give the checks of the jobs that are on; that their units are there is the host's check."""
    jobs = settings.timers_on
    if not jobs:
        return []
    timers = [f"gatehouse-{name}.timer" for name in jobs]
    names = " ".join(jobs)
    return [
        Check(
            name="timers: armed",
            component="timers",
            expected="every timer of the settings active",
            command=f"for timer in {' '.join(timers)}; do "
            "systemctl is-active --quiet $timer || echo $timer; done",
            judge=silent,
            fix=f"systemctl enable --now {' '.join(timers)}",
            needs=("host: units run",),
            repair=f"systemctl enable --now {' '.join(timers)}",
        ),
        Check(
            name="timers: jobs do their work",
            component="timers",
            expected="no job whose last run could not look",
            command=f"for name in {names}; do "
            '[ "$(systemctl show -p ExecMainStatus --value gatehouse-$name.service)" != 2 ] || '
            'echo "gatehouse-$name could not do its work"; done',
            judge=silent,
            fix="gatehouse timers; journalctl -u gatehouse-NAME; systemctl start gatehouse-NAME",
            severity="warning",
            needs=("host: units run",),
        ),
    ]
