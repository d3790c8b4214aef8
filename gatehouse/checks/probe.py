"""Give a probe of `gatehouse/probes/` as one command, and read one answer of what it prints."""

import json
import re
import shlex
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

from gatehouse import probes
from gatehouse.checks.check import Result

_FOLDER = Path(probes.__file__).parent
_IMPORT = re.compile(r"^from gatehouse\.probes\.(\w+) import (?:\([^)]*\)|[^\n(]*)\n", re.MULTILINE)
_END = '\n\nif __name__ == "__main__":'
_MOST_CHARACTERS = 400
_MOST_ITEMS = 5

Judge = Callable[[int, str], Result]


def probe(name: str, *arguments: str) -> str:
    """Give the command that runs a probe with the host's own Python."""
    return shlex.join(["python3", "-I", "-c", program(name), *arguments])


@cache
def program(name: str) -> str:
    """Give a probe's text, with what it imports from the other probes written before it."""
    parts: list[str] = []
    _collect(name, parts, set())
    return "".join(parts) + f"{_END}\n    main()\n"


def _collect(name: str, parts: list[str], done: set[str]) -> None:
    text = (_FOLDER / f"{name}.py").read_text()
    done.add(name)
    for other in _IMPORT.findall(text):
        if other not in done:
            _collect(other, parts, done)
    parts.append(_IMPORT.sub("", text).partition(_END)[0] + "\n\n")


def of(key: str, judge: Callable[[Any], Result]) -> Judge:
    """Judge one answer of a probe; what is no answer does not hold."""

    def read(code: int, output: str) -> Result:
        try:
            document = json.loads(output.strip().splitlines()[-1])
            problem = document["errors"].get(key)
        except (ValueError, LookupError, TypeError, AttributeError):
            lines = output.strip().splitlines() or [f"nothing (exit code {code})"]
            return Result(holds=False, found=lines[-1][:_MOST_CHARACTERS], answered=False)
        if code or problem or key not in document:
            said = problem or f"no answer (exit code {code})"
            return Result(holds=False, found=said, answered=False)
        return judge(document[key])

    return read


def nothing(value: Any) -> Result:  # noqa: ANN401 - a list, if the probe is right
    """Judge that a list of what is wrong is empty."""
    return Result(not value, listed(value) or "nothing wrong")


def listed(items: list[str]) -> str:
    """Write the first of several in one line."""
    more = len(items) - _MOST_ITEMS
    return ", ".join(items[:_MOST_ITEMS]) + (f" and {more} more" if more > 0 else "")


def same(expected: object) -> Callable[[Any], Result]:
    """Judge that a value is this one."""

    def judge(value: Any) -> Result:  # noqa: ANN401 - any JSON
        return Result(value == expected, str(value).lower() if value is not None else "nothing")

    return judge
