"""`gatehouse smoke`: is the gateway usable, the whole way from a new key to a fallback."""

import fcntl
import json
import os
import signal
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any, Literal

import click
from pydantic import BaseModel, Field, SecretStr
from rich.markup import escape

from gatehouse import state
from gatehouse.settings import Settings
from gatehouse.settings.models import Mode
from gatehouse.tool import here, served
from gatehouse.tool.errors import CannotLookError, ProblemError
from gatehouse.tool.here import Gateway, GatewayError
from gatehouse.tool.served import Served
from gatehouse.tool.show import busy, console, emit, json_option, table

ALIAS = "gatehouse-smoke"
CHAT, EMBED, FAILING = "chat-selftest-builtin", "embed-selftest-builtin", "chat-selftest-failing"
_CHAT_PATH = "/v1/chat/completions"
# Should this program be killed, the key ends by itself.
_KEY_TIME = "10m"
# The cache is written after the answer was sent.
_CACHED_SECONDS = 5.0
_LOOK_SECONDS = 0.1
_BAD = 400
_LOGS = "cd /opt/gatehouse/current && docker compose logs --tail 50 redis litellm"
_UNCACHED = {"cache": {"no-cache": True, "no-store": True}}


class Step(BaseModel):
    """One thing that a client does with the gateway."""

    name: str = Field(
        description="key, models, completion, stream, embedding, rerank, cache or fallback; with "
        "--wake also engine-chat and engine-embedding"
    )
    state: Literal["ok", "failed", "skipped"] = Field(description="skipped: nothing to try it with")
    model: str | None = Field(description="the model that was asked")
    seconds: float | None = Field(description="how long it took; null when it was skipped")
    found: str = Field(description="what was seen, or why it was skipped")
    fix: str | None = Field(description="what to do about it; null where nothing is wrong")


class SmokeDocument(BaseModel):
    """What `gatehouse smoke` found."""

    checked: float = Field(description="when, in seconds since the epoch")
    seconds: float = Field(description="how long all of it took")
    ok: bool = Field(description="whether no step failed")
    wake: bool = Field(description="whether engines were woken for it")
    steps: list[Step] = Field(description="in the order in which they were done")


class SkippedError(Exception):
    """There is nothing to try a step with; says why, and how to get it."""

    def __init__(self, why: str, fix: str | None = None) -> None:
        """Hold both."""
        super().__init__(why)
        self.fix = fix


class FailedError(Exception):
    """A step did not give what it should; says what it gave."""

    def __init__(self, found: str, fix: str = "sudo gatehouse doctor") -> None:
        """Hold both."""
        super().__init__(found)
        self.fix = fix


