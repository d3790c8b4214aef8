"""Who is measured: the gateway as provisioned, LiteLLM's stock start, and the model server of both.

The stock start is that of LiteLLM's quickstart: one worker, nothing tuned. Both gateways run the
same image against the same database, so that the same keys work with both.
"""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from ipaddress import IPv4Network
from pathlib import Path

from gatehouse.bench.station import MODEL, UPSTREAM_PORT
from gatehouse.lab import upstream
from gatehouse.lab.common import ROOT, LabError, wait_for
from gatehouse.lab.images import LabImages
from gatehouse.lab.progress import Progress
from gatehouse.lab.workstation import Workstation
from gatehouse.settings import defaults

FOLDER = "/run/bench"
UNIT = "gatehouse-bench-upstream"
STOCK_PORT = 4100
START_SECONDS = 600
CHAT = "/v1/chat/completions"
SECRETS = "/etc/gatehouse/secrets"
MASTER, VIRTUAL = f"{SECRETS}/master_key", f"{FOLDER}/virtual_key"


@dataclass(frozen=True)
class Contestant:
    """Where it is asked from inside the workstation; `container` is None for the model server."""

    name: str
    host: str
    port: int
    container: str | None


# The quickstart's own file, with our model server in the place of a cloud.
_STOCK_CONFIG = f"""\
model_list:
  - model_name: {MODEL}
    litellm_params:
      model: openai/bench
      api_base: http://host.docker.internal:{UPSTREAM_PORT}/v1
      api_key: none
general_settings:
  master_key: os.environ/LITELLM_MASTER_KEY
"""

# The quickstart's variables, and the price list that is read from the disk where there is no
# network: it would be fetched otherwise, which is no part of a request.
_STOCK_START = f"""
umask 077
password=$(cat {SECRETS}/postgres_password)
{{
    echo "LITELLM_MASTER_KEY=$(cat {SECRETS}/master_key)"
    echo "LITELLM_SALT_KEY=$(cat {SECRETS}/salt_key)"
    echo "DATABASE_URL=postgresql://litellm:$password@postgres:5432/litellm"
    echo STORE_MODEL_IN_DB=True
    echo LITELLM_LOCAL_MODEL_COST_MAP=True
}} >{FOLDER}/stock.env
chmod 644 {FOLDER}/stock.yaml
docker create --name gatehouse-bench-stock --network gatehouse_edge \
    --add-host "host.docker.internal:$2" --env-file {FOLDER}/stock.env \
    --volume {FOLDER}/stock.yaml:/app/config.yaml:ro --publish 127.0.0.1:{STOCK_PORT}:4000 \
    "$1" --config /app/config.yaml --port 4000 >/dev/null
docker network connect gatehouse_inner gatehouse-bench-stock
docker start gatehouse-bench-stock >/dev/null"""

# Limits so high that no request of the benchmark reaches them. The key stays in the workstation.
_MAKE_KEY = f"""
import json, pathlib, urllib.request
body = {{
    "models": ["{MODEL}"], "duration": "1d", "rpm_limit": 10**8, "tpm_limit": 10**12
}}
master = pathlib.Path("{MASTER}").read_text()
request = urllib.request.Request(
    "http://127.0.0.1:%d/key/generate",
    json.dumps(body).encode(),
    {{"Authorization": "Bearer " + master, "Content-Type": "application/json"}},
)
key = json.load(urllib.request.urlopen(request, timeout=60))["key"]
path = pathlib.Path("{VIRTUAL}")
path.touch(0o600)
path.write_text(key)
"""


@contextmanager
def contestants(
    workstation: Workstation, images: LabImages, progress: Progress
) -> Iterator[dict[str, Contestant]]:
    """Start what the gateway is measured against, and give all by name."""
    values = defaults(ROOT / "group_data" / "all.py")
    bridge, port = str(IPv4Network(values["network_subnet"])[1]), int(values["litellm_port"])
    found = {
        "upstream": Contestant("upstream", bridge, UPSTREAM_PORT, None),
        "stock": Contestant("stock", "127.0.0.1", STOCK_PORT, "gatehouse-bench-stock"),
        "gateway": Contestant("gateway", "127.0.0.1", port, "gatehouse-litellm-1"),
    }
    workstation.exec(f"install -d -m 755 {FOLDER}")
    for module in (Path(upstream.__file__), Path(__file__).with_name("load.py")):
        put(workstation, module.name, module.read_text())
    with progress.step("starting the model server and LiteLLM's stock start"):
        _start_upstream(workstation, found["upstream"])
        put(workstation, "stock.yaml", _STOCK_CONFIG)
        workstation.exec(["bash", "-euc", _STOCK_START, "start", images.litellm, bridge])
        try:
            wait_for(
                "LiteLLM's stock start",
                lambda: _trouble(workstation, found["stock"]),
                START_SECONDS,
            )
        except LabError as error:
            log = workstation.exec("docker logs --tail 30 gatehouse-bench-stock 2>&1", check=False)
            raise LabError(f"{error}; the end of its log:\n{log.stdout}") from None
    workstation.exec(["python3", "-"], text=_MAKE_KEY % port)
    try:
        yield found
    finally:
        workstation.exec(f"docker rm -f gatehouse-bench-stock; systemctl stop {UNIT}", check=False)


def workers(workstation: Workstation) -> int:
    """Give the number of workers that the deploy has given the gateway."""
    line = "s/^GATEHOUSE_LITELLM_WORKERS='\\(.*\\)'$/\\1/p"
    return int(workstation.exec(["sed", "-n", line, "/opt/gatehouse/current/.env"]).stdout)


def put(workstation: Workstation, name: str, text: str) -> None:
    """Write a file of the benchmark into the workstation."""
    workstation.exec(f"cat >{FOLDER}/{name}", text=text)


def body() -> str:
    """Give a chat request of about 100 tokens; `{unique}` is replaced in each."""
    words = "Tell me in one short sentence what a gateway for language models is good for. " * 5
    message = {"role": "user", "content": f"{words}This is question {{unique}}."}
    return json.dumps({"model": MODEL, "messages": [message], "max_tokens": 64})


def _start_upstream(workstation: Workstation, where: Contestant) -> None:
    address = f"--host {where.host} --port {where.port}"
    workstation.exec(
        f"systemd-run --quiet --collect --unit {UNIT} python3 {FOLDER}/upstream.py {address}"
    )
    url = f"http://{where.host}:{where.port}/health"

    def trouble() -> str | None:
        seen = workstation.exec(["curl", "-sS", "--max-time", "5", url], check=False)
        return (seen.stderr or "no answer").strip() if seen.returncode else None

    try:
        wait_for("the model server", trouble, 30)
    except LabError as error:
        log = workstation.exec(f"journalctl -u {UNIT} -n 20 -o cat", check=False)
        raise LabError(f"{error}; its log:\n{log.stdout}") from None


def _trouble(workstation: Workstation, which: Contestant) -> str | None:
    """Say why it does not answer a question with the master key yet."""
    put(workstation, "question.json", body())
    seen = workstation.exec(
        f'curl -sS --max-time 20 -w " %{{http_code}}" -H @- -H "Content-Type: application/json" '
        f"--data-binary @{FOLDER}/question.json http://{which.host}:{which.port}{CHAT} "
        f'<<<"Authorization: Bearer $(cat {MASTER})"',
        check=False,
    )
    return None if seen.stdout.endswith(" 200") else f"{seen.stdout} {seen.stderr}".strip()
