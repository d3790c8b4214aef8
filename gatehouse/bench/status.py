"""What a look at everything takes: `gatehouse status`, from its start to its last line."""

import json

from gatehouse.bench.table import Report, Spread, table
from gatehouse.lab.common import LabError
from gatehouse.lab.progress import Progress
from gatehouse.lab.workstation import Workstation

LIMIT_SECONDS = 1.5
# A look is short, so that more of them cost little and say more.
RUNS_A_ROUND = 5
# Times one command on the workstation itself, in one call: entering it takes time, too.
_TIMED = """
begin=$(date +%s.%N); {command} >/run/bench.out 2>&1; code=$?
echo "$(date +%s.%N) - $begin" | awk '{{ print $1 - $3 }}'; exit $code"""
_COMMANDS = {
    "gatehouse status": "gatehouse status",
    "the checks in it": "gatehouse status --json",
    "gatehouse --version, for comparison": "gatehouse --version",
}


def run(workstation: Workstation, progress: Progress, *, rounds: int) -> Report:
    """Look again and again; raises `LabError` where a check does not hold."""
    times: dict[str, list[float]] = {name: [] for name in _COMMANDS}
    number = 0
    for turn in range(rounds):
        with progress.step(f"round {turn + 1} of {rounds}: {RUNS_A_ROUND} looks at everything"):
            for _ in range(RUNS_A_ROUND):
                for name, command in _COMMANDS.items():
                    found = workstation.exec(_TIMED.format(command=command), check=False)
                    said = workstation.exec("cat /run/bench.out").stdout
                    if found.returncode:
                        raise LabError(f"`{command}` ended with {found.returncode}:\n{said}")
                    seconds = float(found.stdout)
                    if command.endswith("--json"):
                        document = json.loads(said)
                        number, seconds = len(document["checks"]), document["seconds"]
                    times[name].append(seconds)
    return report({name: Spread.of(values) for name, values in times.items()}, number)


def report(times: dict[str, Spread], checks: int) -> Report:
    """Write the table; held when the median of the whole command is within its limit."""
    whole = times["gatehouse status"]
    held = whole.middle <= LIMIT_SECONDS
    rows = [
        (name, spread.text(2), f"{LIMIT_SECONDS}" if spread is whole else "")
        for name, spread in times.items()
    ]
    title = (
        f"A look at everything: {checks} checks, median of {len(whole.values)} (lowest-highest), "
        f"limit {'reached' if held else 'MISSED'}"
    )
    return Report(f"{title}\n\n{table(('', 'seconds', 'limit'), rows)}", held=held)
