"""The page for people: what stands in the document, in their words."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from gatehouse.health.document import Checked, Document, Engine, Pool, Space, State
from gatehouse.health.metrics import drifted
from gatehouse.health.ready import Ready
from gatehouse.tool.progress import human
from gatehouse.tool.show import span

_THOUSAND = 1000
_GIB = 1024
_SMALL = 0.01
# The worst first.
_ORDER: dict[State, int] = {"failure": 0, "warning": 1, "hushed": 2, "ok": 3}
_CHART_HEIGHT = 44

Mood = Literal["ok", "warning", "failure", "unknown"]


@dataclass(frozen=True)
class Verdict:
    """The one sentence that people came for."""

    mood: Mood
    headline: str
    note: str | None = None


@dataclass(frozen=True)
class Component:
    """The checks of one component."""

    name: str
    state: State
    checks: list[Checked]
    words: str


@dataclass(frozen=True)
class Slice:
    """A part of a bar: where it begins and how long it is, of 100."""

    kind: str
    start: float
    length: float
    words: str


@dataclass(frozen=True)
class Bar:
    """A bar with its words."""

    name: str
    words: str
    slices: list[Slice]
    parts: list[tuple[str, str]] = field(default_factory=list)
    full: bool = False
    error: str | None = None


@dataclass(frozen=True)
class Column:
    """An hour in the chart, in the chart's own units."""

    x: int
    y: float
    height: float
    failed: float
    at: float
    words: str


def verdict(document: Document | None, missing: str | None, ready: Ready, now: float) -> Verdict:
    """Say how it is, the worst first."""
    if not ready.ready:
        return Verdict("failure", "The gateway cannot serve", ready.reason)
    unknown = _unknown(document, missing, now)
    if unknown:
        return unknown
    assert document and document.status  # noqa: S101, PT018 - else nothing is known
    counts = document.status.summary
    if counts.failures:
        verb = "does" if counts.failures == 1 else "do"
        total = _number(len(document.status.checks), "check")
        return Verdict("failure", f"{counts.failures} of {total} {verb} not hold")
    if counts.warnings:
        return Verdict("warning", f"{_number(counts.warnings, 'warning')}, and nothing is broken")
    return Verdict("ok", "Everything holds")


def _unknown(document: Document | None, missing: str | None, now: float) -> Verdict | None:
    if document is None:
        return Verdict("unknown", "Nothing is known yet", missing)
    if document.stale(now):
        words = (
            f"The last look is {span(now - document.gathered)} old; there should be one every "
            f"{span(document.interval_seconds)}. What stands below may be wrong: "
            "systemctl status gatehouse-collect"
        )
        return Verdict("unknown", "Nobody has looked for a while", words)
    if document.status is None:
        words = document.troubles.get("status", "the collector gave no reason")
        return Verdict("unknown", "The checks could not be made", words)
    return None


def _number(count: int, noun: str) -> str:
    return f"{count} {noun}{'' if count == 1 else 's'}"


def problems(document: Document) -> list[Checked]:
    """Give what does not hold, the worst first; what only follows stands at its component."""
    checks = document.status.checks if document.status else []
    wrong = [each for each in checks if each.state in {"failure", "warning"}]
    return sorted(wrong, key=lambda each: _ORDER[each.state])


def components(document: Document) -> list[Component]:
    """Give the components in the order of their checks."""
    by_name: dict[str, list[Checked]] = {}
    for each in document.status.checks if document.status else []:
        by_name.setdefault(each.component, []).append(each)
    return [_component(name, checks) for name, checks in by_name.items()]


def _component(name: str, checks: list[Checked]) -> Component:
    worst = min((each.state for each in checks), key=_ORDER.__getitem__)
    holding = sum(each.state == "ok" for each in checks)
    words = _number(holding, "check") if holding == len(checks) else f"{holding} of {len(checks)}"
    return Component(name, worst, sorted(checks, key=lambda each: _ORDER[each.state]), words)


def pool_bar(pool: Pool) -> Bar:
    """Give the bar of a memory that engines take from: theirs, others', kept free, and free."""
    name = pool.name.replace("card", "GPU") if pool.name != "memory" else "host memory for engines"
    if pool.error:
        return Bar(name, "", [], error=pool.error)
    ours = sum(each.mib for each in pool.engines)
    others = max(0, pool.used_mib - ours)
    parts = [("ours", each.mib, each.name) for each in pool.engines]
    parts += [("others", others, "others"), ("reserve", pool.reserve_mib, "kept free")]
    legend = [("ours", ours, "engines"), ("others", others, "others"), parts[-1]]
    return Bar(
        name,
        f"{size(max(ours, pool.used_mib))} of {size(pool.total_mib)}",
        _slices(parts, pool.total_mib),
        [(kind, f"{of} {size(mib)}") for kind, mib, of in legend],
        full=ours + others > pool.total_mib,
    )


