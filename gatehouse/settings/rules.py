"""What single values cannot show: rules between settings.

Each rule reads the valid settings by attribute and yields `(key, message)`. A rule that needs a
setting which is itself invalid is left out, so one mistake is reported once.
"""

import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from difflib import get_close_matches
from ipaddress import IPv4Network
from itertools import combinations
from typing import Any

from gatehouse.settings import oncalendar, version
from gatehouse.settings.engines import Engine, active
from gatehouse.settings.keys import REPLACED, SPECIAL_MODELS, DeclaredKey
from gatehouse.settings.models import ALIAS_NAME
from gatehouse.settings.timers import OFF, TimersSettings

_WIDEST, _NARROWEST = 16, 28
# Of the engines' subnet: those below are the host's and Docker's own.
FIRST_ADDRESS = 10
_OTHERS = ("vllm", "ollama", "tgi")
_HOST_NAME = re.compile(r"[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?")
Found = Iterator[tuple[str, str]]


class Unavailable(Exception):  # noqa: N818 - a signal between two functions, not an error
    """A rule asked for a setting that is missing or invalid."""


class Valid:
    """The settings that are valid by themselves, by attribute."""

    def __init__(self, values: Mapping[str, Any]) -> None:
        """Hold `values`, the settings by key."""
        self._values = values

    def __getattr__(self, key: str) -> Any:  # noqa: ANN401 - a setting of any type
        """Give the setting, or stop the rule that asked for it."""
        try:
            return self._values[key]
        except KeyError:
            raise Unavailable(key) from None


def suggestion(word: str, words: list[str]) -> str:
    """Give ` (did you mean 'x'?)` for the closest of `words`, or an empty string."""
    close = get_close_matches(word, words, n=1, cutoff=0.6)
    return f" (did you mean {close[0]!r}?)" if close else ""


def bind_address(s: Valid) -> Found:
    """A public bind address needs the opt-in."""
    address = s.network_bind_address
    if not address.is_loopback and not s.network_bind_public:
        yield (
            "network_bind_address",
            f"{address} is reachable by others: use 127.0.0.1 and an SSH tunnel, or set "
            "network_bind_public = True if you mean it",
        )


def subnets(s: Valid) -> Found:
    """The networks are private, big enough and apart."""
    networks: dict[str, IPv4Network] = {
        "network_subnet": s.network_subnet,
        "network_inner_subnet": s.network_inner_subnet,
        "network_engines_subnet": s.network_engines_subnet,
    }
    for key, network in networks.items():
        if (
            not network.is_private
            or network.is_loopback
            or not _WIDEST <= network.prefixlen <= _NARROWEST
        ):
            yield key, f"{network} must be a private IPv4 network between /16 and /28"
    for (first, one), (second, other) in combinations(networks.items(), 2):
        if one.overlaps(other):
            yield second, f"{other} overlaps {first} = {one}: choose anew"


def ports(s: Valid) -> Found:
    """No port is used twice, by an engine that is on neither."""
    used: dict[int, str] = {}
    keys = ["litellm_port", "postgres_port", "redis_port", "health_port", "metrics_port"]
    if s.metrics_prometheus:
        keys += ["metrics_prometheus_port", "metrics_alertmanager_port"]
    for key in keys:
        try:
            port = getattr(s, key)
        except Unavailable:
            continue
        if port in used:
            yield key, f"{port} is already {used[port]}: give one of them another port"
        used.setdefault(port, key)
    for engine in _active(s):
        if engine.port in used:
            yield (
                f"engines/{engine.name}/port",
                f"{engine.port} is already {used[engine.port]}: give one of them another port",
            )
        used.setdefault(engine.port, f"the port of engine {engine.name}")


def health_hosts(s: Valid) -> Found:
    """A name is a name: no port, no scheme, no star."""
    for name in s.health_hosts:
        if not _HOST_NAME.fullmatch(name):
            yield "health_hosts", f"{name!r} is no host name: give it as in gateway.example.org"


