"""`make test-faults`: break one part after the other under load, and print what came of it."""

import argparse
import json
import re
import sys
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from gatehouse.bench.station import provision
from gatehouse.bench.station import settings as base
from gatehouse.bench.table import table
from gatehouse.faults import steady
from gatehouse.faults.faults import FAULTS, PORT, Fault
from gatehouse.lab import images
from gatehouse.lab.common import ROOT, LabError
from gatehouse.lab.engine import engine
from gatehouse.lab.images import LabImages
from gatehouse.lab.progress import Progress
from gatehouse.lab.workstation import Workstation

NAME = "faults"
FOLDER = "/root/faults"
RATE = 2.0
WARM_SECONDS = 3.0
AFTER_SECONDS = 5.0
# After these it is no fault that passes, but one that stays.
HEAL_SECONDS = 240.0
WRITE_SECONDS = 45.0
# What LiteLLM itself says of rows that it could not write.
_TOLD = re.compile(r"spend|SpendLogs|batch_set_budget|db_update", re.IGNORECASE)
_BAD = re.compile(r"fail|error|drop|exceed|discard", re.IGNORECASE)
_PSQL = (
    "docker exec -i gatehouse-postgres-1 sh -c 'PGPASSWORD=$(cat /run/secrets/postgres_password) "
    "exec psql -h 127.0.0.1 -U litellm -d litellm -AtXq'"
)
# The key goes from LiteLLM's answer into a file, and nowhere else.
_KEY = f"""
mkdir -p {FOLDER} && umask 077 && docker exec -i gatehouse-litellm-1 python3 - >{FOLDER}/key <<'PY'
import json, urllib.request as u
body = json.dumps({{"duration": "1d"}}).encode()
head = {{"Authorization": "Bearer " + open("/run/secrets/master_key").read().strip(),
        "Content-Type": "application/json"}}
print(json.load(u.urlopen(u.Request("http://127.0.0.1:4000/key/generate", body, head)))["key"])
PY"""


@dataclass(frozen=True)
class Outcome:
    """What came of a fault: the client's requests, and the rows of those that were answered."""

    fault: Fault
    answers: list[dict[str, object]]
    rows: int
    told: int
    healed: float | None

    @property
    def answered(self) -> int:
        """Requests with a whole answer."""
        return sum(each["id"] is not None for each in self.answers)

    @property
    def lost(self) -> int:
        """Answered requests without a row in the spend log."""
        return self.answered - self.rows

    def row(self) -> list[str]:
        """Give the line of the table."""
        bad = Counter(
            str(each["status"] or each["words"] or "none")
            if each["status"] != 200  # noqa: PLR2004
            else str(each["words"])
            for each in self.answers
            if each["id"] is None
        )
        saw = ", ".join(f"{count} x {word}" for word, count in bad.most_common(3)) or "answers"
        slowest = max((float(str(each["seconds"])) for each in self.answers), default=0.0)
        healed = "no" if self.healed is None else f"{self.healed:.0f} s"
        return [
            self.fault.name,
            f"{self.answered}/{len(self.answers)}",
            saw,
            f"{slowest:.1f} s",
            str(self.lost),
            str(self.told),
            healed,
        ]


HEAD = ["fault", "answered", "else a client saw", "slowest", "lost rows", "log lines", "healed"]


def settings(found: LabImages) -> dict[str, object]:
    """Give what differs from the shipped defaults: a backend, and spend that is written soon."""
    model = {
        "name": steady.MODEL,
        "backend": "openai/faults",
        "api_base": f"http://host.docker.internal:{PORT}/v1",
    }
    return base(found) | {
        "models_extra": [model],
        "litellm_batch_write_seconds": 5,
        "keys_rpm": 100_000,
        "keys_tpm": 10_000_000,
    }


def prepare(workstation: Workstation) -> None:
    """Have a backend, a key and the load's program on the workstation."""
    upstream = (ROOT / "gatehouse/lab/upstream.py").read_text()
    workstation.exec("cat >/root/upstream.py", text=upstream)
    start = f"/usr/bin/python3 /root/upstream.py --host 172.30.40.1 --port {PORT}"
    unit = f"[Service]\nExecStart={start}\n"
    workstation.exec(f"cat >/run/systemd/system/upstream-{PORT}.service", text=unit)
    workstation.exec(f"systemctl daemon-reload && systemctl restart upstream-{PORT}")
    workstation.exec(_KEY)
    program = (ROOT / "gatehouse/faults/steady.py").read_text()
    workstation.exec(f"cat >{FOLDER}/steady.py", text=program)


