"""The document as Prometheus' metrics: `gatehouse_…`, in seconds and bytes."""

from collections.abc import Iterator

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric

from gatehouse.health.document import Document, Status
from gatehouse.version import version

_MIB = 1 << 20
# Of every check that compares the host with what was rendered for it, how its name ends.
DRIFT = (
    "files are as rendered",
    "modes of files are as rendered",
    "of the current release",
    "containers see the release's files",
    "images are those that the containers run",
    "the configuration that runs is as promised",
)
STATES = ("asleep", "loading", "awake", "leaving", "refused", "failed")


class Collector:
    """Gives the metrics of one document, at one moment."""

    def __init__(self, document: Document | None, now: float, *, ready: bool) -> None:
        """Hold what is to be told; without a document little is known."""
        self._document = document
        self._ready = ready
        self._now = now

    def collect(self) -> Iterator[Metric]:
        """Yield every metric."""
        found = self._document
        yield _one("gatehouse_ready", "Whether the gateway can serve, asked now.", self._ready)
        yield _one(
            "gatehouse_document_readable", "Whether there is a document to read.", found is not None
        )
        yield _many(
            "gatehouse_build_info",
            "The version and the release that runs.",
            ("version", "release"),
            [((version(), (found.release if found else None) or "none"), 1)],
        )
        if found:
            yield from _about(found, self._now)
            yield from _checks(found.status)
            yield from _engines(found)
            yield from _usage(found)
            yield from _keys(found)
            yield from _chores(found)
            yield from _backups(found)


def registry(document: Document | None, now: float, *, ready: bool) -> CollectorRegistry:
    """Give a registry of this one answer: nothing is kept between two of them."""
    made = CollectorRegistry()
    made.register(Collector(document, now, ready=ready))
    return made


def _one(name: str, meaning: str, value: float) -> Metric:
    return GaugeMetricFamily(name, meaning, value=float(value))


def _many(
    name: str,
    meaning: str,
    labels: tuple[str, ...],
    values: list[tuple[tuple[str, ...], float | None]],
) -> Metric:
    family = GaugeMetricFamily(name, meaning, labels=labels)
    for of, value in values:
        if value is not None:
            family.add_metric(of, float(value))
    return family


def _about(found: Document, now: float) -> Iterator[Metric]:
    yield _one("gatehouse_document_timestamp_seconds", "When the collector began.", found.gathered)
    yield _one("gatehouse_document_age_seconds", "How old the document is.", now - found.gathered)
    yield _one("gatehouse_document_stale", "Whether it is too old.", found.stale(now))
    yield _one("gatehouse_collect_duration_seconds", "How long it took.", found.seconds)
    parts = (
        *("status", "engines", "pools", "spaces", "usage", "keys", "actions", "timers", "jobs"),
        "backups",
    )
    yield _many(
        "gatehouse_part_readable",
        "Whether the collector could read a part of it.",
        ("part",),
        [((part,), part not in found.troubles) for part in parts],
    )


def _checks(status: Status | None) -> Iterator[Metric]:
    checks = status.checks if status else []
    labels = ("name", "component", "severity")
    yield _many(
        "gatehouse_check_ok",
        "Whether a check holds.",
        labels,
        [((each.name, each.component, each.severity), each.state == "ok") for each in checks],
    )
    yield _many(
        "gatehouse_check_hushed",
        "Whether a check does not hold only because another does not.",
        labels,
        [((each.name, each.component, each.severity), each.state == "hushed") for each in checks],
    )
    summary = status.summary.model_dump() if status else {}
    yield _many(
        "gatehouse_checks",
        "How many checks there are of a state.",
        ("state",),
        [((state,), count) for state, count in summary.items()],
    )
    if status:
        yield _one("gatehouse_checks_duration_seconds", "How long they took.", status.seconds)
        yield _one(
            "gatehouse_drift_checks",
            "How many checks say that the host is not what was deployed.",
            len(drifted(status)),
        )


def drifted(status: Status) -> list[str]:
    """Give what the checks say is not as it was deployed."""
    return [
        f"{each.name}: {each.found}"
        for each in status.checks
        if each.state not in {"ok", "hushed"} and each.name.endswith(DRIFT)
    ]