def images(s: Valid) -> Found:
    """Images are pinned, and LiteLLM's version is not refused."""
    engines = [f"engines_{kind}_image" for kind in ("llamacpp", "llamacpp_gpu", *_OTHERS)]
    metrics = ("metrics_prometheus_image", "metrics_alertmanager_image")
    for key in ("postgres_image", "redis_image", *metrics, *engines):
        try:
            image = getattr(s, key)
        except Unavailable:
            continue
        if version.floating(image):
            yield key, f"{image} can be another image tomorrow: pin a version or a digest"
    reason = version.refusal(s.litellm_image)
    if reason:
        yield "litellm_image", f"{s.litellm_image} is refused: {reason}; {version.ADVICE}"


def archive(s: Valid) -> Found:
    """An archive is named when images come from one."""
    if s.images_source == "archive" and not s.images_archive:
        yield (
            "images_archive",
            'images_source = "archive" needs the path of a `docker save` archive; '
            "docs/airgap.md says how to make one",
        )


def cosign(s: Valid) -> Found:
    """A signature can be required only of what comes from a registry."""
    if s.images_cosign == "required" and s.images_source == "archive":
        yield (
            "images_cosign",
            "an archive carries no signatures: verify the images where the archive is made, lock "
            'them there (docs/supply.md), and set images_cosign = "off" for this host',
        )


def redis_memory(s: Valid) -> Found:
    """Redis' data fit into its container."""
    if s.redis_maxmemory_mib * 4 > s.redis_memory_mib * 3:
        yield (
            "redis_maxmemory_mib",
            f"{s.redis_maxmemory_mib} leaves no room below redis_memory_mib = "
            f"{s.redis_memory_mib}: at most three quarters of it",
        )


def connections(s: Valid) -> Found:
    """The pool leaves connections for migrations and people."""
    if s.litellm_pool_connections + 20 > s.postgres_connections:
        yield (
            "litellm_pool_connections",
            f"{s.litellm_pool_connections} and 20 in reserve are more than postgres_connections "
            f"= {s.postgres_connections}: lower the one or raise the other",
        )
    if s.litellm_workers > s.litellm_pool_connections:
        yield (
            "litellm_workers",
            f"{s.litellm_workers} workers need a connection each and litellm_pool_connections = "
            f"{s.litellm_pool_connections} is all they have: lower the one or raise the other",
        )


def group(s: Valid) -> Found:
    """The group of readers is not one that means more."""
    if s.host_group in {"root", "sudo", "docker", "adm", "wheel", "shadow", "disk"}:
        yield "host_group", f"{s.host_group!r} already means something else: use its own group"


def model_names(s: Valid) -> Found:
    """No two models have one name."""
    for key, names in (("models_extra", s.model_names), ("engines_extra", s.engine_names)):
        for name, count in Counter(names).items():
            if count > 1:
                yield key, f"{name!r} is defined {count} times: rename one of them"


def _active(s: Valid) -> list[Engine]:
    return active([*s.engines, *s.engines_extra], [*s.models, *s.models_extra], s.models_enable)


def engines(s: Valid) -> Found:
    """Engines that are on can be run as they are described."""
    everything = [*s.engines, *s.engines_extra]
    room = s.network_engines_subnet.num_addresses - FIRST_ADDRESS - 1
    if len(everything) > room:
        yield (
            "network_engines_subnet",
            f"{s.network_engines_subnet} holds {room} engines, and there are {len(everything)}: "
            "choose a larger one",
        )
    for engine in everything:
        if engine.idle_seconds < s.engines_health_interval_seconds:
            yield (
                f"engines/{engine.name}/idle_seconds",
                f"{engine.idle_seconds} is below engines_health_interval_seconds = "
                f"{s.engines_health_interval_seconds:g}: it would stop before it is seen to be "
                "ready",
            )


def engine_images(s: Valid) -> Found:
    """Images of engines that are on are pinned."""
    for engine in _active(s):
        if engine.image and version.floating(engine.image):
            message = f"{engine.image} can be another image tomorrow: pin a version or a digest"
            yield f"engines/{engine.name}/image", message