@dataclass
class Smoke:
    """One walk through the gateway: the steps share a key and what they have learnt."""

    settings: Settings
    gateway: Gateway
    wake: bool
    client: Gateway | None = None
    models: dict[str, Served] = field(default_factory=dict)
    awake: set[str] = field(default_factory=set)
    model: str | None = None

    def document(self) -> SmokeDocument:
        """Do every step; the key is gone afterwards, whatever happened."""
        begin, checked = time.monotonic(), time.time()
        with self._without_key_afterwards():
            steps = [self._step(name, what) for name, what in self._steps()]
        return SmokeDocument(
            checked=round(checked, 3),
            seconds=round(time.monotonic() - begin, 3),
            ok=all(step.state != "failed" for step in steps),
            wake=self.wake,
            steps=steps,
        )

    def _steps(self) -> list[tuple[str, Callable[[], str]]]:
        steps: list[tuple[str, Callable[[], str]]] = [
            ("key", self._key),
            ("models", self._models),
            ("completion", lambda: self._completion(CHAT)),
            ("stream", self._stream),
            ("embedding", lambda: self._embedding(EMBED)),
            ("rerank", self._rerank),
            ("cache", self._cache),
            ("fallback", self._fallback),
        ]
        if self.wake:
            steps += [
                ("engine-chat", lambda: self._completion(self._engine_model("chat"))),
                ("engine-embedding", lambda: self._embedding(self._engine_model("embedding"))),
            ]
        return steps

    def _step(self, name: str, what: Callable[[], str]) -> Step:
        self.model = None
        begin = time.monotonic()
        fix: str | None = None
        outcome: Literal["ok", "failed", "skipped"]
        try:
            if self.client is None and name != "key":
                raise SkippedError("there is no key to ask with")  # noqa: TRY301 - as below
            with busy(name):
                found, outcome = what(), "ok"
        except SkippedError as skipped:
            found, outcome, fix = str(skipped), "skipped", skipped.fix
        except FailedError as failed:
            found, outcome, fix = str(failed), "failed", failed.fix
        except (ProblemError, CannotLookError) as error:
            found, outcome, fix = error.message, "failed", "sudo gatehouse doctor"
        seconds = round(time.monotonic() - begin, 3)
        return Step(
            name=name,
            state=outcome,
            model=self.model,
            seconds=None if outcome == "skipped" else seconds,
            found=found,
            fix=fix,
        )

    def _key(self) -> str:
        # What a run that was killed has left behind.
        self._remove_key()
        made = self.gateway.post("/key/generate", {"key_alias": ALIAS, "duration": _KEY_TIME})
        self.client = Gateway(self.settings, SecretStr(made["key"]))
        return f"made for {_KEY_TIME}, with the limits of a new key"

    def _remove_key(self) -> None:
        with suppress(GatewayError):  # there is none
            self.gateway.post("/key/delete", {"key_aliases": [ALIAS]})

    @contextmanager
    def _without_key_afterwards(self) -> Iterator[None]:
        try:
            yield
        finally:
            # A second Ctrl+C would leave the key behind.
            before = signal.signal(signal.SIGINT, signal.SIG_IGN)
            try:
                if self.client is not None:
                    with suppress(CannotLookError):
                        self._remove_key()
            finally:
                signal.signal(signal.SIGINT, before)

    def _models(self) -> str:
        names = [str(model["id"]) for model in self._ask("GET", "/v1/models")["data"]]
        if not names:
            raise FailedError("no model is offered")
        self.models = served.served(self.gateway, self.settings)
        self.awake = served.awake(self.settings)
        return f"{len(names)} are offered"

    def _completion(self, name: str) -> str:
        self._offered(name)
        answer = self._ask("POST", _CHAT_PATH, question(name, "Are you there?"))
        return f"answered with {len(said(answer).split())} words"

    def _stream(self) -> str:
        self._offered(CHAT)
        body = question(CHAT, "Are you there?") | {"stream": True}
        begin = time.monotonic()
        first, tokens, done = None, 0, False
        assert self.client is not None  # noqa: S101 - the step before made it
        with self.client.stream(_CHAT_PATH, body) as answer:
            if answer.status_code >= _BAD:
                raise FailedError(f"LiteLLM answered {answer.status_code}")
            for line in answer.iter_lines():
                if not (data := line.removeprefix("data:").strip()) or line.startswith(":"):
                    continue
                first = first or time.monotonic() - begin
                done = data == "[DONE]"
                tokens += 0 if done else _has_content(data)
        if first is None or not tokens or not done:
            raise FailedError(
                f"{tokens} pieces came, and the end of the stream {'too' if done else 'never'}"
            )
        return f"first byte after {first * 1000:.0f} ms, {tokens} pieces"

    def _embedding(self, name: str) -> str:
        self._offered(name)
        body = {"model": name, "input": "Are you there?", **_UNCACHED}
        answer = self._ask("POST", "/v1/embeddings", body)
        size = len(answer["data"][0]["embedding"])
        if not size:
            raise FailedError("the embedding is empty")
        return f"{size} dimensions"

    def _rerank(self) -> str:
        rerankers = [model for model in self.models.values() if model.kind == "rerank"]
        if self.wake and (asleep := [model for model in rerankers if model.engine]):
            chosen = self._engine_model("rerank") if asleep else None
        else:
            chosen = next((model.name for model in served.at_hand(rerankers, self.awake)), None)
        if chosen is None:
            raise _nothing("rerank", rerankers)
        self.model = chosen
        documents = ["The weather is fine.", "A gateway passes requests on.", "Bread is baked."]
        body = {"model": chosen, "query": "What is a gateway?", "documents": documents}
        results = self._ask("POST", "/v1/rerank", body, timeout=self._patience(chosen))["results"]
        if len(results) != len(documents):
            raise FailedError(f"{len(results)} results for {len(documents)} documents")
        return f"{len(results)} documents in order"

    def _cache(self) -> str:
        if not self.settings.redis_cache_ttl_seconds:
            raise SkippedError("the cache is switched off", "redis_cache_ttl_seconds = 600")
        self._offered(CHAT)
        body = question(CHAT, f"Are you there, {uuid.uuid4()}?")
        del body["cache"]
        if _cached(self._raw("POST", _CHAT_PATH, json=body)):
            raise FailedError("a question that was never asked before came from the cache")
        end = time.monotonic() + _CACHED_SECONDS
        while not _cached(self._raw("POST", _CHAT_PATH, json=body)):
            if time.monotonic() > end:
                raise FailedError("the same question again is not answered from the cache", _LOGS)
            time.sleep(_LOOK_SECONDS)
        # A worker answers from its own memory too, while Redis is gone (1.108.7).
        if self.gateway.raw("GET", "/cache/ping").status_code >= _BAD:
            raise FailedError(
                "only the worker's own memory answers: it does not reach Redis", _LOGS
            )
        return "the second answer came from the cache"

    def _fallback(self) -> str:
        targets = self.settings.models_fallbacks.get(FAILING, [])
        if FAILING not in self.models or CHAT not in targets:
            raise SkippedError(
                f"{FAILING} and its fallback are not set",
                "keep their lines of group_data/all.py in models and models_fallbacks",
            )
        self.model = FAILING
        body = question(FAILING, "Are you there?")
        answer = self._raw("POST", _CHAT_PATH, json=body)
        if int(answer.headers.get("x-litellm-attempted-fallbacks") or 0) < 1:
            raise FailedError(f"{FAILING} fails on purpose, and yet no fallback was asked")
        said(answer.json())
        return f"{CHAT} answered instead"

    def _engine_model(self, kind: Mode) -> str:
        """Give a model of this kind that an engine answers for, with its engine awake."""
        of_kind = [model for model in self.models.values() if model.kind == kind]
        chosen = next((model for model in of_kind if model.engine), None)
        if chosen is None or chosen.engine is None:
            raise _nothing(kind, [])
        self.model = chosen.name
        served.wake(chosen.engine)
        return chosen.name

    def _offered(self, name: str) -> None:
        self.model = name
        if name not in self.models:
            raise SkippedError(
                f"{name} is not offered", "keep its line of group_data/all.py in models"
            )

    def _patience(self, name: str) -> float:
        model = next((each for each in self.settings.all_models if each.name == name), None)
        return float(
            (model and model.timeout_seconds) or self.settings.litellm_request_timeout_seconds
        )

    def _ask(self, method: str, path: str, body: dict[str, Any] | None = None, **more: Any) -> Any:  # noqa: ANN401 - JSON
        options = more if body is None else {"json": body, **more}
        answer = self._raw(method, path, **options)
        if int(answer.headers.get("x-litellm-attempted-fallbacks") or 0):
            raise FailedError("another model answered instead (its fallback)")
        return answer.json()

    def _raw(self, method: str, path: str, **options: Any) -> Any:  # noqa: ANN401 - httpx's
        assert self.client is not None  # noqa: S101 - the first step made it
        answer = self.client.raw(method, path, **options)
        if answer.status_code >= _BAD:
            raise FailedError(f"LiteLLM answered {answer.status_code}: {here.words(answer)}")
        return answer


