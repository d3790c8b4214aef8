"""What a backup and a restore take, beside plain pg_dump and pg_restore of the same database."""

import json

from gatehouse.bench.table import Report, Spread, ratio, table
from gatehouse.lab.common import LabError
from gatehouse.lab.progress import Progress
from gatehouse.lab.workstation import Workstation

AIM = 2.0
_FOLDER = "/var/lib/gatehouse/bench"
_PLAIN = "bench_plain"
_POSTGRES = "docker exec -i gatehouse-postgres-1"
_PSQL = f"{_POSTGRES} psql -U litellm -XAtq -v ON_ERROR_STOP=1"
_DATA = "  of it until the data are back"
_ROW_BYTES = 1000
# A column whose text does not repeat itself, as ids and metadata do not.
_FILL = """
INSERT INTO "LiteLLM_SpendLogs" (request_id, call_type, api_key, spend, total_tokens, "startTime",
    "endTime", model, metadata)
SELECT 'bench-' || i, 'acompletion', md5((i % 50)::text), 0.001, 100,
    now() - make_interval(secs => i), now() - make_interval(secs => i), 'chat-selftest-builtin',
    json_build_object('bench', (SELECT string_agg(md5(i || '-' || n), '')
        FROM generate_series(1, 18) AS n))
FROM generate_series({first}, {last}) AS i;
"""
_EMPTY = "DELETE FROM \"LiteLLM_SpendLogs\" WHERE request_id LIKE 'bench-%';"


def run(workstation: Workstation, progress: Progress, *, rounds: int, megabytes: int) -> Report:
    """Fill the database, then save and restore it both ways; raises `LabError`."""
    size = _filled(workstation, progress, megabytes)
    times: dict[str, list[float]] = {}

    def timed(name: str, command: str) -> None:
        with progress.step(name):
            found = workstation.exec(_timed(command), check=False, timeout_seconds=7200)
        if found.returncode:
            raise LabError(f"`{command}` ended with {found.returncode}: {found.stderr[-2000:]}")
        times.setdefault(name, []).append(float(found.stdout))

    workstation.exec(f"install -d -m 700 {_FOLDER}")
    down: list[float] = []
    try:
        for turn in range(rounds):
            timed("pg_dump -Fc", f"{_POSTGRES} pg_dump -U litellm -Fc litellm >{_FOLDER}/plain")
            first = "the first" if turn == 0 else "another"
            timed(f"gatehouse backup now, {first}", "gatehouse backup now --no-verify")
            workstation.exec(f"{_PSQL} -d postgres -c 'CREATE DATABASE {_PLAIN}'")
            timed(
                "pg_restore",
                f"{_POSTGRES} pg_restore -U litellm -d {_PLAIN} --exit-on-error <{_FOLDER}/plain",
            )
            workstation.exec(f"{_PSQL} -d postgres -c 'DROP DATABASE {_PLAIN}'")
            timed("gatehouse restore", "gatehouse restore --yes --json --without-saving")
            said = json.loads(workstation.exec("cat /run/bench.out").stdout)
            down.append(float(said["downtime_seconds"]))
            times.setdefault(_DATA, []).append(float(said["data_seconds"]))
            timed("gatehouse drill", "gatehouse drill")
    finally:
        workstation.exec(f"rm -rf {_FOLDER}; {_PSQL} -d litellm", text=_EMPTY)
    return report({name: Spread.of(each) for name, each in times.items()}, Spread.of(down), size)


def report(times: dict[str, Spread], down: Spread, megabytes: int) -> Report:
    """Write the table; held where neither takes more than `AIM` times what plain tools take."""
    dump, plain = times["pg_dump -Fc"], times["pg_restore"]
    rows, held = [], True
    for name, spread in times.items():
        beside = dump if "backup" in name else plain
        times_as = ratio(spread, beside)
        # LiteLLM's start is the same for a database of any size, and pg_restore starts nobody.
        aimed = name.startswith("gatehouse backup") or name == _DATA
        held = held and (not aimed or times_as <= AIM)
        shown = "" if spread in (dump, plain) else f"{times_as:.2f}"
        rows.append((name, spread.text(), shown, f"{AIM:.0f}" if aimed else ""))
    rows.append(("  of it without an answer", down.text(), "", ""))
    title = (
        f"A backup and a restore of a database of {megabytes} MB, beside plain tools: aim "
        f"{'reached' if held else 'MISSED'}"
    )
    return Report(f"{title}\n\n{table(('', 'seconds', 'times', 'aim'), rows)}", held=held)


def _timed(command: str) -> str:
    return (
        f"begin=$(date +%s.%N); {{ {command}; }} >/run/bench.out 2>/run/bench.err; code=$?\n"
        "echo \"$(date +%s.%N) - $begin\" | awk '{ print $1 - $3 }'\n"
        "[ $code = 0 ] || { cat /run/bench.err >&2; exit $code; }"
    )


def _filled(workstation: Workstation, progress: Progress, megabytes: int) -> int:
    """Have a database of about that size; gives what it takes, in MB."""
    rows = megabytes * 10**6 // _ROW_BYTES
    step = max(1, rows // 20)
    with progress.step(f"filling the database with {rows} lines of spend"):
        for first in range(1, rows + 1, step):
            last = min(first + step - 1, rows)
            workstation.exec(f"{_PSQL} -d litellm", text=_FILL.format(first=first, last=last))
    found = workstation.exec(
        f"{_PSQL} -d litellm -c 'SELECT pg_database_size(current_database())'"
    ).stdout
    return int(found) // 10**6
