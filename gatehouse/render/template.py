"""Templates and plain files of the repository."""

import json
from functools import cache
from pathlib import Path
from typing import Any

import yaml
from jinja2 import Environment, FileSystemLoader, StrictUndefined

ROOT = Path(__file__).resolve().parents[2]


def _yaml(value: Any, indent: int) -> str:  # noqa: ANN401 - any value that YAML can hold
    """Write a list or mapping as YAML below a key, indented by `indent` spaces."""
    if not value:
        return f" {json.dumps(value)}"
    text = yaml.safe_dump(value, sort_keys=False, allow_unicode=True, width=100)
    return "".join(f"\n{' ' * indent}{line}" for line in text.splitlines())


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(ROOT / "templates"),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        autoescape=False,  # noqa: S701 - configuration files, no HTML
    )
    environment.filters["yaml"] = _yaml
    environment.filters["json"] = json.dumps
    return environment


def template(name: str, **values: object) -> str:
    """Render `templates/<name>.j2`; a value that it needs and does not get is an error."""
    return _environment().get_template(f"{name}.j2").render(**values)


def plain(name: str) -> str:
    """Read `compose/<name>`, which reaches the host as it is."""
    return (ROOT / "compose" / name).read_text()
