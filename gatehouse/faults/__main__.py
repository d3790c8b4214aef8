"""`make test-faults`: break one part after the other under load, and print what came of it."""

import argparse
import sys
import time
from collections.abc import Sequence

from gatehouse.bench.station import provision
from gatehouse.bench.table import table
from gatehouse.faults import station
from gatehouse.faults.books import HEAD, Outcome, Said, said_lost
from gatehouse.faults.faults import FAULTS, Fault
from gatehouse.faults.station import Host
from gatehouse.lab import images
from gatehouse.lab.common import LabError
from gatehouse.lab.engine import engine
from gatehouse.lab.progress import Progress
from gatehouse.lab.vm import Vm
from gatehouse.lab.workstation import Workstation

NAME = "faults"
RATE = 2.0
WARM_SECONDS = 4.0
AFTER_SECONDS = 3.0
# From when on LiteLLM's log is of this fault: a clock that is set back dates it earlier.
_BACK = {False: "0 seconds", True: "2 hours"}


def bring_about(workstation: Host, fault: Fault, rate: float) -> Outcome:
    """Bring one fault about under load, undo it, and look at what came of it."""
    try:
        if fault.before:
            workstation.exec(fault.before)
        if station.healed(workstation, fault.model) is None:
            return _not_made(fault, "the workstation was not well before it")
        outcome = _under_load(workstation, fault, rate)
    except LabError as error:
        outcome = _not_made(fault, str(error))
    finally:
        if fault.after:
            workstation.exec(fault.after, check=False)
    return outcome


def _under_load(workstation: Host, fault: Fault, rate: float) -> Outcome:
    memory = workstation.exec(
        "docker inspect -f '{{.HostConfig.Memory}}' gatehouse-litellm-1"
    ).stdout.strip()
    since = workstation.exec(f"date -u -d '-{_BACK[fault.vm]}' +%Y-%m-%dT%H:%M:%SZ").stdout.strip()
    before = _said_lost(workstation, since)
    station.start_load(workstation, rate, fault.model)
    try:
        time.sleep(WARM_SECONDS)
        try:
            workstation.exec(fault.make)
            time.sleep(fault.seconds)
        finally:
            workstation.exec(fault.undo.replace("{memory}", memory), check=False)
        took = station.healed(workstation, fault.model)
        time.sleep(AFTER_SECONDS)
    finally:
        answers = station.stop_load(workstation)
    written = station.written(workstation, [str(each["id"]) for each in answers if each["id"]])
    said = _said_lost(workstation, since).since(before)
    return Outcome(fault, answers, written, said, took)


def _said_lost(workstation: Host, since: str) -> Said:
    log = workstation.exec(f"docker logs --since {since} gatehouse-litellm-1 2>&1", check=False)
    return said_lost(log.stdout.splitlines())


def _not_made(fault: Fault, reason: str) -> Outcome:
    return Outcome(fault, [], frozenset(), Said(), None, broken=reason)


def main() -> int:
    """Run the faults, print the table; 0 when all is well after each of them."""
    parser = argparse.ArgumentParser(prog="python -m gatehouse.faults", description=__doc__)
    parser.add_argument("--on", metavar="NAME", help="a workstation that --keep has left, or a VM")
    parser.add_argument("--keep", action="store_true", help=f"leave the workstation {NAME} there")
    parser.add_argument(
        "--only", metavar="TEXT", action="append", help="faults with it in the name"
    )
    parser.add_argument("--rate", type=float, default=RATE, help="requests a second")
    options = parser.parse_args()
    wanted = [
        fault
        for fault in FAULTS
        if not options.only or any(text in fault.name for text in options.only)
    ]
    if not wanted:
        parser.error(f"no fault is called so; there are {', '.join(f.name for f in FAULTS)}")
    progress = Progress()
    try:
        if options.on:
            there = Vm.find(options.on, progress) or Workstation.find(options.on, progress)
            if not isinstance(there, Vm):
                wanted = possible(wanted, progress)
            return _run(there, wanted, options.rate, progress)
        wanted = possible(wanted, progress)
        found = images.ensure(engine(progress), progress)
        workstation = Workstation.start(
            NAME,
            image=found.host,
            preload=found,
            settings=station.settings(found),
            progress=progress,
        )
        try:
            with progress.step("provisioning it"):
                provision(workstation)
            return _run(workstation, wanted, options.rate, progress)
        finally:
            if not options.keep:
                workstation.stop()
    except LabError as error:
        print(error, file=sys.stderr)
        return 2


def possible(wanted: Sequence[Fault], progress: Progress) -> list[Fault]:
    """Give those that a container can have, and name the others; raises `LabError` for none."""
    kept = [fault for fault in wanted if not fault.vm]
    left = ", ".join(fault.name for fault in wanted if fault.vm)
    if left:
        words = f"left out, because a container has no clock of its own: {left} (docs/faults.md)"
        if not kept:
            raise LabError(words)
        progress.say(words)
    return kept


def _run(workstation: Host, wanted: Sequence[Fault], rate: float, progress: Progress) -> int:
    outcomes: list[Outcome] = []
    begin = time.monotonic()
    try:
        station.prepare(workstation)
        for fault in wanted:
            with progress.step(fault.name):
                outcomes.append(bring_about(workstation, fault, rate))
            # The table may be half an hour away.
            progress.say(outcomes[-1].broken or "; ".join(outcomes[-1].row()))
    finally:
        station.put_away(workstation, progress)
        _print(outcomes, rate, time.monotonic() - begin)
    if any(each.broken for each in outcomes):
        return 2
    return 0 if all(each.well for each in outcomes) else 1


def _print(outcomes: Sequence[Outcome], rate: float, seconds: float) -> None:
    print(f"\n{rate:g} requests a second through a virtual key, every fourth a stream:\n")
    print(table(HEAD, [each.row() for each in outcomes]))
    answered = sum(each.answered for each in outcomes)
    rows, said = sum(each.rows for each in outcomes), sum(each.reported for each in outcomes)
    silent = sum(each.silent for each in outcomes)
    besides = sum(each.besides for each in outcomes)
    print(
        f"\nrows {rows} + said lost {said} + lost silently {silent} = answered {answered}; "
        f"said besides {besides}; {len(outcomes)} faults in {seconds / 60:.0f} min"
    )
    for each in outcomes:
        if each.broken:
            print(f"{each.fault.name} could not be made: {each.broken}")
        elif not each.well:
            print(f"{each.fault.name}: not as it should be")


if __name__ == "__main__":
    sys.exit(main())
