"""A release that cannot work is not left serving: the one before it goes on."""

import json
from collections.abc import Iterator
from typing import Any

import pytest

from gatehouse.lab.workstation import Workstation
from tests.deploying import deploy, settings_of
from tests.gateway import Gateway
from tests.lab.conftest import failing

# The same version but for the patch number, so that nothing but the image is at fault.
BROKEN = "gatehouse-lab/litellm:1.108.99"
FAILS_AT_ONCE = """
docker tag {redis} {broken}"""
FAILS_TO_SERVE = """
docker create --name broken {litellm} && docker cp broken:/app/docker/prod_entrypoint.sh /tmp/good.sh
cat >/tmp/prod_entrypoint.sh <<'END'
#!/bin/sh
case "$*" in *skip_server_startup*) exec /bin/sh /app/docker/good.sh "$@" ;; esac
echo "broken on purpose" >&2; exit 3
END
chmod 755 /tmp/prod_entrypoint.sh
docker cp /tmp/good.sh broken:/app/docker/good.sh
docker cp /tmp/prod_entrypoint.sh broken:/app/docker/prod_entrypoint.sh
docker commit broken {broken} && docker rm broken"""
# A service that crashes at each start is not given all the time that a slow one gets.
SOON_SECONDS = 180


@pytest.fixture(params=[FAILS_AT_ONCE, FAILS_TO_SERVE], ids=["migration fails", "proxy crashes"])
def broken(request: pytest.FixtureRequest, workstation: Workstation) -> Iterator[dict[str, object]]:
    """Give the settings of a release with an image that cannot work."""
    images = settings_of(workstation)
    script = request.param.format(
        redis=images["redis_image"], litellm=images["litellm_image"], broken=BROKEN
    )
    workstation.exec(script)
    yield {"litellm_image": BROKEN}
    workstation.exec(f"docker rmi --force {BROKEN}", check=False)


def logged(workstation: Workstation) -> list[dict[str, Any]]:
    """Give the deploys of the audit log; each names its release."""
    entries = json.loads(workstation.exec("gatehouse log --json -n 1000").stdout)["entries"]
    found = [entry for entry in entries if entry["action"] == "deploy"]
    assert all(entry["details"]["release"] for entry in found)
    return found


def test_broken_release_gives_way_to_the_last_good_one(
    workstation: Workstation, gateway: Gateway, broken: dict[str, object]
) -> None:
    """The deploy fails, says what the service said, and the gateway serves as before it."""
    good = workstation.exec("readlink /opt/gatehouse/current").stdout.strip()
    failed = deploy(workstation, settings=broken, expect=1)
    assert "Its last lines:" in failed.words
    assert "broken on purpose" in failed.words or "prod_entrypoint.sh" in failed.words
    assert f"release {good.rsplit('/', 1)[1]}, the last good one, serves again" in failed.words
    assert failed.seconds < SOON_SECONDS
    assert workstation.exec("readlink /opt/gatehouse/current").stdout.strip() == good
    assert gateway.ask("GET", "/v1/models").status == 200
    assert logged(workstation)[-1]["result"] == "failed"
    assert "LiteLLM | " in logged(workstation)[-1]["details"]["step"]
    healed = deploy(workstation)
    assert failing(workstation) == []
    lines = logged(workstation)
    assert [line["result"] for line in lines[-2:]] == ["begun", "ok"]
    assert deploy(workstation).changed == [], healed.log
    assert logged(workstation) == lines
