"""What an upgrade would do to a host: images, migrations, what breaks, and for how long. Pure."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel

from gatehouse.settings import Settings
from gatehouse.settings.version import Version, number, refusal, tag

# Whose images must fit the data.
_KEPT = ("postgres", "litellm")
# A start is measured by each deploy; the longest of the last few counts.
_RECENT = 5
# Until one was measured, this bounds what a start takes: the setting of each service.
_BOUNDS = {
    "postgres": "postgres_start_timeout_seconds",
    "redis": "redis_start_timeout_seconds",
    "litellm": "litellm_start_timeout_seconds",
    # The job of the migrations, which a new image always has run.
    "litellm-migrate": "litellm_start_timeout_seconds",
}


class Image(BaseModel):
    """One service's image, now and then."""

    service: str
    now: str | None
    now_digest: str | None
    then: str
    then_digest: str | None
    changes: bool


class Migrations(BaseModel):
    """LiteLLM's migrations of the database; `pending` is None where it cannot be known."""

    pending: list[str] | None
    unknown: list[str]
    failed: list[str]
    why: str | None


class Breaking(BaseModel):
    """One change of LiteLLM that can break something, and what it means with these settings."""

    version: str
    what: str
    here: str


class Downtime(BaseModel):
    """How long the gateway does not answer; `seconds` is None where nothing was measured yet."""

    seconds: float | None
    at_most_seconds: float
    measured: int


class Preview(BaseModel):
    """The whole; `problems` are what forbids it."""

    now: str | None
    then: str | None
    newer: bool
    images: list[Image]
    migrations: Migrations
    breaking: list[Breaking]
    downtime: Downtime
    problems: list[str]

    @property
    def changes(self) -> bool:
        """Whether there is anything to do."""
        return any(image.changes for image in self.images) or bool(self.migrations.pending)


@dataclass(frozen=True)
class _Known:
    version: Version
    what: str
    here: Callable[[Settings], str]


def _says(words: str) -> Callable[[Settings], str]:
    return lambda _settings: words


def _config_wins(s: Settings) -> str:
    if s.litellm_config_source == "database":
        return (
            "models stay those of the database; what people changed in the web interface of "
            "settings that the file names counts no more: look at Settings there afterwards"
        )
    return "nothing: the rendered file was the truth before"


def _zero_budgets(s: Settings) -> str:
    names = [
        *(key.alias for key in s.keys_declared if key.budget == 0),
        *(user.name for user in s.keys_users if user.budget == 0),
        *(team.name for team in s.keys_teams if team.budget == 0),
    ]
    if names:
        return f"budget = 0 of {', '.join(names)} means that they may spend nothing"
    return "no declared key, user or team has budget = 0; keys made by hand may"


def _per_model(s: Settings) -> str:
    teams = len(s.keys_teams)
    return f"{teams} declared teams: limits of their keys count first" if teams else "no team"


def _fallbacks(s: Settings) -> str:
    limited = [key.alias for key in s.keys_declared if key.models]
    if limited and s.models_fallbacks:
        return (
            f"{', '.join(limited)} may ask some models only: their fallbacks (models_fallbacks) "
            "must be among them"
        )
    return "no declared key is limited to models; keys made by hand may be"


# facts: LiteLLM's release notes and issues, of 2026-11.
BREAKING = (
    _Known(
        (1, 98, 0),
        "a custom callback must be an instance, not a class",
        _says("nothing: ours are instances"),
    ),
    _Known((1, 103, 0), "the configuration file wins over the database", _config_wins),
    _Known((1, 103, 0), "max_budget 0 means nothing, not unlimited", _zero_budgets),
    _Known(
        (1, 103, 0),
        "moderation hooks reject the request (#41685)",
        _says("nothing: none is configured"),
    ),
    _Known((1, 103, 0), "a key's limit per model counts before its team's", _per_model),
    _Known(
        (1, 103, 0),
        "budgets are looked at again when a fallback answers (#41379)",
        _says("a request may now end with a budget's error where the fallback answered before"),
    ),
    _Known(
        (1, 105, 0),
        "a failing database always ends the start; /sso/debug is gated",
        _says("nothing: the deploy waits for the database, and goes back where a start fails"),
    ),
    _Known(
        (1, 108, 0),
        "fallbacks that are a text and no list end the start (#48943)",
        _says("nothing: ours are lists"),
    ),
    _Known(
        (1, 109, 0),
        "a key needs the right to the fallback's model too (enforce_fallback_model_access)",
        _fallbacks,
    ),
    _Known((1, 109, 0), "new telemetry", _says("nothing: LITELLM_TELEMETRY_DISABLED is set")),
)


