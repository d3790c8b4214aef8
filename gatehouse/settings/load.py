"""From plain values to `Settings`, or to every problem at once."""

import runpy
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError
from pydantic_core import ErrorDetails

from gatehouse.settings.engines import Engine
from gatehouse.settings.keys import DeclaredKey, Team, User
from gatehouse.settings.mcp import McpServer
from gatehouse.settings.model import COMPONENTS, Settings
from gatehouse.settings.models import Model
from gatehouse.settings.rules import RULES, Unavailable, Valid, suggestion

# Old key → new key. A key that was in a release is never just dropped.
RENAMED: dict[str, str] = {
    "litellm_key_rpm": "keys_rpm",
    "litellm_key_tpm": "keys_tpm",
}

# Data that pyinfra's connectors and global arguments read, never settings of ours.
_PYINFRA = ("ssh_", "fake_", "_")

# Component, or setting → what one entry of its list is called, and what fields that has.
ENTRIES: dict[str, tuple[str, type[BaseModel]]] = {
    "models": ("a model", Model),
    "engines": ("an engine", Engine),
    "mcp": ("an MCP server", McpServer),
    "keys_teams": ("a team", Team),
    "keys_users": ("a user", User),
    "keys_declared": ("a declared key", DeclaredKey),
}

_STRICT = ConfigDict(strict=True)


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong, with the key and what to do."""

    key: str
    message: str

    def __str__(self) -> str:
        """Give one line for a person."""
        return f"{self.key}: {self.message}"


class Invalid(Exception):  # noqa: N818 - reads as `raise Invalid(problems)`
    """The settings cannot be used; `problems` holds all that is wrong with them."""

    def __init__(self, problems: list[Problem]) -> None:
        """Hold the problems, at least one."""
        super().__init__("\n".join(map(str, problems)))
        self.problems = problems


def defaults(path: Path = Path("group_data/all.py")) -> dict[str, Any]:
    """Read a group_data file the way pyinfra does: its public names, without what it imports."""
    return {
        key: value
        for key, value in runpy.run_path(str(path)).items()
        if not key.startswith("_") and not callable(value)
    }


def validate(values: Mapping[str, Any]) -> Settings:
    """Turn plain values into settings.

    `values` are the merged data of one host by key; what belongs to pyinfra itself (`ssh_…`,
    `_sudo` …) is passed over. Raises `Invalid` with every problem.
    """
    given = {key: value for key, value in values.items() if not key.startswith(_PYINFRA)}
    valid: dict[str, Any] = {}
    problems: list[Problem] = []
    for component in COMPONENTS:
        for key, field in component.model_fields.items():
            if key not in given:
                problems.append(Problem(key, "is missing: keep its line in group_data/all.py"))
                continue
            adapter = TypeAdapter[Any](field.rebuild_annotation(), config=_STRICT)
            try:
                valid[key] = adapter.validate_python(given[key])
            except ValidationError as error:
                problems.extend(_field_problems(key, error))
    valid["model_names"] = list(_names(given, "models", "models_extra"))
    valid["engine_names"] = list(_names(given, "engines", "engines_extra"))
    problems.extend(_unknown(given))
    for rule in RULES:
        try:
            problems.extend(Problem(key, message) for key, message in rule(Valid(valid)))
        except Unavailable:
            continue
    if problems:
        raise Invalid(problems)
    return Settings(**given)


def _names(given: Mapping[str, Any], *keys: str) -> Iterator[str]:
    """Yield the names in the lists, of invalid entries too: they are not "no such model"."""
    for key in keys:
        entries = given.get(key)
        for entry in entries if isinstance(entries, list) else []:
            if isinstance(entry, dict) and isinstance(entry.get("name"), str):
                yield entry["name"]


def _unknown(given: Mapping[str, Any]) -> Iterator[Problem]:
    known = list(Settings.model_fields)
    for key in given:
        if key in RENAMED:
            yield Problem(key, f"is now called {RENAMED[key]}: rename it")
        elif key not in known:
            yield Problem(key, f"is not a setting{suggestion(key, known)}")


def _field_problems(key: str, error: ValidationError) -> Iterator[Problem]:
    for details in error.errors(include_url=False):
        path = [str(step) for step in details["loc"]]
        yield Problem("/".join([key, *path]), _words(key, details))


def _words(key: str, details: ErrorDetails) -> str:
    """Say what was found and what was expected; pydantic's message names the bound or the type."""
    message = details["msg"].removeprefix("Value error, ")
    if details["type"] == "extra_forbidden":
        noun, entry = ENTRIES.get(key) or ENTRIES[key.split("_", 1)[0]]
        close = suggestion(str(details["loc"][-1]), list(entry.model_fields))
        return f"is not a field of {noun}{close}"
    if details["type"] == "missing":
        return "is missing"
    words = f"{message[0].lower()}{message[1:]}"
    # Where a secret may have been put by mistake, it is not repeated on the screen.
    private = details["loc"] and details["loc"][-1] in {"api_key", "api_base", "auth_key", "url"}
    whole = isinstance(details["input"], dict)
    return words if private or whole else f"{words}, found {details['input']!r}"
