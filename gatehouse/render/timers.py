"""What the host does by itself: one table of jobs, a service and a timer for each."""

from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Literal

from gatehouse.render.file import File
from gatehouse.render.template import template
from gatehouse.settings import Settings

UNITS = "/etc/systemd/system"
_MINUTE, _HOUR = 60, 3600


@dataclass(frozen=True)
class Job:
    """One command that runs now and then.

    `reach` is whom it may talk to: the gateway of this host; anybody; or everything on the host
    that the checks look at; or Docker and the place of the backups. `missed`: what was missed while
    the host was off is done when it is back. Runs are spread over `delay_seconds`, the same moment
    every time on one host.
    """

    name: str
    what: str
    command: str
    reach: Literal["gateway", "anybody", "host", "backup"]
    delay_seconds: int
    timeout_seconds: int
    missed: bool = True
    # What systemd-analyze calls its exposure, at most.
    exposure: float = 2.0
    # Folders that it writes to, besides the state's.
    writes: tuple[str, ...] = ()
    # What is done when it has ended, however it did.
    after: str = ""


JOBS = (
    Job(
        name="status",
        what="look whether this host is what it was made to be",
        command="status --record",
        reach="host",
        delay_seconds=20,
        timeout_seconds=3 * _MINUTE,
        missed=False,
        # Docker's socket, the capabilities and the devices that the checks need.
        exposure=3.0,
    ),
    Job(
        name="inventory",
        what="note which models came and went",
        command="inventory --record",
        reach="gateway",
        delay_seconds=5 * _MINUTE,
        timeout_seconds=2 * _MINUTE,
        missed=False,
    ),
    Job(
        name="probe",
        what="ask models that are awake what they can do",
        command="probe --record",
        reach="gateway",
        delay_seconds=_HOUR,
        timeout_seconds=30 * _MINUTE,
    ),
    Job(
        name="smoke",
        what="try the gateway as a client would",
        command="smoke --record",
        reach="gateway",
        delay_seconds=_HOUR,
        timeout_seconds=10 * _MINUTE,
    ),
    Job(
        name="keys",
        what="look for keys that end, and rotate those marked so",
        command="keys check --record --rotate",
        reach="gateway",
        delay_seconds=_HOUR,
        timeout_seconds=10 * _MINUTE,
        writes=("/etc/gatehouse/keys",),
    ),
    Job(
        name="knowledge",
        what="fetch what is known of prices and context lengths",
        command="knowledge refresh",
        reach="anybody",
        delay_seconds=6 * _HOUR,
        timeout_seconds=5 * _MINUTE,
    ),
    Job(
        name="backup",
        what="make a backup, and read a part of the repository again",
        command="backup now --record",
        reach="backup",
        delay_seconds=_HOUR,
        timeout_seconds=12 * _HOUR,
        writes=("/run/gatehouse",),
    ),
    Job(
        name="drill",
        what="restore the newest backup into a scratch database",
        command="drill --record",
        reach="backup",
        delay_seconds=_HOUR,
        timeout_seconds=12 * _HOUR,
        writes=("/run/gatehouse",),
        # Where somebody else's drill is at work, the server is its.
        after="flock --nonblock /run/gatehouse/drill.lock "
        "docker rm --force --volumes gatehouse-drill-1 >/dev/null 2>&1",
    ),
)


def timer(job: Job) -> str:
    """Give the name of a job's timer."""
    return f"gatehouse-{job.name}.timer"


def paths(job: Job) -> tuple[str, str]:
    """Give the paths of a job's timer and service."""
    return f"{UNITS}/gatehouse-{job.name}.timer", f"{UNITS}/gatehouse-{job.name}.service"


def active(settings: Settings) -> list[Job]:
    """Give the jobs that run on a host with these settings."""
    return [job for job in JOBS if job.name in settings.timers_on]


def when(job: Job, settings: Settings) -> str:
    """Give a job's calendar expression."""
    return str(getattr(settings, f"timers_{job.name}"))


def files(settings: Settings) -> dict[str, File]:
    """Give the units of the jobs that run, by absolute path."""
    bound = settings.network_bind_address
    # The gateway is asked there, if it does not listen on the loopback address.
    address = None if bound.is_loopback or bound.is_unspecified else bound
    # A repository that does not exist yet is made by the first backup, in the folder above it.
    repository = PurePosixPath(settings.backup_repository)
    folder = repository.parent if settings.backup_local else None
    found: dict[str, File] = {}
    for job in active(settings):
        of_timer, of_service = paths(job)
        found[of_timer] = File(template("timers/job.timer", job=job, when=when(job, settings)))
        found[of_service] = File(
            template(
                "timers/job.service", job=job, settings=settings, address=address, folder=folder
            )
        )
    return found