def answers_once(workstation: Workstation) -> bool:
    """Tell whether one request is answered now."""
    script = (
        f"cd {FOLDER} && python3 -c 'import steady; "
        'raise SystemExit(not steady.ask(open("key").read().strip(), 1)["id"])\''
    )
    return workstation.exec(script, check=False).returncode == 0


def healed(workstation: Workstation) -> float | None:
    """Wait until requests are answered and no check fails; give how long that took."""
    begin = time.monotonic()
    while time.monotonic() < begin + HEAL_SECONDS:
        seen = workstation.exec(
            "docker inspect -f '{{.State.Health.Status}}' "
            "gatehouse-litellm-1 gatehouse-redis-1 gatehouse-postgres-1",
            check=False,
        ).stdout
        if seen.split() == ["healthy"] * 3 and answers_once(workstation):
            return time.monotonic() - begin
        time.sleep(1)
    return None


def written(workstation: Workstation, ids: Sequence[str]) -> int:
    """Give how many of the answers have a row, once no more are written."""
    words = ",".join(f"'{each}'" for each in ids if re.fullmatch(r"[\w-]+", each)) or "''"
    query = f'SELECT count(*) FROM "LiteLLM_SpendLogs" WHERE request_id IN ({words});\n'  # noqa: S608
    seen, deadline = -1, time.monotonic() + WRITE_SECONDS
    while time.monotonic() < deadline:
        done = workstation.exec(_PSQL, text=query, check=False)
        seen = int(done.stdout.strip() or -1)
        if seen == len(ids):
            break
        time.sleep(3)
    return seen


def bring_about(workstation: Workstation, fault: Fault, rate: float, progress: Progress) -> Outcome:
    """Bring one fault about under load, undo it, and look at what came of it."""
    memory = workstation.exec(
        "docker inspect -f '{{.HostConfig.Memory}}' gatehouse-litellm-1"
    ).stdout.strip()
    since = workstation.exec("date -u +%Y-%m-%dT%H:%M:%SZ").stdout.strip()
    workstation.exec(
        f"rm -f {FOLDER}/stop {FOLDER}/answers; systemctl reset-failed steady 2>/dev/null; "
        f"systemd-run --quiet --collect --unit steady python3 {FOLDER}/steady.py {FOLDER} {rate}"
    )
    time.sleep(WARM_SECONDS)
    with progress.step(fault.name):
        try:
            workstation.exec(fault.make)
            time.sleep(fault.seconds)
        finally:
            workstation.exec(fault.undo.replace("{memory}", memory), check=False)
        took = healed(workstation)
        time.sleep(AFTER_SECONDS)
        workstation.exec(
            f"touch {FOLDER}/stop; while systemctl is-active --quiet steady; do sleep 0.5; done"
        )
        lines = workstation.exec(f"cat {FOLDER}/answers").stdout.splitlines()
        found = [json.loads(line) for line in lines]
        ids = [str(each["id"]) for each in found if each["id"]]
        rows = written(workstation, ids)
    log = workstation.exec(f"docker logs --since {since} gatehouse-litellm-1 2>&1", check=False)
    told = sum(bool(_TOLD.search(line) and _BAD.search(line)) for line in log.stdout.splitlines())
    return Outcome(fault, found, rows, told, took)


def main() -> int:
    """Run the faults, print the table; 0 when everything healed."""
    parser = argparse.ArgumentParser(prog="python -m gatehouse.faults", description=__doc__)
    parser.add_argument("--on", metavar="NAME", help="a provisioned workstation of the lab")
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
            return _run(Workstation.find(options.on, progress), wanted, options.rate, progress)
        found = images.ensure(engine(progress), progress)
        with Workstation.start(
            NAME, image=found.host, preload=found, settings=settings(found), progress=progress
        ) as workstation:
            with progress.step("provisioning it"):
                provision(workstation)
            return _run(workstation, wanted, options.rate, progress)
    except LabError as error:
        print(error, file=sys.stderr)
        return 2


def _run(workstation: Workstation, wanted: Sequence[Fault], rate: float, progress: Progress) -> int:
    prepare(workstation)
    outcomes = []
    for fault in wanted:
        outcomes.append(bring_about(workstation, fault, rate, progress))
        # The table may be half an hour away.
        progress.say("; ".join(outcomes[-1].row()))
    print(f"\n{rate:g} requests a second through a virtual key, every fourth a stream:\n")
    print(table(HEAD, [each.row() for each in outcomes]))
    print(
        "\nlost rows: answered requests that the spend log does not have; log lines: what LiteLLM "
        "said of spend that went wrong; healed: time after the fault until all was well"
    )
    return 1 if any(each.healed is None for each in outcomes) else 0


if __name__ == "__main__":
    sys.exit(main())
