"""What a run of faults needs of its workstation: models, a key, a load; and it takes them away."""

import json
import re
import time
from collections.abc import Sequence
from typing import Any

from gatehouse.bench.station import settings as base
from gatehouse.faults.faults import (
    ADDRESS,
    BACKED,
    MODEL,
    PORT,
    SPARE,
    SPARE_PORT,
)
from gatehouse.lab.common import ROOT, LabError
from gatehouse.lab.images import LabImages
from gatehouse.lab.progress import Progress
from gatehouse.lab.vm import Vm
from gatehouse.lab.workstation import Workstation

Host = Workstation | Vm

FOLDER = "/root/faults"
# After these it is no fault that passes, but one that stays.
HEAL_SECONDS = 300.0
# LiteLLM looks at what it has to write every 2 to 30 seconds, and tries four times in seven.
WRITE_SECONDS = 45.0
_ALIAS = "faults-on-purpose"
_PSQL = (
    "docker exec -i gatehouse-postgres-1 sh -c 'PGPASSWORD=$(cat /run/secrets/postgres_password) "
    "exec psql -h 127.0.0.1 -U litellm -d litellm -AtXq'"
)
# The key goes from LiteLLM's answer into a file, and nowhere else.
API = """
import json, sys, urllib.request as u
def post(path, body):
    head = {"Authorization": "Bearer " + open("/run/secrets/master_key").read().strip(),
            "Content-Type": "application/json"}
    request = u.Request("http://127.0.0.1:4000" + path, json.dumps(body).encode(), head)
    return json.load(u.urlopen(request, timeout=30))
try:
    post("/key/delete", {"key_aliases": ["ALIAS"]})
except OSError:
    pass
if "--make" in sys.argv:
    print(post("/key/generate", {"duration": "1d", "key_alias": "ALIAS"})["key"])
""".replace("ALIAS", _ALIAS)
_KEYS = f"""SELECT count(*) FROM "LiteLLM_VerificationToken" WHERE key_alias = '{_ALIAS}';\n"""  # noqa: S608
_HEALTH = (
    "docker inspect -f '{{.State.Health.Status}}' "
    "gatehouse-litellm-1 gatehouse-redis-1 gatehouse-postgres-1"
)


def settings(found: LabImages) -> dict[str, Any]:
    """Give what differs from the shipped defaults: backends, and keys without narrow limits."""

    def model(name: str, port: int) -> dict[str, object]:
        base_url = f"http://host.docker.internal:{port}/v1"
        return {"name": name, "backend": "openai/faults", "api_base": base_url}

    return base(found) | {
        "models_extra": [model(MODEL, PORT), model(BACKED, PORT), model(SPARE, SPARE_PORT)],
        "models_fallbacks": {BACKED: [SPARE]},
        "keys_rpm": 100_000,
        "keys_tpm": 10_000_000,
    }


def prepare(workstation: Host) -> None:
    """Have the backends, a key and the load's program on the workstation."""
    config = workstation.exec("cat /opt/gatehouse/current/litellm/config.yaml").stdout
    if BACKED not in config:
        raise LabError(
            f"the workstation {workstation.name} does not offer {BACKED}: only one that "
            "`python -m gatehouse.faults --keep` has provisioned can be taken"
        )
    upstream = (ROOT / "gatehouse/lab/upstream.py").read_text()
    workstation.exec("cat >/root/upstream.py", text=upstream)
    for port in (PORT, SPARE_PORT):
        start = f"/usr/bin/python3 /root/upstream.py --host {ADDRESS} --port {port}"
        path = f"/run/systemd/system/upstream-{port}.service"
        workstation.exec(f"cat >{path}", text=f"[Service]\nExecStart={start}\n")
    units = f"upstream-{PORT} upstream-{SPARE_PORT}"
    workstation.exec(f"systemctl daemon-reload && systemctl restart {units}")
    workstation.exec(f"mkdir -p {FOLDER}")
    # What a killed run has left goes first.
    make = f"umask 077; docker exec -i gatehouse-litellm-1 python3 - --make >{FOLDER}/key"
    workstation.exec(make, text=API)
    program = (ROOT / "gatehouse/faults/steady.py").read_text()
    workstation.exec(f"cat >{FOLDER}/steady.py", text=program)


def put_away(workstation: Host, progress: Progress) -> None:
    """Leave nothing of the run on the workstation, the key least of all."""
    units = f"steady liar slow greedy upstream-{PORT} upstream-{SPARE_PORT}"
    workstation.exec(f"systemctl stop {units}; rm -rf {FOLDER} /root/upstream.py", check=False)
    # What the last fault has broken may still be on its way up.
    deadline = time.monotonic() + HEAL_SECONDS
    while not _healthy(workstation) and time.monotonic() < deadline:
        time.sleep(1)
    workstation.exec("docker exec -i gatehouse-litellm-1 python3 -", text=API, check=False)
    if workstation.exec(_PSQL, text=_KEYS, check=False).stdout.strip() != "0":
        progress.say(f"the key {_ALIAS} is left on {workstation.name}: it is good for a day")


def answers_once(workstation: Host, model: str) -> bool:
    """Tell whether one request is answered now."""
    script = (
        f"cd {FOLDER} && python3 -c 'import steady; "
        f'raise SystemExit(not steady.ask(open("key").read().strip(), "{model}", 1)["id"])\''
    )
    return workstation.exec(script, check=False).returncode == 0


def healed(workstation: Host, model: str) -> float | None:
    """Wait until requests are answered and all services are healthy; give how long that took."""
    begin = time.monotonic()
    while time.monotonic() < begin + HEAL_SECONDS:
        if _healthy(workstation) and answers_once(workstation, model):
            return time.monotonic() - begin
        time.sleep(1)
    return None


def _healthy(workstation: Host) -> bool:
    return workstation.exec(_HEALTH, check=False).stdout.split() == ["healthy"] * 3


def start_load(workstation: Host, rate: float, model: str) -> None:
    """Begin to ask."""
    workstation.exec(
        f"rm -f {FOLDER}/stop {FOLDER}/answers; systemctl reset-failed steady 2>/dev/null; "
        f"systemd-run --quiet --collect --unit steady "
        f"python3 {FOLDER}/steady.py {FOLDER} {rate} {model}"
    )


def stop_load(workstation: Host) -> list[dict[str, object]]:
    """Ask no more, and give the requests with what came of each."""
    workstation.exec(
        f"touch {FOLDER}/stop; while systemctl is-active --quiet steady; do sleep 0.2; done"
    )
    lines = workstation.exec(f"cat {FOLDER}/answers").stdout.splitlines()
    return [json.loads(line) for line in lines]


def written(workstation: Host, ids: Sequence[str]) -> frozenset[str]:
    """Give which of the answers have a row, once no more are written."""
    words = ",".join(f"'{each}'" for each in ids if re.fullmatch(r"[\w-]+", each)) or "''"
    query = f'SELECT request_id FROM "LiteLLM_SpendLogs" WHERE request_id IN ({words});\n'  # noqa: S608
    seen: frozenset[str] = frozenset()
    deadline = time.monotonic() + WRITE_SECONDS
    while time.monotonic() < deadline:
        done = workstation.exec(_PSQL, text=query, check=False)
        if done.returncode == 0:
            seen = frozenset(done.stdout.split())
        if len(seen) == len(ids):
            break
        time.sleep(1)
    return seen
