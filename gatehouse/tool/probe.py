"""`gatehouse probe`: what each offered model can do, found out by asking it."""

import base64
import json
import random
import re
import struct
import time
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import click
import httpx
from pydantic import BaseModel, Field, ValidationError

from gatehouse import state
from gatehouse.settings import Settings
from gatehouse.settings.rules import suggestion
from gatehouse.tool import here, served
from gatehouse.tool.errors import CannotLookError, ProblemError
from gatehouse.tool.here import Gateway
from gatehouse.tool.served import Served
from gatehouse.tool.show import ago, busy, console, emit, json_option, table
from gatehouse.tool.smoke import FAILING

CAPABILITIES = ("chat", "stream", "tools", "json", "vision", "embedding", "rerank", "context")
_BAD = 400
# Try again later: it says nothing about the model.
_PASSING = (401, 403, 408, 429, 502, 503, 504)
_COLOURS = {
    "red": (220, 20, 20),
    "green": (20, 160, 20),
    "blue": (20, 20, 220),
    "yellow": (240, 220, 20),
    "black": (0, 0, 0),
}
_SIDE = 64
_TOOL = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "Tells the weather of a city.",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string"}},
            "required": ["city"],
        },
    },
}
_SUM = {
    "type": "json_schema",
    "json_schema": {
        "name": "sum",
        "strict": True,
        "schema": {
            "type": "object",
            "properties": {"sum": {"type": "integer"}},
            "required": ["sum"],
            "additionalProperties": False,
        },
    },
}

# True and False: it can or cannot; a number: how much; None: not known.
Value = bool | int | None
Change = Literal["new", "lost", "changed", "same"]


class Capability(BaseModel):
    """One thing that a model may be able to do."""

    name: str = Field(description=f"one of {', '.join(CAPABILITIES)}")
    value: Value = Field(
        description="whether it can; for embedding the dimensions, for context the tokens that "
        "LiteLLM was told; null: it could not be found out"
    )
    found: str = Field(description="what was seen")
    seconds: float | None = Field(description="how long the answer took; null: nobody was asked")
    checked: float = Field(description="when, in seconds since the epoch")
    last: Value = Field(description="the last value that was found out, this time or before")
    change: Change | None = Field(
        description="since the last record: new (it can now), lost (it no longer can), changed "
        "(another number), same; null where there is nothing to compare"
    )


class ProbedModel(BaseModel):
    """One model, and what it can do."""

    name: str = Field(description="as clients ask for it")
    kind: str = Field(description="chat, embedding or rerank")
    by: str = Field(description="who answers: builtin, engine, server or cloud")
    skipped: str | None = Field(description="why it was not asked this time; null: it was")
    capabilities: list[Capability] = Field(description="of a skipped model: as recorded before")


class ProbeDocument(BaseModel):
    """What `gatehouse probe` found."""

    checked: float = Field(description="when, in seconds since the epoch")
    since: float | None = Field(description="when it was recorded last; null: never")
    seconds: float = Field(description="how long all of it took")
    models: list[ProbedModel] = Field(description="all that are offered, by name")


@dataclass(frozen=True)
class Asked:
    """What became of one question."""

    value: Value
    found: str


class UnknownError(Exception):
    """Whether a model can do something could not be found out; says why."""


