"""Engines on a workstation: real llama.cpp servers wake for a request and go when they are idle."""

import json
import threading
import time

import pytest

from gatehouse.lab.workstation import Workstation
from tests.deploying import deploy
from tests.gateway import Gateway, question
from tests.lab.conftest import failing
from tests.lab.engines import (
    CHAT,
    DYING,
    EMBED,
    HUGE,
    IDLE_SECONDS,
    NEVER,
    PORTS,
    RERANK,
    SELFTEST,
    SLOW,
    ask,
    ask_all,
    command,
    journal,
    reply,
    running,
    sleep_all,
    state,
    wait_asleep,
)
from tests.lab.test_verify import verify
from tests.waiting import wait_for


@pytest.fixture(autouse=True)
def asleep(engine_host: Workstation) -> None:
    """Begin with every engine asleep."""
    sleep_all(engine_host)


def sockets(host: Workstation) -> set[str]:
    """Give the listening addresses of engines, from the kernel."""
    lines = host.exec("ss -Hltn").stdout.splitlines()
    found = {line.split()[3] for line in lines}
    return {each for each in found if int(each.rsplit(":", 1)[1]) in PORTS.values()}


def test_nothing_runs_after_a_deploy_and_every_port_is_held(engine_host: Workstation) -> None:
    """No container of an engine, no process of ours; loopback and the bridge are listened on."""
    assert not running(engine_host)
    assert sockets(engine_host) == {
        f"{address}:{port}" for address in ("127.0.0.1", "172.30.40.1") for port in PORTS.values()
    }
    processes = engine_host.exec("ps -eo args=").stdout
    assert "socket-proxyd" not in processes
    assert "gatehouse.engines" not in processes


def test_first_request_wakes_and_idle_time_stops(engine_host: Workstation) -> None:
    """A cold request is answered; then the process goes, and systemd still holds the port."""
    first = ask(engine_host, CHAT)
    assert first.status == 200
    assert first.content
    assert state(engine_host, CHAT) == "awake"
    assert running(engine_host) == {CHAT}
    again = ask(engine_host, CHAT)
    assert again.status == 200
    assert again.seconds < first.seconds
    wait_asleep(engine_host, CHAT)
    assert f"127.0.0.1:{PORTS[CHAT]}" in sockets(engine_host)
    assert not failing(engine_host)


def test_embeddings_and_rerank_through_the_gateway(engine_gateway: Gateway) -> None:
    """LiteLLM reaches an embedder and a reranker in the forms that they want."""
    found = engine_gateway.ask("POST", "/v1/embeddings", {"model": EMBED, "input": ["a gate"]})
    assert found.status == 200, found.text
    assert len(found.json()["data"][0]["embedding"]) > 1
    documents = ["a gate", "a zebra", "a house"]
    body = {"model": RERANK, "query": "gate", "documents": documents}
    found = engine_gateway.ask("POST", "/v1/rerank", body)
    assert found.status == 200, found.text
    assert {each["index"] for each in found.json()["results"]} == {0, 1, 2}


def test_chat_through_the_gateway_leaves_no_connection(
    engine_host: Workstation, engine_gateway: Gateway
) -> None:
    """The proxy keeps no idle connection to an engine, so the idle time is the setting's."""
    found = engine_gateway.ask(
        "POST", "/v1/chat/completions", question(CHAT, "hello", max_tokens=3)
    )
    assert found.status == 200, found.text
    established = f"ss -Htn state established '( sport = :{PORTS[CHAT]} )' | wc -l"
    wait_for(
        lambda: engine_host.exec(established).stdout.strip() == "0",
        3,
        "the connection to be closed",
    )


def test_stream_is_not_cut_by_the_idle_time(engine_host: Workstation) -> None:
    """A stream that lasts longer than the idle time arrives whole."""
    tokens = 20 * (IDLE_SECONDS + 3)
    found = ask(engine_host, CHAT, stream=True, max_tokens=tokens)
    assert found.status == 200
    assert found.seconds - found.first_seconds > IDLE_SECONDS
    assert found.text.rstrip().endswith("data: [DONE]")
    assert found.text.count('"content":" ') == tokens


def test_ten_clients_are_answered_while_it_loads(engine_host: Workstation) -> None:
    """All that arrive at a cold engine at once get an answer, from one start."""
    before = journal(engine_host, SLOW).count("Starting gatehouse-server")
    found = ask_all(engine_host, [SLOW] * 10)
    assert [each.status for each in found] == [200] * 10
    assert all(each.seconds >= 4 for each in found)
    assert journal(engine_host, SLOW).count("Starting gatehouse-server") == before + 1


