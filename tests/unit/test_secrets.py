"""Secrets: provider keys come in without being shown, and nothing that is rendered holds one."""

import json
import shlex
from pathlib import Path

import pytest
import yaml

from gatehouse.checks import secrets as checks
from gatehouse.deploys.gateway import Gateway
from gatehouse.providers import given
from gatehouse.render import render
from gatehouse.render.tree import COMPONENTS, MOUNTED, SECRETS
from gatehouse.settings import Invalid, Settings
from tests.given import MACHINE, PROVIDER_KEY, model, rendered, settings
from tests.unit.test_preflight import GOOD

VALUE = "not-shown-0123456789"


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Give the place of secrets.env, with no key in the environment."""
    monkeypatch.delenv(PROVIDER_KEY, raising=False)
    return tmp_path / "secrets.env"


def reading(file: Path) -> Settings:
    """Give settings whose keys come from this file."""
    return settings(secrets_file=str(file))


def test_keys_are_read_from_the_file(file: Path) -> None:
    """Comments, empty lines, `export` and quotes are as in a shell."""
    file.write_text(f"# keys\n\nexport {PROVIDER_KEY}='{VALUE}'\n")
    assert given(reading(file))[PROVIDER_KEY].get_secret_value() == VALUE


def test_no_file_is_no_key(file: Path) -> None:
    """The file may be missing."""
    assert given(reading(file)) == {}


def test_environment_beats_the_file(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A key in the environment is taken instead of the one in the file."""
    file.write_text(f"{PROVIDER_KEY}=from-the-file\n")
    monkeypatch.setenv(PROVIDER_KEY, VALUE)
    assert given(reading(file))[PROVIDER_KEY].get_secret_value() == VALUE


def test_keys_that_no_model_uses_stay_in_the_environment(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only what a model names is taken from the environment."""
    monkeypatch.setenv("OPENAI_API_KEY", VALUE)
    assert given(reading(file)) == {}


def test_unknown_name_in_the_file_suggests_the_closest(file: Path) -> None:
    """A misspelt name is answered with the one that was meant, and without its value."""
    file.write_text(f"OLLAMA_KEY={VALUE}\n")
    with pytest.raises(Invalid, match=f"did you mean '{PROVIDER_KEY}'") as caught:
        given(reading(file))
    assert VALUE not in str(caught.value)


@pytest.mark.parametrize(
    "text",
    [
        f"{VALUE}\n",
        f"{PROVIDER_KEY}={VALUE}\n{VALUE}\n",
        f"{PROVIDER_KEY}:{VALUE}\n",
        f"{PROVIDER_KEY}=\n",
        f"{PROVIDER_KEY}={VALUE}\x07{VALUE}\n",
    ],
    ids=["key without name", "two lines", "colon", "empty", "control character"],
)
def test_unfit_line_is_refused_without_showing_it(file: Path, text: str) -> None:
    """A line that cannot be meant is named by its place; its content may be a key."""
    file.write_text(text)
    with pytest.raises(Invalid) as caught:
        given(reading(file))
    assert VALUE not in str(caught.value)


def test_key_of_two_lines_is_refused(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A value with a line break would become two lines of an environment."""
    monkeypatch.setenv(PROVIDER_KEY, f"{VALUE}\n{VALUE}")
    with pytest.raises(Invalid, match=PROVIDER_KEY) as caught:
        given(reading(file))
    assert VALUE not in str(caught.value)


def test_key_is_hidden_in_what_holds_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """No representation of what a deploy works from shows a key."""
    monkeypatch.setenv(PROVIDER_KEY, VALUE)
    s = settings()
    gateway = Gateway(s, GOOD, MACHINE, render(s, MACHINE), given(s))
    assert gateway.provider_keys[PROVIDER_KEY].get_secret_value() == VALUE
    assert VALUE not in f"{gateway!r} {gateway} {vars(gateway)}"


def test_key_is_asked_for_under_the_name_that_a_model_gives(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An own model brings its own key."""
    monkeypatch.setenv("MY_KEY", VALUE)
    own = model(api_key="MY_KEY")
    assert list(given(settings(secrets_file=str(file), models_extra=[own]))) == ["MY_KEY"]


def test_secrets_are_mounted_from_files_of_the_host() -> None:
    """compose.yaml names each secret and its file, and services use no other."""
    release = rendered().release
    top = yaml.safe_load(release["compose.yaml"].content)["secrets"]
    assert top == {name: {"file": f"/etc/gatehouse/secrets/{name}"} for name in MOUNTED}
    used: set[str] = set()
    for component in COMPONENTS:
        services = yaml.safe_load(release[f"compose/{component}.yaml"].content)["services"]
        used |= {name for service in services.values() for name in service["secrets"]}
    assert used == set(MOUNTED)


def test_every_secret_is_checked() -> None:
    """The check looks at each secret that the host makes."""
    command = checks.checks(settings())[0].command
    asked = json.loads(shlex.split(command)[-1])
    assert set(asked["secrets"]) == set(SECRETS)