class Probe:
    """Asks one model after the other; each question is small, and asked once."""

    def __init__(self, gateway: Gateway, settings: Settings) -> None:
        """Hold whom to ask."""
        self._gateway = gateway
        self._timeouts = {
            model.name: float(model.timeout_seconds or settings.litellm_request_timeout_seconds)
            for model in settings.all_models
        }
        self._longest = float(settings.litellm_request_timeout_seconds)

    def model(
        self, model: Served, before: dict[str, Capability], *, first: bool
    ) -> list[Capability]:
        """Find out what a model can do; `before` is what was known of it.

        `first`: there is no record at all, so nothing counts as new.
        """
        by_kind: dict[str, dict[str, Callable[[str], Asked]]] = {
            "chat": {
                "chat": self._chat,
                "stream": self._stream,
                "tools": self._tools,
                "json": self._json,
                "vision": self._vision,
            },
            "embedding": {"embedding": self._embedding},
            "rerank": {"rerank": self._rerank},
        }
        found: list[Capability] = []
        for name, ask in by_kind[model.kind].items():
            # A model that does not even answer is not asked for more.
            dead = bool(found) and not found[0].value
            begin = time.monotonic()
            answer = _dead(found[0]) if dead else _answer(ask, model.name)
            seconds = None if dead else round(time.monotonic() - begin, 3)
            found.append(_capability(name, answer, seconds, before.get(name), first=first))
        context = Asked(model.context_tokens, "as LiteLLM was told")
        found.append(_capability("context", context, None, before.get("context"), first=first))
        return found

    def _chat(self, name: str) -> Asked:
        content = self._said(name, "Say OK.")
        return Asked(bool(content), _short(content) or "an answer without words")

    def _stream(self, name: str) -> Asked:
        body = self._body(name, "Say OK.", stream=True)
        pieces, done = 0, False
        with self._gateway.stream(
            "/v1/chat/completions", body, timeout=self._seconds(name)
        ) as answer:
            if answer.status_code >= _BAD:
                answer.read()
                return _refused(answer)
            for line in answer.iter_lines():
                data = line.removeprefix("data:").strip()
                done = done or data == "[DONE]"
                pieces += line.startswith("data:") and '"delta"' in data
        whole = "" if done else ", and no end"
        return Asked(done and pieces > 0, f"{pieces} pieces{whole}")

    def _tools(self, name: str) -> Asked:
        question = "What is the weather in Paris? Use the tool."
        message = self._message(name, question, max_tokens=256, tools=[_TOOL], tool_choice="auto")
        if isinstance(message, Asked):
            return message
        called = [
            str((call.get("function") or {}).get("name"))
            for call in message.get("tool_calls") or []
        ]
        if called:
            return Asked("get_weather" in called, f"called {', '.join(called)}")
        return Asked(value=False, found="answered without the tool")

    def _json(self, name: str) -> Asked:
        message = self._message(name, "What is 2 + 3?", max_tokens=64, response_format=_SUM)
        if isinstance(message, Asked):
            return message
        content = str(message.get("content") or "")
        try:
            answer = json.loads(content)
        except ValueError:
            return Asked(value=False, found=f"no JSON: {_short(content)}")
        fits = isinstance(answer, dict) and set(answer) == {"sum"} and type(answer["sum"]) is int
        return Asked(fits, _short(content))

    def _vision(self, name: str) -> Asked:
        # Two of five, in order: a model that sees nothing hardly guesses them.
        upper, lower = random.sample(sorted(_COLOURS), 2)
        picture = base64.b64encode(png(_COLOURS[upper], _COLOURS[lower])).decode()
        content = [
            {
                "type": "text",
                "text": "The upper half of this picture has one colour, the lower half another. "
                f"Which? Answer with two of these words: {', '.join(_COLOURS)}.",
            },
            {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{picture}"}},
        ]
        message = self._message(name, content, max_tokens=64)
        if isinstance(message, Asked):
            return message
        answer = _words_of(message)
        seen = re.findall("|".join(_COLOURS), answer.lower())[:2]
        right = seen == [upper, lower]
        return Asked(right, f"saw {upper} over {lower}" if right else f"guessed: {_short(answer)}")

    def _embedding(self, name: str) -> Asked:
        answer = self._post("/v1/embeddings", name, {"input": "A gateway."})
        if isinstance(answer, Asked):
            return answer
        size = len(answer["data"][0]["embedding"])
        return Asked(size, f"{size} dimensions") if size else Asked(value=False, found="empty")

    def _rerank(self, name: str) -> Asked:
        documents = ["Bread is baked.", "A gateway passes requests on."]
        body = {"query": "What does a gateway do?", "documents": documents}
        answer = self._post("/v1/rerank", name, body)
        if isinstance(answer, Asked):
            return answer
        count = len(answer.get("results") or [])
        return Asked(count == len(documents), f"{count} of {len(documents)} documents")

    def _said(self, name: str, text: str) -> str:
        message = self._message(name, text, max_tokens=32)
        if isinstance(message, Asked):
            raise UnknownError(message.found)
        return _words_of(message)

    def _message(self, name: str, content: object, **more: object) -> dict[str, Any] | Asked:
        answer = self._post("/v1/chat/completions", name, self._body(name, content, **more))
        if isinstance(answer, Asked):
            return answer
        choices = answer.get("choices") or [{}]
        return dict(choices[0].get("message") or {})

    def _body(self, name: str, content: object, **more: object) -> dict[str, Any]:
        body = {"max_tokens": 32, "messages": [{"role": "user", "content": content}], **more}
        return self._alone(name) | body

    @staticmethod
    def _alone(name: str) -> dict[str, Any]:
        """Have this model answer, now, and nobody in its place."""
        return {
            "model": name,
            "cache": {"no-cache": True, "no-store": True},
            "disable_fallbacks": True,
            "num_retries": 0,
        }

    def _post(self, path: str, name: str, body: dict[str, Any]) -> dict[str, Any] | Asked:
        answer = self._gateway.raw(
            "POST", path, json=self._alone(name) | body, timeout=self._seconds(name)
        )
        if answer.status_code >= _BAD:
            return _refused(answer)
        if int(answer.headers.get("x-litellm-attempted-fallbacks") or 0):
            raise UnknownError("another model answered instead")
        return dict(answer.json())

    def _seconds(self, name: str) -> float:
        return self._timeouts.get(name, self._longest)


def _answer(ask: Callable[[str], Asked], name: str) -> Asked:
    try:
        return ask(name)
    except (UnknownError, ProblemError, CannotLookError) as error:
        return Asked(None, getattr(error, "message", None) or str(error))


def _refused(answer: httpx.Response) -> Asked:
    """Tell a model that cannot from one that could not just now."""
    words = _short(f"{answer.status_code}: {here.words(answer)}")
    if answer.status_code in _PASSING:
        raise UnknownError(words)
    return Asked(value=False, found=words)


def _dead(first: Capability) -> Asked:
    return Asked(None, f"not asked: {first.name} does not work")


def _capability(
    name: str, answer: Asked, seconds: float | None, before: Capability | None, *, first: bool
) -> Capability:
    last = before.last if before else None
    return Capability(
        name=name,
        value=answer.value,
        found=answer.found,
        seconds=seconds,
        checked=round(time.time(), 3),
        last=last if answer.value is None else answer.value,
        change=None if first else changed(last, answer.value),
    )


def changed(before: Value, now: Value) -> Change | None:
    """Compare with what was known; who was not known to be able and is not either has no change."""
    if now is None or (before is None and not now):
        return None
    if bool(before) != bool(now):
        return "new" if now else "lost"
    return "same" if before == now else "changed"


def png(upper: tuple[int, int, int], lower: tuple[int, int, int]) -> bytes:
    """Make a small picture of two colours."""
    rows = b"".join(
        b"\0" + bytes(each) * _SIDE for each in (upper, lower) for _ in range(_SIDE // 2)
    )
    header = struct.pack(">IIBBBBB", _SIDE, _SIDE, 8, 2, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(rows)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in chunks
    )


def recorded() -> ProbeDocument | None:
    """Read the last record; one that cannot be read is none."""
    try:
        return ProbeDocument.model_validate(state.read("probe"))
    except ValidationError:
        return None


@click.command()
@click.argument("models", nargs=-1, metavar="[MODEL]...")
@click.option("--wake", is_flag=True, help="Wake engines that sleep, one after the other.")
@click.option("--cloud", is_flag=True, help="Ask providers too; they may want money for it.")
@json_option
@click.option("--record", is_flag=True, help="Keep it, so that the next time compares with it.")
def probe(models: tuple[str, ...], *, wake: bool, cloud: bool, as_json: bool, record: bool) -> None:
    """Find out what the offered models can do: all of them, or each MODEL.

    Each is asked one small question for each capability. Without options only those are asked that
    cost nothing: the built-in ones, servers of this host, and engines that are awake.

    \b
    sudo gatehouse probe                           what is awake, and what is known of the rest
    sudo gatehouse probe --wake chat-mistral-7b-ollama
    sudo gatehouse probe --cloud --record          ask providers too, and remember it all

    Exit codes: 0 fine, 1 a model does not answer or can no longer do what it could, 2 it could not
    be tried.
    """  # noqa: D301 - click's mark for a block that stays as it is
    here.be_root("probe")
    found = here.settings()
    gateway = Gateway(found)
    document = _look(gateway, found, models, wake=wake, cloud=cloud)
    if record:
        state.write("probe", document.model_dump())
    if as_json:
        emit(document)
    else:
        _show(document)
    if any(map(_is_problem, document.models)):
        raise SystemExit(1)


def _look(
    gateway: Gateway, settings: Settings, names: tuple[str, ...], *, wake: bool, cloud: bool
) -> ProbeDocument:
    begin, now = time.monotonic(), round(time.time(), 3)
    offered = served.served(gateway, settings)
    _refuse_unknown(names, offered, settings)
    before = recorded()
    known = {each.name: each.capabilities for each in before.models} if before else {}
    asking = Probe(gateway, settings)
    rows = []
    for name, model in sorted(offered.items()):
        old = {each.name: each for each in known.get(name, [])}
        skipped = _why_not(model, names, settings, wake=wake, cloud=cloud)
        if skipped is None and wake and model.engine:
            skipped = _woken(model.engine)
        if skipped is None:
            with busy(name):
                capabilities = asking.model(model, old, first=before is None)
        else:
            capabilities = [each.model_copy(update={"change": None}) for each in old.values()]
        rows.append(
            ProbedModel(
                name=name, kind=model.kind, by=model.by, skipped=skipped, capabilities=capabilities
            )
        )
    return ProbeDocument(
        checked=now,
        since=before.checked if before else None,
        seconds=round(time.monotonic() - begin, 3),
        models=rows,
    )


def _refuse_unknown(names: tuple[str, ...], offered: dict[str, Served], settings: Settings) -> None:
    for name in names:
        if name in settings.models_aliases:
            raise CannotLookError(f"{name} is an alias: name a model that it stands for")
        if name not in offered:
            raise CannotLookError(
                f"no model {name!r} is offered{suggestion(name, list(offered))}: "
                "gatehouse inventory lists them"
            )


def _why_not(
    model: Served, names: tuple[str, ...], settings: Settings, *, wake: bool, cloud: bool
) -> str | None:
    """Say why a model is not asked; None: it is."""
    if names and model.name not in names:
        return "not named"
    if model.name == FAILING:
        return "it fails on purpose"
    if model.by == "cloud" and not cloud:
        return "a provider answers for it: --cloud"
    # Looked at now, not once for all: an engine may have gone to sleep meanwhile.
    if model.engine and not wake and model.engine not in served.awake(settings):
        return "its engine sleeps: --wake"
    return None


def _woken(engine: str) -> str | None:
    """Wake an engine; say why not where it does not."""
    try:
        with busy(f"{engine} loads"):
            served.wake(engine)
    except ProblemError as error:
        return error.message
    return None


def _is_problem(model: ProbedModel) -> bool:
    if model.skipped or not model.capabilities:
        return False
    return not model.capabilities[0].value or any(
        each.change == "lost" for each in model.capabilities
    )


def _show(document: ProbeDocument) -> None:
    rows = table("model", "answered by", *CAPABILITIES, "asked", right=("context",))
    for model in document.models:
        cells = {each.name: _cell(each) for each in model.capabilities}
        asked = max((each.checked for each in model.capabilities), default=None)
        rows.add_row(
            model.name,
            model.by,
            *(cells.get(name, "") for name in CAPABILITIES),
            ago(asked),
            style="dim" if model.skipped else "",
        )
    console().print(rows)
    for model in document.models:
        if model.skipped and model.skipped != "not named":
            click.echo(f"{model.name}: not asked, {model.skipped}")
        for each in model.capabilities:
            if not model.skipped and (each.value is None or each.change == "lost"):
                click.echo(f"{model.name}: {each.name}: {each.found}")
    if document.since is None:
        click.echo("Nothing was recorded before: `gatehouse probe --record` does.")
    else:
        click.echo(f"Changes are since the record of {ago(document.since)}.")


def _cell(each: Capability) -> str:
    known = each.last if each.value is None else each.value
    word = "?" if known is None else str(known)
    if isinstance(known, bool):
        word = "yes" if known else "no"
    if each.value is None and known is not None:
        word += "?"
    if each.change == "lost":
        return f"[bold red]{word} (lost)[/]"
    return f"[green]{word} ({each.change})[/]" if each.change in ("new", "changed") else word


def _words_of(message: dict[str, Any]) -> str:
    """Give what was said; a model that thinks aloud may not have come further."""
    return str(message.get("content") or message.get("reasoning_content") or "")


def _short(text: str) -> str:
    return " ".join(text.split())[:120]