def space_bar(space: Space) -> Bar:
    """Give the bar of the host's memory or disk."""
    words = f"{size(space.used_mib)} of {size(space.total_mib)}"
    parts = [("plain", space.used_mib, "used")]
    full = space.used_mib > 0.9 * space.total_mib
    name = f"{space.name} {space.where}".strip()
    return Bar(name, words, _slices(parts, space.total_mib), full=full)


def _slices(parts: list[tuple[str, int, str]], total: int) -> list[Slice]:
    start = 0.0
    found = []
    for kind, mib, name in parts:
        length = min(100 * mib / total if total else 0, 100 - start)
        if length > 0:
            found.append(Slice(kind, round(start, 2), round(length, 2), f"{name}: {size(mib)}"))
            start += length
    return found


def chart(document: Document) -> list[Column]:
    """Give the columns of the last day."""
    hours = document.usage.hours if document.usage else []
    most = max((hour.requests for hour in hours), default=0)
    found = []
    for number, hour in enumerate(hours):
        height = _CHART_HEIGHT * hour.requests / most if most else 0
        height = max(height, 2) if hour.requests else 0
        failed = height * hour.failed / hour.requests if hour.requests else 0
        words = f"{_number(hour.requests, 'request')}" + (
            f", {hour.failed} failed" if hour.failed else ""
        )
        found.append(
            Column(
                x=number * 10,
                y=round(_CHART_HEIGHT - height, 2),
                height=round(height, 2),
                failed=round(failed, 2),
                at=hour.start,
                words=words,
            )
        )
    return found


def doing(engine: Engine, now: float) -> str:
    """Say what an engine does, and for how long."""
    since = span(max(0, now - engine.since)) if engine.since else ""
    if engine.state == "awake":
        if engine.connections:
            return f"answering, {_number(engine.connections, 'connection')}"
        if engine.idle_seconds is not None and engine.idle_limit_seconds:
            left = max(0.0, engine.idle_limit_seconds - engine.idle_seconds)
            return f"idle for {span(engine.idle_seconds)}, asleep in {span(left)}"
        return f"for {since}"
    if engine.state in {"refused", "failed"}:
        return engine.reason
    return f"for {since}" if since else ""


def size(mib: float | None) -> str:
    """Write memory as people read it."""
    if mib is None:
        return "unknown"
    if mib < _GIB:
        return f"{mib:.0f} MiB"
    gib = mib / _GIB
    return f"{gib:.1f} GiB" if gib < 100 else f"{gib:.0f} GiB"  # noqa: PLR2004 - three digits are enough


def count(number: float) -> str:
    """Write a count: `950`, `12.4 k`, `3.1 M`."""
    for unit in ("", " k", " M", " G"):
        if number < _THOUSAND or unit == " G":
            return f"{number:.0f}{unit}" if not unit or number >= 100 else f"{number:.1f}{unit}"  # noqa: PLR2004 - three digits are enough
        number /= _THOUSAND
    raise AssertionError(number)


def money(dollars: float) -> str:
    """Write dollars; small sums with as many digits as they need."""
    if 0 < dollars < _SMALL:
        return f"${dollars:.4f}" if dollars >= 0.0001 else "<$0.0001"  # noqa: PLR2004 - below, zeroes
    return f"${dollars:,.2f}"


def relative(at: float, now: float) -> str:
    """Write a moment: `12 s ago`, `in 3 min`."""
    return f"{span(now - at)} ago" if at <= now else f"in {span(at - now)}"


def state_of(document: Document | None, ready: Ready, now: float) -> str:
    """Give what decides how the page looks, apart from the time: an answer's ETag is made of it."""
    known = document.model_dump_json() if document else "none"
    stale = document.stale(now) if document else True
    content = f"{known} {ready.ready} {ready.reason} {stale} {_TEMPLATE_DIGEST}"
    return hashlib.sha256(content.encode()).hexdigest()


def render(
    document: Document | None,
    missing: str | None,
    ready: Ready,
    now: float,
    assets: Mapping[str, str],
) -> str:
    """Give the page."""
    found: dict[str, Any] = {
        "assets": assets,
        "document": document,
        "now": now,
        "ready": ready,
        "verdict": verdict(document, missing, ready, now),
    }
    if document:
        found |= {
            "bars": [
                *map(pool_bar, document.pools),
                *map(space_bar, document.spaces),
            ],
            "chart": chart(document),
            "components": components(document),
            "drifted": drifted(document.status) if document.status else None,
            "problems": problems(document),
            "stale": document.stale(now),
        }
    return _ENVIRONMENT.get_template("page.html.j2").render(**found)


_FOLDER = Path(__file__).with_name("templates")
_TEMPLATE_DIGEST = hashlib.sha256((_FOLDER / "page.html.j2").read_bytes()).hexdigest()
_ENVIRONMENT = Environment(
    loader=FileSystemLoader(_FOLDER),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)
_ENVIRONMENT.globals |= {"doing": doing}
_ENVIRONMENT.filters |= {
    "count": count,
    "human": human,
    "money": money,
    "relative": relative,
    "size": size,
    "span": span,
}