def targets(settings: Settings) -> dict[str, str]:
    """Give service → image reference that these settings want."""
    found = {
        "postgres": settings.postgres_image,
        "redis": settings.redis_image,
        "litellm": settings.litellm_image,
    }
    if settings.metrics_prometheus:
        found["prometheus"] = settings.metrics_prometheus_image
        found["alertmanager"] = settings.metrics_alertmanager_image
    return found


def with_version(image: str, version: str) -> str:
    """Give LiteLLM's image with another tag; a digest goes with the tag that it was of.

    `version` may be a whole reference. Raises `ValueError` when it is neither.
    """
    if "/" in version or ":" in version:
        return version
    if not re.fullmatch(r"v?\d+\.\d+\.\d+([-.]\w[\w.-]*)?", version):
        raise ValueError(f"{version!r} is neither a version as in 1.108.12 nor an image")
    name = image.partition("@")[0]
    old = tag(name)
    name = name[: -len(old) - 1] if old else name
    # As the vendor's tags are written here.
    dressed = f"v{version}" if old.startswith("v") and not version.startswith("v") else version
    return f"{name}:{dressed}"


def breaking(now: Version | None, then: Version | None, settings: Settings) -> list[Breaking]:
    """Give what breaks on the way up; nothing where a version is not known, or on the way down."""
    if now is None or then is None:
        return []
    return [
        Breaking(version=words(known.version), what=known.what, here=known.here(settings))
        for known in BREAKING
        if now < known.version <= then
    ]


def preview(settings: Settings, found: Mapping[str, Any]) -> Preview:
    """Compare what the probe `upgrade` found with what the settings want."""
    wanted = targets(settings)
    running, known = found.get("running", {}), found.get("targets", {})
    images = [
        _image(service, then, running.get(service), known.get(then))
        for service, then in wanted.items()
    ]
    (mine,) = (each for each in images if each.service == "litellm")
    now, then = number(mine.now or ""), number(mine.then)
    migrations = _migrations(found)
    return Preview(
        now=words(now),
        then=words(then),
        newer=bool(now and then and now < then),
        images=images,
        migrations=migrations,
        breaking=breaking(now, then, settings),
        downtime=_downtime(settings, images, migrations, found.get("starts", [])),
        problems=list(_problems(settings, found, now, then, migrations)),
    )


def words(version: Version | None) -> str | None:
    """Write a version."""
    return ".".join(map(str, version)) if version else None


def _image(
    service: str, then: str, has: Mapping[str, Any] | None, there: Mapping[str, Any] | None
) -> Image:
    return Image(
        service=service,
        now=has["reference"] if has else None,
        now_digest=_digest(has),
        then=then,
        then_digest=then.partition("@")[2] or _digest(there),
        changes=not (has and _same(then, has, there)),
    )


def _same(then: str, has: Mapping[str, Any], there: Mapping[str, Any] | None) -> bool:
    """Tell whether it is the image that is there already: a reference may mean another by now."""
    if there and "id" in has:
        return bool(has["id"] == there["id"])
    return bool(has["reference"] == then)


def _digest(image: Mapping[str, Any] | None) -> str | None:
    """Give the registry's digest, or the image's ID where it came from an archive."""
    if not image:
        return None
    digests = [str(each).partition("@")[2] for each in image["digests"]]
    return digests[0] if digests else str(image["id"])


def _migrations(found: Mapping[str, Any]) -> Migrations:
    errors = found.get("errors", {})
    missing = [_reason(errors, key) for key in ("shipped", "database") if key not in found]
    if missing:
        failed = found.get("database", {}).get("failed", [])
        return Migrations(pending=None, unknown=[], failed=failed, why="; ".join(missing))
    shipped, done = set(found["shipped"]), set(found["database"]["done"])
    return Migrations(
        pending=sorted(shipped - done),
        unknown=sorted(done - shipped),
        failed=found["database"]["failed"],
        why=None,
    )


