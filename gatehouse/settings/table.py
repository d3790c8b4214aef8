"""The settings as a table for people: `make settings` prints it, docs/settings.md is made of it."""

import json
import types
from collections.abc import Iterator, Mapping
from ipaddress import IPv4Address, IPv4Network
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from gatehouse.settings.load import ENTRIES
from gatehouse.settings.model import COMPONENTS

_NAMES: dict[Any, str] = {
    str: "text",
    int: "whole number",
    float: "number",
    bool: "True or False",
    type(None): "None",
    IPv4Address: "IPv4 address",
    IPv4Network: "IPv4 network",
    dict[str, list[str]]: "name → list of names",
    dict[str, str]: "name → text",
    **{entry: noun.split(" ", 1)[1] for noun, entry in ENTRIES.values()},
}
_LONG = 60
HEAD = ("Setting", "Type", "Unit", "Default", "Meaning")


def rows(defaults: Mapping[str, Any]) -> Iterator[tuple[str, str, str, str, str]]:
    """Yield name, type with bounds, unit, default and meaning of each setting, in order."""
    for component in COMPONENTS:
        for key, field in component.model_fields.items():
            extra = field.json_schema_extra
            unit = extra.get("unit") if isinstance(extra, dict) else None
            yield (
                key,
                _type(field.annotation) + _bounds(field),
                str(unit or ""),
                _default(defaults.get(key)),
                field.description or "",
            )


def entry_rows(entry: type[BaseModel]) -> Iterator[tuple[str, str, str, str, str]]:
    """Yield the same for the fields of one entry of a list, `models` for example."""
    for key, field in entry.model_fields.items():
        default = "" if field.is_required() else _default(field.default)
        yield key, _type(field.annotation) + _bounds(field), "", default, field.description or ""


def markdown(defaults: Mapping[str, Any]) -> str:
    """Give docs/settings.md."""
    parts = [
        "# Settings\n",
        "Every setting has its default in `group_data/all.py`. Change it there, in "
        "`group_data/<group>.py`, in the inventory, or with `--data key=value`.\n"
        "`make settings` checks them without touching a host and prints this table; "
        "`make docs` writes this page.\n",
        _markdown_table(rows(defaults)),
    ]
    for noun, entry in ENTRIES.values():
        parts += [f"\n## Fields of {noun}\n", _markdown_table(entry_rows(entry))]
    return "\n".join(parts)


def _markdown_table(table: Iterator[tuple[str, ...]]) -> str:
    lines = [HEAD, tuple("---" for _ in HEAD), *((f"`{key}`", *rest) for key, *rest in table)]
    return (
        "\n".join("| " + " | ".join(c.replace("|", "\\|") for c in line) + " |" for line in lines)
        + "\n"
    )


def _default(value: Any) -> str:  # noqa: ANN401 - a default of any type
    if isinstance(value, list) and value and isinstance(value[0], dict):
        return f"{len(value)} entries, see group_data/all.py"
    if isinstance(value, dict) and len(str(value)) > _LONG:
        return f"{len(value)} entries, see group_data/all.py"
    return json.dumps(value, default=str) if isinstance(value, list | dict | str) else str(value)


def _type(annotation: Any) -> str:  # noqa: ANN401 - a type expression
    origin = get_origin(annotation)
    if origin is Annotated:
        # What bounds an entry of a list is said when an entry is wrong.
        return _type(get_args(annotation)[0])
    if origin is dict and annotation not in _NAMES:
        annotation = dict[tuple(map(_plain, get_args(annotation)))]  # type: ignore[misc]
    if origin is Literal:
        return " or ".join(f'"{choice}"' for choice in get_args(annotation))
    if origin in {Union, types.UnionType}:
        return " or ".join(_type(choice) for choice in get_args(annotation))
    if origin is list:
        return f"list of {_type(get_args(annotation)[0])}s"
    return _NAMES.get(annotation, str(annotation))


def _plain(annotation: Any) -> Any:  # noqa: ANN401 - a type expression
    return get_args(annotation)[0] if get_origin(annotation) is Annotated else annotation


def _bounds(field: FieldInfo) -> str:
    found = {
        name: getattr(item, name)
        for item in field.metadata
        for name in ("ge", "le", "pattern")
        if getattr(item, name, None) is not None
    }
    if "ge" in found and "le" in found:
        return f", {found['ge']} to {found['le']}"
    return f" like `{found['pattern']}`" if "pattern" in found else ""
