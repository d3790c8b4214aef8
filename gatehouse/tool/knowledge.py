"""`gatehouse knowledge`: prices and context lengths as LiteLLM's list has them, kept on the host.

LiteLLM itself reads the list that its image brings: it takes another one only from a web address at
its start, and waits for it. So this one is compared with, and nothing depends on it.
"""

import hashlib
import json
import os
import tempfile
import time
from pathlib import Path
from typing import Any, BinaryIO, Literal

import click
import httpx
from pydantic import BaseModel, Field
from rich.markup import escape

from gatehouse import audit, state
from gatehouse.settings import Settings
from gatehouse.tool import here, served
from gatehouse.tool.errors import CannotLookError, ProblemError
from gatehouse.tool.here import Gateway
from gatehouse.tool.served import Served
from gatehouse.tool.show import ago, console, emit, json_option, table

FOLDER = Path("/var/lib/gatehouse/knowledge")
MOST_BYTES = 32 * 1024 * 1024
FEWEST_MODELS = 50
_MOST_WRONG = 0.01
_SECONDS = 30.0
_ALL_SECONDS = 180.0
_MILLION = 1_000_000
# Entries of the list that are no models.
_RESERVED = ("sample_spec", "fallback_generalizations")
_NUMBERS = (
    *("input_cost_per_token", "output_cost_per_token", "input_cost_per_query"),
    *("max_tokens", "max_input_tokens", "max_output_tokens", "output_vector_size"),
)
_TEXTS = ("mode", "litellm_provider")

# Name of a model → what is known of it.
Models = dict[str, dict[str, Any]]


class RefreshDocument(BaseModel):
    """What `gatehouse knowledge refresh` did; kept as state/knowledge.json."""

    checked: float = Field(description="when, in seconds since the epoch")
    ok: bool = Field(description="whether a list was taken")
    source: str = Field(description="where it came from")
    models: int = Field(description="how many models the list that is kept now knows")
    added: int = Field(description="how many of them the list before did not know")
    removed: int = Field(description="how many the list before knew and this one does not")
    sha256: str | None = Field(description="of the list that was taken; null: none was")
    error: str | None = Field(description="why none was taken")


class Compared(BaseModel):
    """One offered model, compared with the list; prices are for a million tokens, in dollars."""

    name: str = Field(description="as clients ask for it")
    key: str | None = Field(description="its name in the list; null: it is not there")
    state: Literal["same", "differs", "unknown", "local"] = Field(
        description="local: this host answers, so there is no price"
    )
    found: str = Field(description="what differs, in words")
    context_tokens: int | None = Field(description="as LiteLLM was told")
    known_context_tokens: int | None = Field(description="as the list has it")
    input_price: float | None = Field(description="as LiteLLM counts it")
    known_input_price: float | None = Field(description="as the list has it")
    output_price: float | None = Field(description="as LiteLLM counts it")
    known_output_price: float | None = Field(description="as the list has it")


class KnowledgeDocument(BaseModel):
    """What `gatehouse knowledge` shows."""

    fetched: float | None = Field(description="when the list was taken, in seconds since the epoch")
    source: str | None = Field(description="where it came from")
    known: int = Field(description="how many models it knows")
    models: list[Compared] = Field(description="the models that are offered, by name")


class RefusedError(Exception):
    """A list was not taken; says why."""


def check(content: bytes, before: int) -> Models:
    """Read a list and keep what is used of it; raises `RefusedError`.

    `before` is how many models the list knew that is there.
    """
    try:
        found = json.loads(content)
    except ValueError as error:
        raise RefusedError(f"it is no JSON: {error}") from None
    if not isinstance(found, dict):
        raise RefusedError("it is no list of models by name")
    entries = {name: entry for name, entry in found.items() if name not in _RESERVED}
    if len(entries) < FEWEST_MODELS:
        raise RefusedError(f"it knows {len(entries)} models, fewer than {FEWEST_MODELS}")
    if len(entries) < before / 2:
        raise RefusedError(
            f"it knows {len(entries)} models, less than half of the {before} before; if that is "
            f"right, remove {FOLDER} and refresh again"
        )
    wrong = [name for name, entry in entries.items() if not _is_sane(entry)]
    if len(wrong) > len(entries) * _MOST_WRONG:
        raise RefusedError(
            f"{len(wrong)} of its {len(entries)} models are not described as they should be: "
            f"{', '.join(wrong[:3])} …"
        )
    return {
        name: {key: entry[key] for key in (*_NUMBERS, *_TEXTS) if entry.get(key) is not None}
        for name, entry in entries.items()
        if name not in wrong
    }


