"""The lab's llama.cpp: what the product relies on in the official image holds for it too."""

import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from gatehouse.lab import models
from gatehouse.lab.images import LabImages
from gatehouse.lab.workstation import Workstation
from tests.waiting import wait_for

NAME = "lab-llamacpp"
# As the product runs engines: no network is needed, nothing may be written.
HARDENED = (
    "--network none --read-only --cap-drop ALL --security-opt no-new-privileges --user 65534:65534"
)
READY_SECONDS = 60

Start = Callable[..., None]


@pytest.fixture
def start(workstation: Workstation, lab_images: LabImages) -> Iterator[Start]:
    """Give a function that starts the image with a model file and arguments."""
    models.install(workstation)

    def start(model: str, arguments: str = "", ready: bool = True) -> None:  # noqa: FBT001, FBT002
        workstation.exec(
            f"docker run --detach --name {NAME} {HARDENED} --volume {models.FOLDER}:/models:ro "
            f"{lab_images.llamacpp} --model /models/{model} --ctx-size 2048 {arguments}"
        )
        if ready:
            wait_for(lambda: health(workstation) == "200", READY_SECONDS, "200 of /health")

    yield start
    workstation.exec(f"docker rm --force {NAME}; rm -f {models.FOLDER}/*{models.WISHES}")


def curl(workstation: Workstation, words: str, check: bool = True) -> str:  # noqa: FBT001, FBT002
    """Ask from inside the container, as the image's own health check does."""
    return workstation.exec(f"docker exec {NAME} curl -s {words}", check=check).stdout


def health(workstation: Workstation) -> str:
    """Give the status of /health, 000 when nothing listens."""
    return curl(workstation, "-o /dev/null -w '%{http_code}' localhost:8080/health", check=False)


def post(workstation: Workstation, path: str, **body: object) -> Any:  # noqa: ANN401 - JSON
    """Give the answer to a request."""
    return json.loads(curl(workstation, f"localhost:8080{path} -d '{json.dumps(body)}'"))


def ended(workstation: Workstation) -> str:
    """Give the exit code of the container, nothing while it runs."""
    template = "{{if not .State.Running}}{{.State.ExitCode}}{{end}}"
    return workstation.exec(f"docker inspect -f '{template}' {NAME}").stdout.strip()


def question(**more: object) -> dict[str, object]:
    """Give the body of a chat request."""
    return {"messages": [{"role": "user", "content": "hello"}], **more}


def test_chat_says_words_until_it_is_told_to_stop(workstation: Workstation, start: Start) -> None:
    """A request gets as many tokens as it allows, whole and as a stream."""
    start(models.CHAT, "--alias tiny-chat --jinja --n-gpu-layers 99")
    whole = post(workstation, "/v1/chat/completions", **question(max_tokens=50))
    assert whole["model"] == "tiny-chat"
    assert whole["usage"]["completion_tokens"] == 50
    assert whole["choices"][0]["message"]["content"].replace(" ", "").isalpha()
    body = json.dumps(question(max_tokens=50, stream=True))
    stream = curl(workstation, f"-N localhost:8080/v1/chat/completions -d '{body}'")
    assert stream.count('"content":" ') == 50
    assert stream.rstrip().endswith("data: [DONE]")


def test_embeddings_of_similar_texts_are_similar(workstation: Workstation, start: Start) -> None:
    """Each text has its vector, and shared letters bring vectors together."""
    start(models.EMBED, "--embedding --pooling mean")
    texts = ["the gate is open", "the gate is closed", "zebra quiz"]
    found = post(workstation, "/v1/embeddings", input=texts, model="any")
    one, near, far = (each["embedding"] for each in found["data"])
    assert product(one, one) == pytest.approx(1)
    assert product(one, near) > product(one, far)


def product(left: list[float], right: list[float]) -> float:
    """Give the scalar product."""
    return sum(a * b for a, b in zip(left, right, strict=True))


def test_rerank_orders_the_documents(workstation: Workstation, start: Start) -> None:
    """Every document gets a score, the best first."""
    start(models.RERANK, "--reranking")
    found = post(workstation, "/v1/rerank", query="gate", documents=["gate", "zebra", "a b c"])
    assert sorted(each["index"] for each in found["results"]) == [0, 1, 2]
    scores = [each["relevance_score"] for each in found["results"]]
    assert scores == sorted(scores, reverse=True)
    assert len(set(scores)) == 3


def test_load_is_503_until_it_is_done(workstation: Workstation, start: Start) -> None:
    """A slow load answers that it loads, then serves; SIGTERM ends it with 0."""
    models.behave(workstation, models.CHAT, load_seconds=2)
    start(models.CHAT, ready=False)
    wait_for(lambda: health(workstation) == "503", READY_SECONDS, "503 of /health")
    assert "Loading model" in curl(workstation, "localhost:8080/v1/models")
    wait_for(lambda: health(workstation) == "200", READY_SECONDS, "200 of /health")
    workstation.exec(f"docker stop {NAME}")
    assert ended(workstation) == "0"


def test_failed_load_ends_with_1(workstation: Workstation, start: Start) -> None:
    """A load that fails on purpose and one of a damaged file end alike."""
    models.behave(workstation, models.CHAT, fail=True)
    start(models.CHAT, ready=False)
    assert wait_for(lambda: ended(workstation), READY_SECONDS, "the end") == "1"
    workstation.exec(f"docker rm {NAME}; echo damaged > {models.FOLDER}/damaged.gguf")
    start("damaged.gguf", ready=False)
    assert wait_for(lambda: ended(workstation), READY_SECONDS, "the end") == "1"
    workstation.exec(f"rm {models.FOLDER}/damaged.gguf")


def test_slow_generation_takes_its_time(workstation: Workstation, start: Start) -> None:
    """No more tokens come in a second than asked for."""
    models.behave(workstation, models.CHAT, tokens_per_second=20)
    start(models.CHAT)
    found = post(workstation, "/v1/chat/completions", **question(max_tokens=20))
    assert found["timings"]["predicted_per_second"] < 21


def test_unknown_argument_is_refused(workstation: Workstation, start: Start) -> None:
    """The arguments are llama.cpp's own, and what it does not know ends it."""
    start(models.CHAT, "--no-such-argument", ready=False)
    assert wait_for(lambda: ended(workstation), READY_SECONDS, "the end") == "1"
    assert (
        "invalid argument: --no-such-argument"
        in workstation.exec(f"docker logs {NAME} 2>&1").stdout
    )