def engine_devices(s: Valid) -> Found:
    """No engine that is on asks for a GPU where none is to be used."""
    for engine in _active(s) if s.gpu_mode == "none" else ():
        if engine.needs_gpu:
            yield (
                f"engines/{engine.name}/device",
                'needs a GPU, and gpu_mode = "none" rules it out: switch the engine off, or the '
                "mode on",
            )


def engine_references(s: Valid) -> Found:
    """What a model says of its engine is true of it."""
    by_name = {engine.name: engine for engine in [*s.engines, *s.engines_extra]}
    for model in [*s.models, *s.models_extra]:
        if not model.engine:
            continue
        key = f"models/{model.name}"
        if model.engine not in s.engine_names:
            close = suggestion(model.engine, s.engine_names)
            yield f"{key}/engine", f"there is no engine {model.engine!r}{close}"
        elif (engine := by_name.get(model.engine)) and engine.kind == "vllm":
            served = model.backend.split("/", 1)[1]
            if served != engine.name:
                yield f"{key}/backend", f"vLLM serves it as {engine.name!r}, not {served!r}"
        if model.on_cold == "fallback" and not s.models_fallbacks.get(model.name):
            yield (
                f"{key}/on_cold",
                f'"fallback" needs somebody to fall back to: give models_fallbacks an entry '
                f"{model.name!r}",
            )


def references(s: Valid) -> Found:
    """Whatever names a model names one that exists."""
    models = s.model_names
    names = [*models, *s.models_aliases]
    for name in s.models_enable:
        if name not in models:
            yield "models_enable", f"there is no model {name!r}{suggestion(name, models)}"
    for alias, candidates in s.models_aliases.items():
        yield from _alias(alias, candidates, models)
    for key in ("models_fallbacks", "models_context_fallbacks"):
        for source, targets in getattr(s, key).items():
            if source not in names:
                yield f"{key}/{source}", f"there is no such model{suggestion(source, names)}"
            for name in (name for name in targets if name not in names):
                found = f"there is no model {name!r}{suggestion(name, names)}"
                yield f"{key}/{source}", found


def _alias(alias: str, candidates: list[str], models: list[str]) -> Found:
    key = f"models_aliases/{alias}"
    if alias in models:
        yield key, "a model has this name: rename one of them"
    if not ALIAS_NAME.fullmatch(alias):
        yield key, "use lower case letters, digits, dots and dashes"
    for name in (name for name in candidates if name not in models):
        yield key, f"there is no model {name!r}{suggestion(name, models)}"


def cycles(s: Valid) -> Found:
    """No model ends up as its own fallback, through aliases neither."""
    for key in ("models_fallbacks", "models_context_fallbacks"):
        graph = {**s.models_aliases}
        for source, targets in getattr(s, key).items():
            graph[source] = [*graph.get(source, []), *targets]
        for source in getattr(s, key):
            loop = _loop(graph, source)
            if loop and source == min(name for name in loop if name in getattr(s, key)):
                yield f"{key}/{source}", f"is a cycle: {' → '.join(loop)}; remove one step"


def _loop(graph: Mapping[str, list[str]], start: str) -> list[str] | None:
    """Give a path from `start` back to itself, or None."""
    paths = [[start]]
    seen: set[str] = set()
    while paths:
        path = paths.pop()
        for name in graph.get(path[-1], []):
            if name == start:
                return [*path, name]
            if name not in seen:
                seen.add(name)
                paths.append([*path, name])
    return None


def mcp(s: Valid) -> Found:
    """MCP servers have names of their own, and are commands only where that is allowed."""
    for name, count in Counter(server.name for server in s.mcp_servers).items():
        if count > 1:
            yield "mcp_servers", f"{name!r} is defined {count} times: rename one of them"
    for server in s.mcp_servers:
        if server.transport == "stdio" and not s.mcp_stdio_allowed:
            yield (
                f"mcp_servers/{server.name}/transport",
                "stdio runs a command inside the gateway's container, where its keys are "
                "(CVE-2026-42271): run the server by itself and give its url, or set "
                "mcp_stdio_allowed = True if you mean it",
            )