def test_engine_that_dies_while_loading_is_an_error_at_once(engine_host: Workstation) -> None:
    """Clients get a 503 that says why, no load is tried again for a while, and the port stays."""
    before = journal(engine_host, DYING).count("asked to fail")
    found = ask(engine_host, DYING)
    assert found.status == 503
    assert found.seconds < 15
    error = json.loads(found.text)["error"]
    assert error["code"] == "failed"
    assert f"journalctl -u gatehouse-server-{DYING}" in error["message"]
    for again in ask_all(engine_host, [DYING] * 5):
        assert again.status == 503
    assert journal(engine_host, DYING).count("asked to fail") == before + 1
    assert f"127.0.0.1:{PORTS[DYING]}" in sockets(engine_host)
    assert "trigger-limit-hit" not in journal(engine_host, DYING)


def test_engine_that_never_gets_ready_is_given_up(engine_host: Workstation) -> None:
    """After its load time the client gets a 503 instead of waiting for ever."""
    engine_host.exec("systemctl daemon-reload")
    found = ask(engine_host, NEVER)
    assert found.status == 503, found
    assert "load_seconds" in found.text
    wait_asleep(engine_host, NEVER)


def test_engine_that_is_killed_while_streaming_comes_back(engine_host: Workstation) -> None:
    """The stream breaks off, and the next request has the engine again."""
    output: list[str] = []
    streaming = threading.Thread(
        target=lambda: output.append(
            engine_host.exec(command(CHAT, stream=True, max_tokens=400), check=False).stdout
        )
    )
    streaming.start()
    wait_for(lambda: state(engine_host, CHAT) == "awake", 60, "the engine to be awake")
    engine_host.exec(f"docker kill gatehouse-{CHAT}-1")
    streaming.join(60)
    assert "[DONE]" not in reply(output[0]).text
    wait_for(lambda: state(engine_host, CHAT) != "awake", 10, "its death to be noticed")
    assert ask(engine_host, CHAT).status == 200


def test_started_by_hand_it_stops_by_itself(engine_host: Workstation) -> None:
    """`systemctl start` loads it without a request, and its idle time ends it all the same."""
    engine_host.exec(f"systemctl start gatehouse-engine-{EMBED}")
    assert state(engine_host, EMBED) == "awake"
    wait_asleep(engine_host, EMBED)
    engine_host.exec(f"systemctl start gatehouse-engine-{EMBED}")
    engine_host.exec(f"systemctl stop gatehouse-engine-{EMBED}")
    wait_asleep(engine_host, EMBED)


def test_command_lists_starts_stops_and_shows_logs(engine_host: Workstation) -> None:
    """`gatehouse engine` does what systemctl and journalctl do, and says it in a table."""
    engine_host.exec(f"gatehouse engine start {EMBED}")
    listed = json.loads(engine_host.exec("gatehouse engine list --json").stdout)
    engines = {each["name"]: each for each in listed}
    assert engines[EMBED]["state"] == "awake"
    assert engines[CHAT]["state"] == "asleep"
    assert "model loaded" in engine_host.exec(f"gatehouse engine logs {EMBED}").stdout
    engine_host.exec(f"gatehouse engine stop {EMBED}")
    wait_asleep(engine_host, EMBED)
    wrong = engine_host.exec("gatehouse engine start embed-tiny", check=False)
    assert wrong.returncode == 2
    assert f"did you mean {EMBED}" in wrong.stdout + wrong.stderr


def test_group_may_use_engines_and_nothing_else(engine_host: Workstation) -> None:
    """A member of the group needs no password for an engine, and gets nowhere with other units."""
    engine_host.exec("id member 2>/dev/null || useradd --create-home --groups gatehouse member")
    as_member = "setpriv --reuid member --regid member --init-groups --reset-env"
    engine_host.exec(f"{as_member} systemctl --no-ask-password start gatehouse-engine-{EMBED}")
    assert state(engine_host, EMBED) == "awake"
    engine_host.exec(f"{as_member} gatehouse engine stop {EMBED}")
    for unit in (f"gatehouse-server-{EMBED}", f"gatehouse-engine-{EMBED}.socket", "ssh", "docker"):
        found = engine_host.exec(
            f"{as_member} systemctl --no-ask-password stop {unit}", check=False
        )
        assert found.returncode != 0, unit
    other = as_member.replace("--init-groups", "--clear-groups")
    found = engine_host.exec(
        f"{other} systemctl --no-ask-password start gatehouse-engine-{EMBED}", check=False
    )
    assert found.returncode != 0


def test_cold_model_is_answered_by_its_fallback(
    engine_host: Workstation, engine_gateway: Gateway
) -> None:
    """With on_cold = "fallback" the first answer is the cloud's, and the engine loads meanwhile."""
    body = question(SLOW, "hello", max_tokens=3)
    first = engine_gateway.ask("POST", "/v1/chat/completions", body)
    assert first.status == 200, first.text
    assert "self-test" in first.text
    assert first.headers["x-gatehouse-engine"] == "fallback"
    wait_for(lambda: state(engine_host, SLOW) == "awake", 30, "the engine to be awake")
    second = engine_gateway.ask(
        "POST", "/v1/chat/completions", question(SLOW, "hello again", max_tokens=3)
    )
    assert second.headers["x-gatehouse-engine"] == "awake"
    assert "self-test" not in second.text


