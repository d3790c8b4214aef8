"""`python -m gatehouse.bench`: measure deploys, checks, backups, the gateway and engines.

Exit code 0: the limits and aims were reached; 1: one was not; 2: it could not be measured.
"""

import argparse
import os
import sys
import textwrap
from collections.abc import Callable, Mapping, Sequence

from docker.errors import DockerException

from gatehouse.bench import backup, cold, deploy, gateway, overhead, status
from gatehouse.bench.contestants import Contestant, contestants, workers
from gatehouse.bench.station import Deploy, provision, station
from gatehouse.bench.table import Report
from gatehouse.lab import images, models
from gatehouse.lab.common import LabError
from gatehouse.lab.engine import engine
from gatehouse.lab.images import LabImages
from gatehouse.lab.progress import Progress
from gatehouse.lab.workstation import Workstation

NOTE = """\
Client, model server, database and the gateway's {workers} worker(s) share the {cores} cores of
this machine: the ratios mean more than the figures, and more cores let the workers gain more. The
stock start has one worker, as LiteLLM's quickstart starts it. Both run the same image against the
same database, which virtual keys need. The prompts vary, so no cache answers. The two are
measured in turns; the other one idles meanwhile and writes its log of requests when it is due."""
PARTS = ("deploy", "status", "gateway", "overhead", "engines", "backup")


def main(arguments: list[str] | None = None) -> int:
    """Run the parts that are asked for."""
    options = _parser().parse_args(arguments)
    progress = Progress()
    try:
        return 0 if _run(options, progress) else 1
    except LabError as error:
        progress.say(f"error: {error}")
    except DockerException as error:
        progress.say(f"error: the Docker engine says: {error}")
    except KeyboardInterrupt:
        progress.say("stopped")
    return 2


def _run(options: argparse.Namespace, progress: Progress) -> bool:
    parts = options.only or PARTS
    found = images.ensure(engine(progress), progress)
    held = []
    if set(parts) != {"engines"}:
        held += _gateway_alone(parts, options, found, progress)
    if "engines" in parts:
        with station(found, progress, keep=options.keep, more=cold.settings()) as workstation:
            models.install(workstation, progress)
            with progress.step("a deploy with an engine"):
                provision(workstation)
            held.append(_show(cold.run(workstation, progress, rounds=options.rounds)))
    return all(held)


def _gateway_alone(
    parts: Sequence[str], options: argparse.Namespace, found: LabImages, progress: Progress
) -> list[bool]:
    """Measure on a gateway without engines."""
    fresh: list[Deploy] = []
    deploys = options.rounds if "deploy" in parts else 1
    # The last one stays for what comes after the deploys.
    for number in range(1, deploys):
        with (
            station(found, progress, keep=False) as workstation,
            progress.step(f"fresh deploy {number} of {deploys}"),
        ):
            fresh.append(provision(workstation))
    held = []
    with station(found, progress, keep=options.keep) as workstation:
        with progress.step(f"fresh deploy {deploys} of {deploys}"):
            fresh.append(provision(workstation))
        if "deploy" in parts:
            held.append(_show(deploy.run(workstation, fresh, progress, rounds=options.rounds)))
        if "status" in parts:
            held.append(_show(status.run(workstation, progress, rounds=options.rounds)))
        if "backup" in parts:
            size = options.megabytes
            held.append(
                _show(backup.run(workstation, progress, rounds=options.rounds, megabytes=size))
            )
        if "gateway" in parts or "overhead" in parts:
            note = NOTE.format(workers=workers(workstation), cores=os.cpu_count())
            _show(Report(textwrap.fill(note, 100), held=True))
            with contestants(workstation, found, progress) as everybody:
                held += _under_load(parts, options, workstation, everybody, progress)
    return held


def _under_load(
    parts: Sequence[str],
    options: argparse.Namespace,
    workstation: Workstation,
    everybody: Mapping[str, Contestant],
    progress: Progress,
) -> list[bool]:
    held = []
    if "gateway" in parts:
        report = gateway.run(
            workstation,
            everybody,
            progress,
            rounds=options.rounds,
            seconds=options.duration,
            connections=options.connections,
        )
        held.append(_show(report))
    if "overhead" in parts:
        report = overhead.run(
            workstation,
            everybody,
            progress,
            rounds=options.rounds,
            seconds=options.duration / 2,
        )
        held.append(_show(report))
    return held


def _show(report: Report) -> bool:
    sys.stdout.write(f"\n{report.text}\n")
    sys.stdout.flush()
    return report.held


def _at_least(least: int) -> Callable[[str], int]:
    """Give a reader of numbers for argparse."""

    def number(text: str) -> int:
        if not text.isdigit() or int(text) < least:
            raise argparse.ArgumentTypeError(f"{text} is not a whole number of at least {least}")
        return int(text)

    return number


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m gatehouse.bench", description=__doc__)
    parser.add_argument(
        "--only", action="append", choices=PARTS, help="this part; can be repeated (default: all)"
    )
    parser.add_argument(
        "--rounds", type=_at_least(1), default=3, help="repetitions of everything (default: 3)"
    )
    parser.add_argument(
        "--duration", type=_at_least(1), default=15, help="seconds a measurement (default: 15)"
    )
    parser.add_argument(
        "--connections", type=_at_least(1), default=20, help="clients at a time (default: 20)"
    )
    parser.add_argument(
        "--megabytes",
        type=_at_least(1),
        default=1000,
        help="size of the database that is saved and restored (default: 1000)",
    )
    parser.add_argument("--keep", action="store_true", help="leave the workstation for a look")
    return parser


if __name__ == "__main__":
    sys.exit(main())
