"""Make the teams, users and keys that the settings declare, and keep them as they are there.

What is no longer declared is left alone: only a person decides that somebody loses a key.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from gatehouse import state
from gatehouse.settings import Settings
from gatehouse.settings.keys import DeclaredKey, Team, User
from gatehouse.tool.here import Gateway
from gatehouse.tool.keys_book import MARK, Book, Key
from gatehouse.tool.keys_deliver import kept, make_folder
from gatehouse.tool.keys_make import Wish, limits, new

NOUN = "declared"
_PAGE = 100
_COMMON = {
    "models": "models",
    "max_budget": "budget",
    "budget_duration": "budget_period",
    "rpm_limit": "rpm",
    "tpm_limit": "tpm",
}


@dataclass(frozen=True)
class Step:
    """One difference: what is said of it, and the requests that remove it (none: a person must)."""

    words: str
    requests: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    key: tuple[str, Wish] | None = None

    @property
    def due(self) -> bool:
        """Whether anything can be done."""
        return bool(self.requests or self.key)


def steps(gateway: Gateway, settings: Settings) -> Iterator[Step]:
    """Yield what differs from the settings, in the order in which it is to be done."""
    teams = gateway.get("/team/list")
    ids = {each.get("team_alias") or each["team_id"]: each["team_id"] for each in teams}
    by_id = {each["team_id"]: each for each in teams}
    for team in settings.keys_teams:
        # One that somebody made by hand is taken over; else its name becomes its id.
        ids.setdefault(team.name, team.name)
        yield from _team(team, ids[team.name], by_id.get(ids[team.name]))
    users = {each["user_id"]: each for each in _users(gateway)} if settings.keys_users else {}
    for user in settings.keys_users:
        yield from _user(user, users.get(user.name), ids)
    book = Book.read(gateway) if settings.keys_declared else None
    for key in settings.keys_declared:
        assert book is not None  # noqa: S101 - it was read for these
        yield from _key(key, settings, book, ids)


def left(gateway: Gateway, settings: Settings) -> list[str]:
    """Name what was declared once, is so no more, and is still there."""
    known = state.read(NOUN) or {}
    now = _declared(settings)
    gone = {noun: [name for name in known.get(noun, []) if name not in now[noun]] for noun in now}
    if not any(gone.values()):
        return []
    there = {
        "teams": {each.get("team_alias") for each in gateway.get("/team/list")},
        "users": {each["user_id"] for each in _users(gateway)} if gone["users"] else set(),
        "keys": {key.alias for key in Book.read(gateway).keys} if gone["keys"] else set(),
    }
    return [f"{noun[:-1]} {n}" for noun in gone for n in gone[noun] if n in there[noun]]


def apply(gateway: Gateway, settings: Settings, step: Step) -> None:
    """Remove one difference."""
    for path, body in step.requests:
        gateway.post(path, body)
    if step.key:
        alias, wish = step.key
        make_folder()
        new(gateway, alias, wish, kept(alias))
    remember(settings)


def remember(settings: Settings, still: list[str] | None = None) -> None:
    """Note what is declared, and what of the past is still there (all of it where None)."""
    known, now = state.read(NOUN) or {}, _declared(settings)
    wanted = {
        noun: sorted(
            {*names}
            | {
                name
                for name in known.get(noun, [])
                if still is None or f"{noun[:-1]} {name}" in still
            }
        )
        for noun, names in now.items()
    }
    if wanted != {noun: known.get(noun) for noun in wanted}:
        state.write(NOUN, dict(wanted))


def _declared(settings: Settings) -> dict[str, list[str]]:
    return {
        "teams": [team.name for team in settings.keys_teams],
        "users": [user.name for user in settings.keys_users],
        "keys": [key.alias for key in settings.keys_declared],
    }


def _users(gateway: Gateway) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    page = 1
    while True:
        answer = gateway.get("/user/list", page_size=_PAGE, page=page)
        found += answer["users"]
        if page >= answer["total_pages"]:
            return found
        page += 1


def _common(entry: Team | User | DeclaredKey) -> dict[str, Any]:
    return {theirs: getattr(entry, ours) for theirs, ours in _COMMON.items()}


def _same(name: str, wanted: object, found: object) -> bool:
    if name == "models":
        return sorted(wanted or []) == sorted(found or [])  # type: ignore[call-overload,no-any-return]
    return wanted == found


def _differences(wanted: Mapping[str, Any], found: Mapping[str, Any]) -> dict[str, Any]:
    return {
        name: value for name, value in wanted.items() if not _same(name, value, found.get(name))
    }


def _words(changes: Mapping[str, Any], found: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {found.get(name)!r} → {value!r}" for name, value in changes.items())


def _given(values: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value is not None}


def _team(team: Team, team_id: str, found: dict[str, Any] | None) -> Iterator[Step]:
    wanted = _common(team)
    if found is None:
        body = {"team_id": team_id, "team_alias": team.name, **_given(wanted)}
        yield Step(f"team {team.name}: make it", [("/team/new", body)])
    elif changes := _differences(wanted, found):
        body = {"team_id": team_id, **changes}
        yield Step(f"team {team.name}: {_words(changes, found)}", [("/team/update", body)])


def _user(user: User, found: dict[str, Any] | None, ids: Mapping[str, str]) -> Iterator[Step]:
    wanted = _common(user) | {"user_role": user.role, "user_email": user.email}
    teams = [ids[name] for name in user.teams]
    if found is None:
        body = {"user_id": user.name, "auto_create_key": False, "teams": teams, **_given(wanted)}
        yield Step(f"user {user.name}: make it", [("/user/new", body)])
        return
    if user.email is None:
        del wanted["user_email"]  # the web interface may know one
    requests: list[tuple[str, dict[str, Any]]] = []
    words = []
    if changes := _differences(wanted, found):
        requests.append(("/user/update", {"user_id": user.name, **changes}))
        words.append(_words(changes, found))
    member = {"role": "user", "user_id": user.name}
    for name, team in zip(user.teams, teams, strict=True):
        if team not in (found.get("teams") or []):
            requests.append(("/team/member_add", {"team_id": team, "member": member}))
            words.append(f"member of {name}")
    if requests:
        yield Step(f"user {user.name}: {', '.join(words)}", requests)


def _key(
    key: DeclaredKey, settings: Settings, book: Book, ids: Mapping[str, str]
) -> Iterator[Step]:
    days = settings.keys_days if key.days is None else key.days
    wanted = _common(key) | limits(settings, key.rpm, key.tpm)
    wanted |= {"team_id": ids[key.team] if key.team else None, "user_id": key.user}
    wish = Wish(wanted, days, rotate=key.rotate)
    found = book.get(key.alias)
    if found is None:
        yield Step(f"key {key.alias}: make it", key=(key.alias, wish))
        return
    yield from _kept(key, found)
    changes = _differences(wanted, found.raw)
    words = [_words(changes, found.raw)] if changes else []
    if found.mark != wish.mark:
        # The length counts from the next rotation on: this value was given out with its end.
        changes["metadata"] = {**found.metadata, MARK: wish.mark}
        words.append(f"{found.mark} → {wish.mark}")
    if changes:
        body = {"key": found.token, **changes}
        yield Step(f"key {key.alias}: {', '.join(words)}", [("/key/update", body)])


def _kept(key: DeclaredKey, found: Key) -> Iterator[Step]:
    if not kept(key.alias).holds(found.token):
        yield Step(
            f"key {key.alias}: its value is not in {kept(key.alias).where}, somebody else made it "
            f"(gatehouse keys rotate {key.alias} --to {kept(key.alias).where})"
        )