def stream_guard(s: Valid) -> Found:
    """Streams are guarded of models that there are."""
    for name in s.litellm_stream_guard:
        if name not in s.model_names:
            close = suggestion(name, s.model_names)
            yield "litellm_stream_guard", f"there is no model {name!r}{close}"
    found = version.number(s.litellm_image)
    if s.litellm_stream_guard and found and found < version.STREAM_GUARD:
        yield (
            "litellm_stream_guard",
            f"{s.litellm_image} cannot do it: it needs LiteLLM 1.108 or newer",
        )


def keys(s: Valid) -> Found:
    """Teams, users and keys have names of their own, and refer to each other and to models."""
    teams = [team.name for team in s.keys_teams]
    users = [user.name for user in s.keys_users]
    aliases = [key.alias for key in s.keys_declared]
    for setting, names in (
        ("keys_teams", teams),
        ("keys_users", users),
        ("keys_declared", aliases),
    ):
        for name, count in Counter(names).items():
            if count > 1:
                yield setting, f"{name!r} is defined {count} times: rename one of them"
    for user in s.keys_users:
        for name in user.teams:
            if name not in teams:
                key = f"keys_users/{user.name}/teams"
                yield key, f"there is no team {name!r} in keys_teams{suggestion(name, teams)}"
    for key in s.keys_declared:
        where = f"keys_declared/{key.alias}"
        yield from _owners(where, key, teams, users)
        days = s.keys_days if key.days is None else key.days
        if key.rotate and 0 < days <= s.keys_rotate_before_days:
            yield (
                f"{where}/days",
                f"{days} days are over before keys_rotate_before_days = "
                f"{s.keys_rotate_before_days}: it would be rotated all the time",
            )
        if REPLACED.search(key.alias):
            yield f"{where}/alias", "ends like the old key of a rotation: choose another"


def _owners(where: str, key: DeclaredKey, teams: list[str], users: list[str]) -> Found:
    for field, name, known in (("team", key.team, teams), ("user", key.user, users)):
        if name is not None and name not in known:
            close = suggestion(name, known)
            yield f"{where}/{field}", f"there is no {field} {name!r} in keys_{field}s{close}"


def keys_models(s: Valid) -> Found:
    """Who may ask only some models may ask models that there are."""
    known = [*s.model_names, *s.models_aliases]
    named = {
        **{f"keys_teams/{team.name}": team.models for team in s.keys_teams},
        **{f"keys_users/{user.name}": user.models for user in s.keys_users},
        **{f"keys_declared/{key.alias}": key.models for key in s.keys_declared},
    }
    for where, names in named.items():
        for name in names:
            if name not in known and name not in SPECIAL_MODELS:
                yield f"{where}/models", f"there is no model {name!r}{suggestion(name, known)}"


def repository(s: Valid) -> Found:
    """The place of the backups is no secret: settings can be read by the host's readers."""
    if re.search(r"://[^/@]*:[^/@]*@", s.backup_repository):
        yield (
            "backup_repository",
            "holds a password: leave user and password away and give them on the host with "
            "`sudo gatehouse backup credentials` (RESTIC_REST_USERNAME=, RESTIC_REST_PASSWORD=)",
        )


def calendar(s: Valid) -> Found:
    """What runs by itself has a time that systemd understands."""
    for key in TimersSettings.model_fields:
        if (text := getattr(s, key)) != OFF and not oncalendar.valid(text):
            yield (
                key,
                f"{text!r} is no calendar expression that is understood: write hourly, daily, "
                'weekly, "04:30", "Mon 06:00", "*:0/15" (every 15 minutes) or "off"',
            )


RULES: tuple[Callable[[Valid], Found], ...] = (
    repository,
    bind_address,
    subnets,
    ports,
    health_hosts,
    images,
    archive,
    cosign,
    redis_memory,
    connections,
    group,
    model_names,
    engines,
    engine_images,
    engine_devices,
    engine_references,
    references,
    cycles,
    mcp,
    stream_guard,
    keys,
    keys_models,
    calendar,
)
