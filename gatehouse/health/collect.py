"""Root's collector: look at everything once, write one document, listen to nobody.

`python -m gatehouse.health.collect`, started by gatehouse-collect.timer.
"""

import sys
import time

from gatehouse.engines.host import Host
from gatehouse.health import gather, usage
from gatehouse.health.document import Document, write
from gatehouse.settings import Settings
from gatehouse.tool import here
from gatehouse.tool.errors import CannotLookError
from gatehouse.version import version


def collect(settings: Settings) -> Document:
    """Gather every part."""
    began = time.time()
    troubles: dict[str, str] = {}
    host = Host()
    status = gather.part("status", lambda: gather.status(settings), troubles)
    release = gather.part("release", gather.release, troubles)
    engines = gather.part("engines", lambda: gather.engines(host), troubles)
    return Document(
        host=gather.hostname(),
        gatehouse=version(),
        release=release[0] if release else None,
        release_since=release[1] if release else None,
        gathered=began,
        interval_seconds=settings.health_interval_seconds,
        status=status,
        engines=engines,
        pools=gather.part("pools", lambda: gather.pools(host), troubles) or [],
        spaces=gather.part("spaces", gather.spaces, troubles) or [],
        usage=gather.part("usage", usage.last_day, troubles),
        keys=gather.part("keys", gather.keys, troubles),
        actions=gather.part("actions", gather.actions, troubles),
        timers=gather.part("timers", gather.timers, troubles),
        jobs=gather.part("jobs", gather.jobs, troubles) or [],
        backups=gather.part("backups", lambda: gather.backups(settings), troubles),
        alerts=gather.part("alerts", lambda: gather.alerts(settings.alerts_url), troubles),
        troubles=troubles,
        seconds=round(time.time() - began, 3),
    )


def main() -> int:
    """Gather and write; 2 where that cannot be."""
    try:
        write(collect(here.settings()))
    except (CannotLookError, OSError) as error:
        print(f"gatehouse-collect: {error}", file=sys.stderr)  # noqa: T201 - the journal
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
