"""An engine that is switched on brings its model when the deploy is told to; off, it leaves nothing."""

from collections.abc import Iterator

import pytest

from gatehouse.lab import models
from gatehouse.lab.common import ROOT
from gatehouse.lab.workstation import Workstation
from tests.deploying import deploy
from tests.hub import REPOSITORY
from tests.lab.conftest import failing
from tests.lab.engines import ENGINES, engine
from tests.waiting import wait_for

NAME, PORT, FILE = "chat-pulled-llamacpp", 8230, "pulled.gguf"
UNIT = "lab-hub"
SERVE = f"""
import pathlib, sys, threading
sys.path.insert(0, "/usr/local/lib/lab")
import hub
with hub.hub() as found:
    found.files["{FILE}"] = pathlib.Path("{models.FOLDER}/{models.CHAT}").read_bytes()
    pathlib.Path("/run/lab-hub").write_text(found.url)
    threading.Event().wait()
"""


@pytest.fixture
def hub(engine_host: Workstation) -> Iterator[str]:
    """Run a model hub on the workstation, and give its address."""
    engine_host.exec("mkdir -p /usr/local/lib/lab && rm -f /run/lab-hub")
    program = (ROOT / "tests/hub.py").read_text()
    engine_host.exec("cat >/usr/local/lib/lab/hub.py", text=program)
    engine_host.exec("cat >/usr/local/lib/lab/serve.py", text=SERVE)
    engine_host.exec(
        f"systemd-run --quiet --collect --unit {UNIT} python3 /usr/local/lib/lab/serve.py"
    )
    read = "cat /run/lab-hub 2>/dev/null || true"
    yield wait_for(lambda: engine_host.exec(read).stdout, 30, "the hub")
    engine_host.exec(f"systemctl stop {UNIT}")
    deploy(engine_host)
    engine_host.exec(f"rm -f {models.FOLDER}/{FILE}")


def test_deploy_pulls_when_it_is_told_to(engine_host: Workstation, hub: str) -> None:
    """Without models_pull a missing model ends the deploy; with it, it is fetched and served."""
    source = {"file": FILE, "repository": REPOSITORY, "licence": "apache-2.0"}
    one = engine(NAME, PORT, sha256=models.checksums(engine_host)[models.CHAT], **source)
    settings = {"engines_extra": [*ENGINES, one], "models_hub_url": hub}
    refused = deploy(engine_host, settings=settings, expect=1)
    assert f"{models.FOLDER}/{FILE} of engine {NAME} is missing" in refused.words
    assert "models_pull = True" in refused.words
    assert not engine_host.exec("ls /etc/systemd/system | grep pulled", check=False).stdout

    done = deploy(engine_host, settings=settings | {"models_pull": True})
    assert "Engines | Pull the models" in done.changed
    answer = engine_host.exec(f"curl -sf --max-time 60 http://127.0.0.1:{PORT}/v1/models").stdout
    assert NAME in answer
    assert "present" in engine_host.exec(f"gatehouse models list | grep {FILE}").stdout
    again = deploy(engine_host, settings=settings | {"models_pull": True})
    assert not again.changed

    # Off again: nothing of it is left but its file.
    off = deploy(engine_host)
    assert "Engines | Remove what is off" in off.changed
    assert not engine_host.exec("ls /etc/systemd/system | grep pulled", check=False).stdout
    assert NAME not in engine_host.exec("docker ps -a --format '{{.Names}}'").stdout
    assert not engine_host.exec(f"ss -Hltn 'sport = :{PORT}'").stdout
    assert engine_host.exec(f"ls {models.FOLDER}/{FILE}").stdout
    assert not failing(engine_host)