def _is_sane(entry: object) -> bool:
    """Tell whether the fields that are used hold what they should; the others are not kept."""
    if not isinstance(entry, dict):
        return False
    numbers = [entry[key] for key in _NUMBERS if entry.get(key) is not None]
    texts = [entry[key] for key in _TEXTS if entry.get(key) is not None]
    return all(
        isinstance(number, int | float) and not isinstance(number, bool) and number >= 0
        for number in numbers
    ) and all(isinstance(text, str) for text in texts)


def fetch(url: str) -> bytes:
    """Get a list; raises `RefusedError`."""
    end = time.monotonic() + _ALL_SECONDS
    content = bytearray()
    try:
        with httpx.stream("GET", url, timeout=_SECONDS) as answer:
            if answer.is_redirect:
                target = answer.headers.get("location", "?")
                raise RefusedError(f"it has moved to {target}: set knowledge_url")
            if answer.status_code != httpx.codes.OK:
                raise RefusedError(f"the server answered {answer.status_code} (knowledge_url)")
            for piece in answer.iter_bytes():
                content += piece
                if len(content) > MOST_BYTES:
                    raise RefusedError(f"it is larger than {MOST_BYTES // 2**20} MiB")
                if time.monotonic() > end:
                    raise RefusedError(f"it did not arrive in {_ALL_SECONDS:.0f} s")
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        words = str(error) or type(error).__name__
        raise RefusedError(f"it cannot be fetched (knowledge_url): {words}") from None
    return bytes(content)