def question(model: str, text: str) -> dict[str, Any]:
    """Give a chat request that the cache has nothing to do with."""
    body = {"model": model, "messages": [{"role": "user", "content": text}], "max_tokens": 16}
    return body | _UNCACHED


def said(answer: dict[str, Any]) -> str:
    """Give the words of a chat answer; raises `FailedError` where there are none."""
    choices = answer.get("choices") or [{}]
    content = (choices[0].get("message") or {}).get("content")
    if not content:
        raise FailedError("the answer has no words in it")
    return str(content)


def _has_content(data: str) -> bool:
    try:
        choices = json.loads(data).get("choices") or [{}]
    except ValueError:
        raise FailedError(f"the stream holds something that is no JSON: {data[:80]}") from None
    return bool((choices[0].get("delta") or {}).get("content"))


def _cached(answer: Any) -> bool:  # noqa: ANN401 - httpx's
    return bool(answer.headers.get("x-litellm-cache-key"))


def _nothing(kind: Mode, there: list[Served]) -> SkippedError:
    """Say why there is no model of a kind to ask, and how to get one."""
    if asleep := [model for model in there if model.engine]:
        return SkippedError(
            f"{', '.join(model.name for model in asleep)} sleeps, and nothing is woken",
            "gatehouse smoke --wake",
        )
    examples = {
        "chat": 'models_enable = ["chat-hermes-3-llama-3.1-8b"]',
        "embedding": 'models_enable = ["embed-arctic-l-v2"]',
        "rerank": 'models_enable = ["rerank-bge-v2-m3"]',
    }
    return SkippedError(f"no {kind} model with an engine is offered", examples[kind])