def _engines(found: Document) -> Iterator[Metric]:
    engines = found.engines or []
    yield _many(
        "gatehouse_engine_state",
        "What an engine does: 1 for that, 0 for everything else.",
        ("engine", "state"),
        [((each.name, state), each.state == state) for each in engines for state in STATES],
    )
    yield _many(
        "gatehouse_engine_connections",
        "Open connections of an engine.",
        ("engine",),
        [((each.name,), each.connections) for each in engines],
    )
    yield _many(
        "gatehouse_engine_need_bytes",
        "Memory that is set aside for an engine.",
        ("engine", "pool"),
        [((each.name, each.pool), _bytes(each.need_mib)) for each in engines],
    )
    yield _many(
        "gatehouse_engine_load_seconds",
        "How long an engine took to load when that was measured last.",
        ("engine",),
        [((each.name,), each.load_seconds) for each in engines],
    )
    yield _many(
        "gatehouse_pool_readable",
        "Whether a memory that engines take from can be read.",
        ("pool",),
        [((each.name,), each.error is None) for each in found.pools],
    )
    pools = [pool for pool in found.pools if not pool.error]
    for name, meaning in (
        ("total", "All of it."),
        ("used", "What anybody uses."),
        ("reserve", "What engines leave free."),
    ):
        yield _many(
            f"gatehouse_pool_{name}_bytes",
            f"Memory that engines take from: {meaning}",
            ("pool",),
            [((each.name,), _bytes(getattr(each, f"{name}_mib"))) for each in pools],
        )
    yield _many(
        "gatehouse_pool_engine_bytes",
        "Memory that an engine holds or was promised.",
        ("pool", "engine"),
        [((pool.name, one.name), _bytes(one.mib)) for pool in pools for one in pool.engines],
    )
    for name, meaning in (("total", "All of it."), ("used", "What is used.")):
        yield _many(
            f"gatehouse_host_{name}_bytes",
            f"The host's memory and disk: {meaning}",
            ("space",),
            [((each.name,), _bytes(getattr(each, f"{name}_mib"))) for each in found.spaces],
        )


def _bytes(mib: int | None) -> int | None:
    return None if mib is None else mib * _MIB


def _usage(found: Document) -> Iterator[Metric]:
    if not found.usage:
        return
    of = found.usage
    for name, meaning, value in (
        ("requests", "Requests", of.requests),
        ("requests_failed", "Requests that failed", of.failed),
        ("tokens", "Tokens", of.tokens),
        ("spend_dollars", "Spend", of.spend),
    ):
        yield _one(f"gatehouse_last_day_{name}", f"{meaning} of the last 24 hours.", value)
    for name, meaning in (
        ("requests", "Requests"),
        ("failed", "Requests that failed"),
        ("tokens", "Tokens"),
    ):
        yield _many(
            f"gatehouse_last_day_model_{name}",
            f"{meaning} of the last 24 hours, of the models that were asked most.",
            ("model",),
            [((each.model,), getattr(each, name)) for each in of.models],
        )


def _keys(found: Document) -> Iterator[Metric]:
    if not found.keys:
        return
    keys = found.keys
    yield _many(
        "gatehouse_keys",
        "How many keys somebody should look at.",
        ("state",),
        [
            (("expired",), len(keys.expired)),
            (("expiring",), len(keys.expiring)),
            (("unlimited",), len(keys.unlimited)),
        ],
    )
    yield _many(
        "gatehouse_key_expiry_timestamp_seconds",
        "When a key expires or expired.",
        ("alias",),
        [((key.alias,), key.expires) for key in (*keys.expired, *keys.expiring)],
    )


def _chores(found: Document) -> Iterator[Metric]:
    entries = CounterMetricFamily(
        "gatehouse_audit_entries", "Lines of the audit log.", labels=("result",)
    )
    for result, count in (found.actions.counts if found.actions else {}).items():
        entries.add_metric((result,), count)
    yield entries
    timers = found.timers or []
    yield _many(
        "gatehouse_timer_last_timestamp_seconds",
        "When a timer fired last.",
        ("timer",),
        [((each.unit,), each.last) for each in timers],
    )
    yield _many(
        "gatehouse_timer_next_timestamp_seconds",
        "When a timer fires next.",
        ("timer",),
        [((each.unit,), each.next) for each in timers],
    )
    yield _many(
        "gatehouse_timer_ok",
        "Whether it will fire again, and what it starts could do its work.",
        ("timer",),
        [((each.unit,), each.result not in {"failed", "off"}) for each in timers],
    )
    yield _many(
        "gatehouse_job_timestamp_seconds",
        "When smoke, probe and the like wrote their last result.",
        ("job",),
        [((each.name,), each.written) for each in found.jobs],
    )
    yield _many(
        "gatehouse_job_ok",
        "Whether that result was good.",
        ("job",),
        [((each.name,), each.ok) for each in found.jobs],
    )
    if found.alerts:
        yield _one(
            "gatehouse_alerts_working",
            "Whether the last alert could be delivered.",
            found.alerts.trouble is None,
        )


def _backups(found: Document) -> Iterator[Metric]:
    of = found.backups
    if not of:
        return
    for name, meaning, value in (
        ("backup_age_limit_seconds", "How old the last good backup may be.", of.limit_seconds),
        ("backup_timestamp_seconds", "When the last good backup was made.", of.good),
        ("backup_duration_seconds", "How long it took.", of.seconds),
        ("backup_dump_bytes", "Size of the database's dump in it.", of.dump_bytes),
        ("backup_ok", "Whether the last backup could be made.", of.ok),
        ("backup_snapshots", "How many snapshots can be gone back to.", of.snapshots),
        ("backup_repository_bytes", "What the repository takes.", of.bytes),
        ("backup_verify_timestamp_seconds", "When a part of it was last read.", of.verified),
        ("backup_verify_ok", "Whether that part is whole.", of.whole),
        ("drill_timestamp_seconds", "When a backup last came back in a drill.", of.drilled),
        ("drill_duration_seconds", "How long that took.", of.drill_seconds),
        ("drill_ok", "Whether the last drill got everything back.", of.drill_ok),
    ):
        if value is not None:
            yield _one(f"gatehouse_{name}", meaning, value)