def _downtime(
    settings: Settings, images: list[Image], migrations: Migrations, starts: list[dict[str, Any]]
) -> Downtime:
    """Add up what nobody may be served during: migrations, LiteLLM's start, what it needs."""
    changed = {image.service for image in images if image.changes}
    stop = {name for name in _BOUNDS if name in changed}
    if stop or migrations.pending:
        stop |= {"litellm", "litellm-migrate"}
    measured = {
        name: [float(each["seconds"]) for each in starts if each.get("service") == name][-_RECENT:]
        for name in stop
    }
    seconds = sum(max(each) for each in measured.values()) if all(measured.values()) else None
    return Downtime(
        seconds=seconds if stop else 0.0,
        at_most_seconds=float(sum(getattr(settings, _BOUNDS[name]) for name in stop)),
        measured=min((len(each) for each in measured.values()), default=0),
    )


def _problems(
    settings: Settings,
    found: Mapping[str, Any],
    now: Version | None,
    then: Version | None,
    migrations: Migrations,
) -> list[str]:
    problems = []
    if reason := refusal(settings.litellm_image):
        problems.append(f"{settings.litellm_image} is refused: {reason}")
    unasked = _unasked(settings, found)
    if problem := unasked or _older(settings.litellm_image, now, then, migrations):
        problems.append(problem)
    if problem := _server(settings.postgres_image, found):
        problems.append(problem)
    if migrations.failed:
        problems.append(
            f"{len(migrations.failed)} migrations have failed before ({migrations.failed[0]}): "
            "sudo gatehouse doctor"
        )
    return problems


def refused(settings: Settings, found: Mapping[str, Any]) -> str | None:
    """Say why these images must not serve on this database, or nothing."""
    now, then = number(_before("litellm", found)["reference"] or ""), number(settings.litellm_image)
    older = _older(settings.litellm_image, now, then, _migrations(found))
    return _server(settings.postgres_image, found) or _unasked(settings, found) or older


def _unasked(settings: Settings, found: Mapping[str, Any]) -> str | None:
    """Say that the database had to be asked and was not, or nothing.

    It is asked for other images than those of the release that serves; where none was ever good,
    nothing can be lost.
    """
    errors = found.get("errors", {})
    if "server" not in found:
        return (
            f"whether {settings.postgres_image} can take over the data cannot be known "
            f"({_reason(errors, 'server')}): sudo gatehouse doctor on the host says what is wrong"
        )
    released = found.get("releases", {})
    if "database" in found or not released.get("good"):
        return None
    known = found.get("targets", {})
    for service, wanted in targets(settings).items():
        if service in _KEPT and not _same(wanted, _before(service, found), known.get(wanted)):
            return (
                f"the database does not answer ({_reason(errors, 'database')}), so nobody can say "
                f"whether {wanted} may take it over: start it on the host (cd "
                "/opt/gatehouse/current && docker compose up --detach postgres), then try again"
            )
    return None


def _before(service: str, found: Mapping[str, Any]) -> Mapping[str, Any]:
    """Give what a service runs with, or would where nobody has removed its container."""
    running = found.get("running", {}).get(service)
    current = found.get("releases", {}).get("current", {})
    return running or {"reference": current.get(service)}


def _reason(errors: Mapping[str, Any], key: str) -> str:
    return str(errors.get(key, "the host gave no answer")).removeprefix("OSError: ")


def _server(image: str, found: Mapping[str, Any]) -> str | None:
    """Say why Postgres' image cannot take over the data, or must not."""
    data = found.get("server", {}).get("data", {})
    wanted = found.get("server", {}).get("image", {})

    def other(noun: str) -> bool:
        return noun in data and noun in wanted and bool(data[noun] != wanted[noun])

    move = "docs/upgrade.md says how the data move to another server"
    if other("major"):
        return (
            f"{image} is PostgreSQL {wanted['major']}, the data are of {data['major']}, and no "
            f"server opens another's: {move}"
        )
    if other("library"):
        return (
            f"{image} sorts texts as {wanted['library']} does, and the data were sorted as "
            f"{data['library']} does: indexes would be wrong without a word; {move}"
        )
    return None


def _older(
    image: str, now: Version | None, then: Version | None, migrations: Migrations
) -> str | None:
    back = "`gatehouse rollback --database` goes back with the database"
    if migrations.unknown:
        more = " …" if len(migrations.unknown) > 1 else ""
        return (
            f"{image} does not know {len(migrations.unknown)} migrations that the database has "
            f"({migrations.unknown[0]}{more}): an older LiteLLM on a newer database may lose what "
            f"it does not know; {back}"
        )
    if migrations.pending is None and now and then and then < now:
        return (
            f"{words(then)} is older than {words(now)}, and whether it knows the database cannot "
            f"be known ({migrations.why}); {back}"
        )
    return None