@click.command()
@json_option
@click.option("--record", is_flag=True, help="Keep the result in /var/lib/gatehouse/state.")
@click.option("--wake", is_flag=True, help="Ask engines too: one each for chat, embedding, rerank.")
def smoke(*, as_json: bool, record: bool, wake: bool) -> None:
    """Try the gateway as a client would, and say how long each step takes.

    A key is made for it and removed at the end. No engine is woken without --wake, and no provider
    is ever asked: it costs nothing.

    \b
    sudo gatehouse smoke          can the gateway be used?
    sudo gatehouse smoke --wake   and can its engines?

    Exit codes: 0 every step is fine or was skipped, 1 a step failed, 2 it could not be tried.
    """  # noqa: D301 - click's mark for a block that stays as it is
    here.be_root("smoke")
    found = here.settings()
    with _alone(), _ended_gently():
        document = Smoke(found, Gateway(found), wake).document()
    if record:
        state.write("smoke", document.model_dump())
    if as_json:
        emit(document)
    else:
        _show(document)
    if not document.ok:
        raise SystemExit(1)


def _show(document: SmokeDocument) -> None:
    styles = {"ok": "green", "failed": "bold red", "skipped": "dim"}
    rows = table("step", "result", "ms", "model", "found", right=("ms",))
    for step in document.steps:
        rows.add_row(
            step.name,
            f"[{styles[step.state]}]{step.state}[/]",
            "" if step.seconds is None else f"{step.seconds * 1000:.0f}",
            step.model or "",
            escape(step.found),
        )
    console().print(rows)
    for step in document.steps:
        if step.fix:
            click.echo(f"{step.name}: {step.fix}")
    click.echo(
        "The gateway can be used."
        if document.ok
        else f"Failed: {', '.join(each.name for each in document.steps if each.state == 'failed')}."
    )


@contextmanager
def _alone() -> Iterator[None]:
    """Let nobody else do the same: the key has one name."""
    path = state.FOLDER / ".smoke.lock"
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise CannotLookError("another gatehouse smoke runs: wait for its end") from None
        yield
    finally:
        os.close(handle)


@contextmanager
def _ended_gently() -> Iterator[None]:
    """Treat `systemctl stop` like Ctrl+C: the key is removed."""

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
