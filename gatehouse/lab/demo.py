"""The demo: a throwaway workstation becomes a gateway, and a client uses it."""

import json
import os
import shlex
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

from gatehouse.lab import images
from gatehouse.lab.common import ROOT, LabError
from gatehouse.lab.engine import engine
from gatehouse.lab.progress import Progress
from gatehouse.lab.settings import overrides
from gatehouse.lab.tunnel import tunnel
from gatehouse.lab.workstation import Workstation, remove

NAME = "demo"
PORT = 4000
# Runs where the master key is: the key that it makes is all that leaves the host.
_NEW_KEY = """
import json, urllib.request as u
master = open("/run/secrets/master_key").read()
body = json.dumps({"key_alias": "demo", "duration": "30d"}).encode()
request = u.Request("http://127.0.0.1:4000/key/generate", body,
    {"Authorization": "Bearer " + master, "Content-Type": "application/json"})
try:
    print(json.load(u.urlopen(request, timeout=60))["key"])
except u.HTTPError as error:
    raise SystemExit(error.read().decode())
"""


def demo(progress: Progress) -> int:
    """Show the whole thing; the workstation stays until `make demo-down`."""
    begin = time.monotonic()
    client = engine(progress)
    found = images.ensure(client, progress)
    archive = images.archive(client, found, progress)
    workstation = Workstation.start(
        NAME,
        image=found.host,
        preload=found,
        settings=overrides(found, archive),
        progress=progress,
    )
    with progress.step("provisioning it: pyinfra inventory deploy.py"):
        _deploy(workstation.access.inventory)
    _use(workstation, progress)
    _look_around(workstation, time.monotonic() - begin)
    return 0


def demo_down(progress: Progress) -> int:
    """Remove what the demo left running; the built images stay, so that the next one is quick."""
    remove(engine(progress), NAME)
    progress.say("the demo's workstation, its network and its data are gone")
    progress.say("the images stay for the next time: `make clean` removes them too")
    return 0


def _deploy(inventory: Path) -> None:
    """Run the literal command and show its operations as they happen."""
    pyinfra = Path(sys.executable).with_name("pyinfra")
    with subprocess.Popen(
        [pyinfra, inventory, "deploy.py", "-y"],
        cwd=ROOT,
        env=os.environ | {"PYINFRA_PROGRESS": "off"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as process:
        lines = []
        for line in process.stdout or ():
            lines.append(line)
            if "Starting operation:" in line or ": ready after" in line or "serves" in line:
                print(f"    {line.strip().removeprefix('--> Starting operation: ')}", flush=True)
    if process.returncode:
        raise LabError(f"the deploy failed:\n{''.join(lines[-60:])}")


def _use(workstation: Workstation, progress: Progress) -> None:
    key = workstation.exec(
        ["docker", "exec", "-i", "gatehouse-litellm-1", "python3", "-"], text=_NEW_KEY
    ).stdout.strip()
    progress.say(f"made a virtual key: {key[:7]}…")
    with tunnel(workstation, PORT) as port:
        url = f"http://127.0.0.1:{port}"
        question = {"role": "user", "content": "Are you there?"}
        answer = _ask(url, key, "/v1/chat/completions", model="chat-default", messages=[question])
        progress.say(f"asked chat-default: {answer['choices'][0]['message']['content']}")
        vector = _ask(url, key, "/v1/embeddings", model="embeddings-default", input="a text")
        progress.say(f"asked embeddings-default: {vector['data'][0]['embedding']}")
        try:
            _ask(url, "sk-not-a-key", "/v1/chat/completions", model="chat-default", messages=[])
        except urllib.error.HTTPError as error:
            progress.say(f"asked with a key that is none: {error.code} {error.reason}")


def _ask(url: str, key: str, path: str, **body: object) -> dict[str, Any]:
    request = urllib.request.Request(  # noqa: S310 - our own tunnel
        url + path,
        json.dumps(body).encode(),
        {"Authorization": f"Bearer {key}", "Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=60) as answer:  # noqa: S310 - the same
        found: dict[str, Any] = json.load(answer)
        return found


def _look_around(workstation: Workstation, seconds: float) -> None:
    config = workstation.access.ssh_config.relative_to(ROOT)
    inventory = workstation.access.inventory.relative_to(ROOT)
    ports = workstation.exec("ss -Hltn | awk '{ print $4 }' | sort -u").stdout.split()
    enter = f"ssh -F {shlex.quote(str(config))} {workstation.name}"
    print(
        f"""
It took {seconds:.0f} s. The workstation listens on: {", ".join(ports)}
(22 is its sshd; everything of the gateway is on loopback.)

Look around:
  {enter}
  cd /opt/gatehouse/current && docker compose ps
From here, with the admin page at http://127.0.0.1:4000/ui (user admin):
  {enter} -N -L 4000:127.0.0.1:4000
  {enter} cat /etc/gatehouse/secrets/ui_password
Run it again, and nothing changes; prove what was promised:
  .venv/bin/pyinfra {inventory} deploy.py
  make verify INVENTORY={inventory}
Remove it:
  make demo-down"""
    )
