"""Provider keys: the only secrets that come from the operator."""

import os
from pathlib import Path

from pydantic import SecretStr

from gatehouse.settings import Invalid, Problem, Settings
from gatehouse.settings.rules import suggestion


def given(settings: Settings) -> dict[str, SecretStr]:
    """Give the provider keys that the operator provides, by name.

    They come from the environment, else from the git-ignored file `secrets_file`; only names that a
    model uses are taken. Raises `Invalid` for a line of the file that cannot be meant.
    """
    names = settings.provider_keys
    found = _from_file(Path(settings.secrets_file), names)
    found |= {name: SecretStr(os.environ[name]) for name in names if os.environ.get(name)}
    for name, value in found.items():
        text = value.get_secret_value()
        if text != text.strip() or not text.isprintable() or not text:
            raise Invalid([Problem(name, "is empty or has spaces or line breaks around it")])
    return dict(sorted(found.items()))


def _from_file(path: Path, names: frozenset[str]) -> dict[str, SecretStr]:
    if not path.is_file():
        return {}
    found, problems = {}, []
    for number, line in enumerate(path.read_text().splitlines(), start=1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        name, separator, value = line.removeprefix("export ").partition("=")
        place = f"secrets_file, {path}:{number}"
        if not separator:
            # The line may be a key without its name, so it is not shown.
            problems.append(Problem(place, "is not NAME=value"))
        elif name.strip() not in names:
            close = suggestion(name.strip(), sorted(names))
            problems.append(Problem(place, f"no model uses {name.strip()!r}{close}"))
        else:
            found[name.strip()] = SecretStr(value.strip().strip("'\""))
    if problems:
        raise Invalid(problems)
    return found