def kept() -> Models:
    """Read the list that is there; an empty one where there is none."""
    try:
        found = json.loads((FOLDER / "models.json").read_text())
    except (FileNotFoundError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def keep(models: Models) -> None:
    """Put a list in the place of the one before, which is kept too; a reader sees either, whole."""
    FOLDER.mkdir(mode=0o750, exist_ok=True)
    group = FOLDER.parent.stat().st_gid
    os.chown(FOLDER, -1, group)
    handle, new = tempfile.mkstemp(dir=FOLDER, prefix=".models-")
    try:
        with os.fdopen(handle, "w") as file:
            json.dump(models, file, indent=1, sort_keys=True)
            file.flush()
            os.fsync(file.fileno())
        Path(new).chmod(0o640)
        os.chown(new, -1, group)
        current, before = FOLDER / "models.json", FOLDER / "models-before.json"
        if current.exists():
            before.unlink(missing_ok=True)
            before.hardlink_to(current)
        Path(new).replace(current)
    except BaseException:
        Path(new).unlink(missing_ok=True)
        raise


@click.group(invoke_without_command=True)
@click.pass_context
def knowledge(context: click.Context) -> None:
    """Keep what is known of prices and context lengths, and compare the offered models with it.

    \b
    sudo gatehouse knowledge                       what differs
    sudo gatehouse knowledge refresh               fetch the list, where that is allowed
    sudo gatehouse knowledge refresh --from FILE   take one that was brought here
    """  # noqa: D301 - click's mark for a block that stays as it is
    if context.invoked_subcommand is None:
        context.invoke(show, as_json=False)


@knowledge.command()
@click.option(
    "--from", "file", type=click.File("rb"), metavar="FILE", help="Take this one; - is the input."
)
@json_option
def refresh(*, file: BinaryIO | None, as_json: bool) -> None:
    """Take a new list, if it is sane; the one before is kept beside it.

    Exit codes: 0 taken, 1 it was no good (what is there stays), 2 it may not be fetched.
    """
    here.be_root("knowledge refresh")
    settings = here.settings()
    source = settings.knowledge_url if file is None else getattr(file, "name", "standard input")
    if file is None and not settings.knowledge_refresh:
        audit.record("knowledge refresh", "refused", reason="knowledge_refresh = False")
        raise CannotLookError(
            "this host asks nobody (knowledge_refresh = False): set it and deploy again, or bring "
            "a list: gatehouse knowledge refresh --from FILE"
        )
    document = _refreshed(source, file)
    audit.record(
        "knowledge refresh",
        "ok" if document.ok else "failed",
        source=source,
        models=document.models,
        reason=document.error,
    )
    state.write("knowledge", document.model_dump())
    if as_json:
        emit(document)
    elif document.ok:
        click.echo(
            f"{document.models} models are known: {document.added} new, {document.removed} gone."
        )
    if not document.ok:
        raise ProblemError(
            f"the list from {source} was not taken: {document.error}; {document.models} models are "
            "known as before"
        )


def _refreshed(source: str, file: BinaryIO | None) -> RefreshDocument:
    before = kept()
    now = round(time.time(), 3)
    try:
        content = fetch(source) if file is None else file.read(MOST_BYTES + 1)
        if len(content) > MOST_BYTES:
            raise RefusedError(f"it is larger than {MOST_BYTES // 2**20} MiB")  # noqa: TRY301
        found = check(content, len(before))
    except RefusedError as refused:
        return RefreshDocument(
            checked=now,
            ok=False,
            source=source,
            models=len(before),
            added=0,
            removed=0,
            sha256=None,
            error=str(refused),
        )
    keep(found)
    return RefreshDocument(
        checked=now,
        ok=True,
        source=source,
        models=len(found),
        added=len(found.keys() - before.keys()),
        removed=len(before.keys() - found.keys()),
        sha256=hashlib.sha256(content).hexdigest(),
        error=None,
    )


@knowledge.command()
@json_option
def show(*, as_json: bool) -> None:
    """Compare the offered models with the list.

    Exit codes: 0 nothing differs, 1 something does, 2 there is no list.
    """
    here.be_root("knowledge")
    settings = here.settings()
    known = kept()
    if not known:
        raise CannotLookError(
            "no list is here: gatehouse knowledge refresh --from FILE takes one, and "
            "knowledge_refresh = True lets this host fetch it"
        )
    document = _compared(settings, known)
    if as_json:
        emit(document)
    else:
        _show(document)
    if any(each.state == "differs" for each in document.models):
        raise SystemExit(1)


def _compared(settings: Settings, known: Models) -> KnowledgeDocument:
    offered = served.served(Gateway(settings), settings)
    taken = state.read("knowledge") or {}
    good = taken if taken.get("ok") else {}
    return KnowledgeDocument(
        fetched=round((FOLDER / "models.json").stat().st_mtime, 3),
        source=good.get("source"),
        known=len(known),
        models=[compare(model, known) for _, model in sorted(offered.items())],
    )


def compare(model: Served, known: Models) -> Compared:
    """Compare one model with the list."""
    provider, _, plain = model.backend.partition("/")
    names = (model.backend, plain, str(model.info.get("key") or ""))
    key = next((name for name in names if name in known), None)
    local = model.by != "cloud"
    entry = {} if key is None or local else known[key]
    context = entry.get("max_input_tokens", entry.get("max_tokens"))
    found = Compared(
        name=model.name,
        key=None if local else key,
        state="same",
        found="",
        context_tokens=model.context_tokens,
        known_context_tokens=int(context) if context else None,
        input_price=_price(model.info.get("input_cost_per_token")),
        known_input_price=_price(entry.get("input_cost_per_token")),
        output_price=_price(model.info.get("output_cost_per_token")),
        known_output_price=_price(entry.get("output_cost_per_token")),
    )
    if local:
        return found.model_copy(update={"state": "local", "found": "this host answers"})
    if key is None:
        counted = "as nothing" if found.input_price is None else f"with {found.input_price:g} $"
        words = f"{provider} has no such model in the list; its spend is counted {counted}"
        return found.model_copy(update={"state": "unknown", "found": words})
    words = "; ".join(_differences(found))
    return found.model_copy(update={"state": "differs" if words else "same", "found": words})


def _differences(found: Compared) -> list[str]:
    """Say what is not as the list has it; a context below the list's is the operator's choice."""
    words = []
    if (found.context_tokens or 0) > (found.known_context_tokens or found.context_tokens or 0):
        words.append(
            f"context_tokens = {found.context_tokens}, the list has {found.known_context_tokens}"
        )
    for what, here_, there in (
        ("a question", found.input_price, found.known_input_price),
        ("an answer", found.output_price, found.known_output_price),
    ):
        if there is not None and here_ != there:
            counted = "nothing" if here_ is None else f"{here_:g} $"
            words.append(f"{what} is counted with {counted}, the list has {there:g} $")
    return words


def _price(of_one: object) -> float | None:
    """Give what a million tokens cost."""
    return round(float(of_one) * _MILLION, 6) if isinstance(of_one, int | float) else None


def _show(document: KnowledgeDocument) -> None:
    rows = table("model", "in the list as", "", "what differs")
    styles = {"differs": "bold red", "unknown": "yellow", "same": "green", "local": "dim"}
    for each in document.models:
        style = styles[each.state]
        rows.add_row(each.name, each.key or "", f"[{style}]{each.state}[/]", escape(each.found))
    console().print(rows)
    click.echo(
        f"{document.known} models are known, from {ago(document.fetched)}. Prices: $/million."
    )