def test_refused_model_is_answered_by_its_fallback(
    engine_host: Workstation, engine_gateway: Gateway
) -> None:
    """What does not fit is refused within a second, and the cloud answers."""
    refused = ask(engine_host, HUGE)
    assert refused.status == 503
    assert "needs 9000000 MiB" in refused.text
    begin = time.monotonic()
    found = engine_gateway.ask("POST", "/v1/chat/completions", question(HUGE, "hello"))
    assert found.status == 200, found.text
    # Once is enough: a refusal that was tried again would take half a minute.
    assert time.monotonic() - begin < 8
    assert SELFTEST in found.text or "self-test" in found.text


def test_health_of_the_gateway_wakes_nothing(
    engine_host: Workstation, engine_gateway: Gateway
) -> None:
    """LiteLLM's /health, which asks every model, is no reason to load one."""
    engine_gateway.ask("GET", "/health", timeout=60)
    engine_gateway.ask("GET", "/v1/models")
    assert not running(engine_host)
    assert {state(engine_host, name) for name in PORTS} == {"asleep"}


def test_probe_and_smoke_wake_nothing_unasked(engine_host: Workstation) -> None:
    """Who sleeps goes on sleeping, and the commands say how to have it woken."""
    smoke = json.loads(engine_host.exec("gatehouse smoke --json").stdout)
    rerank = next(each for each in smoke["steps"] if each["name"] == "rerank")
    assert (rerank["state"], rerank["fix"]) == ("skipped", "gatehouse smoke --wake")
    probe = json.loads(engine_host.exec("gatehouse probe --json").stdout)
    skipped = {each["name"]: each["skipped"] for each in probe["models"] if each["by"] == "engine"}
    assert skipped.keys() == PORTS.keys()
    assert set(skipped.values()) == {"its engine sleeps: --wake"}
    assert not running(engine_host)
    assert {state(engine_host, name) for name in PORTS} == {"asleep"}


def test_probe_wakes_what_it_is_told_to(engine_host: Workstation) -> None:
    """With --wake the named engines are loaded and found out, one after the other, and no other."""
    found = engine_host.exec(f"gatehouse probe --wake --json {CHAT} {EMBED} {RERANK}", check=False)
    probed = {
        each["name"]: {one["name"]: one["value"] for one in each["capabilities"]}
        for each in json.loads(found.stdout)["models"]
        if each["skipped"] is None
    }
    assert found.returncode == 0, found.stdout
    assert probed.keys() == {CHAT, EMBED, RERANK}
    assert probed[CHAT]["chat"] is True
    assert probed[CHAT]["stream"] is True
    assert probed[CHAT]["vision"] is False
    assert probed[CHAT]["context"] == 2048
    assert probed[EMBED]["embedding"] > 1
    assert probed[RERANK]["rerank"] is True
    assert running(engine_host) <= {CHAT, EMBED, RERANK}


def test_smoke_goes_through_engines_when_told_to(engine_host: Workstation) -> None:
    """With --wake a model of each kind answers through its engine."""
    found = engine_host.exec("gatehouse smoke --wake --json", check=False)
    steps = {each["name"]: each for each in json.loads(found.stdout)["steps"]}
    assert found.returncode == 0, found.stdout
    for name, model in (("engine-chat", CHAT), ("engine-embedding", EMBED), ("rerank", RERANK)):
        assert (steps[name]["state"], steps[name]["model"]) == ("ok", model)


def test_restart_of_the_proxy_wakes_nothing(engine_host: Workstation) -> None:
    """LiteLLM would ask every server for its models when it starts."""
    engine_host.exec(
        "cd /opt/gatehouse/current && docker compose restart litellm && "
        "docker compose up -d --no-recreate --wait litellm"
    )
    assert not running(engine_host)
    assert {state(engine_host, name) for name in PORTS} == {"asleep"}


def test_verify_proves_engines(engine_host: Workstation) -> None:
    """`make verify` knows that this host has engines, and proves what is said of them."""
    found = verify(engine_host.access.inventory, "--", "-q", "-k", "test_engines")
    assert found.returncode == 0, found.stdout + found.stderr
    assert "skipped" not in found.stdout


def test_second_deploy_changes_nothing_and_stops_nothing(engine_host: Workstation) -> None:
    """An engine that is awake stays awake through a deploy that changes nothing."""
    engine_host.exec(f"systemctl start gatehouse-engine-{CHAT}")
    with_stream = threading.Thread(
        target=lambda: engine_host.exec(command(CHAT, stream=True, max_tokens=600), check=False)
    )
    with_stream.start()
    found = deploy(engine_host)
    assert not found.changed
    assert state(engine_host, CHAT) == "awake"
    with_stream.join(100)
