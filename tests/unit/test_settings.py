"""Settings as a whole: complete, typed, bounded, and refused all at once."""

import math
import types
from typing import Any, Union, get_args, get_origin

import pytest
from pydantic import ValidationError
from pydantic.fields import FieldInfo

from gatehouse.settings import Invalid, Model, Settings, load, validate
from gatehouse.settings.load import ENTRIES
from gatehouse.settings.table import entry_rows, markdown, rows
from tests.given import model, problems, settings, values

FIELDS = Settings.model_fields


def choices(annotation: object) -> tuple[Any, ...]:
    """Give the types of a union, or the one type."""
    union = get_origin(annotation) in {Union, types.UnionType}
    return get_args(annotation) if union else (annotation,)


def numeric(field: FieldInfo) -> bool:
    """Tell whether the field is a number."""
    return bool({int, float} & set(choices(field.annotation)))


def bound(field: FieldInfo, name: str) -> float | None:
    """Give a bound of the field, `ge` or `le`, or None."""
    return next((getattr(m, name) for m in field.metadata if hasattr(m, name)), None)


NUMBERS = [key for key, field in FIELDS.items() if numeric(field)]


def test_defaults_are_valid() -> None:
    """The shipped defaults give settings."""
    assert settings().litellm_port == 4000


def test_defaults_hold_every_setting_and_nothing_else() -> None:
    """Each setting has its default in group_data/all.py; the rest there is pyinfra's own."""
    assert {key for key in values() if not key.startswith("ssh_")} == FIELDS.keys()


@pytest.mark.parametrize("key", FIELDS)
def test_setting_says_what_it_means(key: str) -> None:
    """Each setting has a description that is a sentence."""
    description = FIELDS[key].description or ""
    assert len(description) > 8
    assert description.endswith((".", ")"))


@pytest.mark.parametrize("key", Model.model_fields)
def test_model_field_says_what_it_means(key: str) -> None:
    """Each field of a model has a description, too."""
    assert Model.model_fields[key].description


@pytest.mark.parametrize("key", NUMBERS)
def test_number_has_a_unit(key: str) -> None:
    """Each number says what it counts."""
    extra = FIELDS[key].json_schema_extra
    assert isinstance(extra, dict)
    assert extra["unit"]


@pytest.mark.parametrize("key", NUMBERS)
def test_number_has_bounds_that_hold(key: str) -> None:
    """Each number has a lower and an upper bound, and what lies beyond is refused by its key."""
    low, high = bound(FIELDS[key], "ge"), bound(FIELDS[key], "le")
    assert low is not None
    assert high is not None
    for wrong in (low - 1, high + 1):
        assert f"found {wrong}" in problems(**{key: wrong})[key]


@pytest.mark.parametrize(
    "key", [key for key, field in Model.model_fields.items() if numeric(field)]
)
def test_model_number_has_bounds(key: str) -> None:
    """Each number of a model has a lower and an upper bound."""
    field = Model.model_fields[key]
    if list[float] in choices(field.annotation):
        return
    assert bound(field, "ge") is not None
    assert bound(field, "le") is not None


@pytest.mark.parametrize(
    ("key", "wrong"),
    [
        ("litellm_port", "4000"),
        ("litellm_port", True),
        ("litellm_port", 4000.0),
        ("litellm_port", None),
        ("postgres_cpus", "2"),
        ("postgres_cpus", math.nan),
        ("network_bind_public", "yes"),
        ("network_bind_public", 1),
        ("network_bind_address", "localhost"),
        ("network_bind_address", "::1"),
        ("network_bind_address", 2130706433),
        ("network_subnet", "172.30.40.1/24"),
        ("docker_source", "snap"),
        ("docker_repository_fingerprint", "9dc8"),
        ("host_group", "Gate House"),
        ("litellm_admin_user", "admin; reboot"),
        ("postgres_user", "postgres"),
        ("models_enable", "embed-arctic-l-v2"),
        ("models_aliases", {"chat-default": "chat-selftest-builtin"}),
        ("models", []),
    ],
)
def test_wrong_type_is_refused_by_its_key(key: str, wrong: object) -> None:
    """Nothing is converted: a text is no number, and one and zero are not true and false."""
    assert any(found.split("/")[0] == key for found in problems(**{key: wrong}))


def test_number_of_cores_may_be_whole() -> None:
    """`postgres_cpus = 2` is as good as 2.0."""
    assert settings(postgres_cpus=2).postgres_cpus == 2.0


@pytest.mark.parametrize(
    ("wrong", "meant"),
    [("litellm_prot", "litellm_port"), ("redis_ttl_seconds", "redis_cache_ttl_seconds")],
)
def test_unknown_key_suggests_the_closest(wrong: str, meant: str) -> None:
    """A misspelt key is an error that names the key that was meant."""
    assert problems(**{wrong: 1}) == {wrong: f"is not a setting (did you mean {meant!r}?)"}


def test_unknown_key_far_from_all_suggests_nothing() -> None:
    """A key like no other is refused without a guess."""
    assert problems(wxyz=1) == {"wxyz": "is not a setting"}


def test_missing_key_is_named() -> None:
    """A default that was deleted is missed."""
    given = values()
    del given["redis_port"]
    with pytest.raises(Invalid, match=r"redis_port: is missing.*group_data/all\.py"):
        validate(given)


def test_renamed_key_names_the_new_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """A key of an earlier release is refused with its new name."""
    monkeypatch.setitem(load.RENAMED, "cache_seconds", "redis_cache_ttl_seconds")
    assert problems(cache_seconds=60) == {
        "cache_seconds": "is now called redis_cache_ttl_seconds: rename it"
    }


def test_data_of_pyinfra_is_passed_over() -> None:
    """Data that pyinfra's connectors and arguments read are no settings of ours."""
    assert not problems(ssh_user="ada", ssh_port=22, _sudo=True, fake_delay=0)


def test_problems_are_reported_together() -> None:
    """Ten mistakes of every sort are one error with ten keys."""
    given = values(
        litellm_port="4000",
        postgres_port=6379,
        network_bind_address="0.0.0.0",  # noqa: S104 - refused
        litellm_image="ghcr.io/berriai/litellm:main-latest",
        redis_maxmemory_mib=384,
        host_group="root",
        litellm_wokers=4,
        models_enable=["chat-hermes"],
        models_extra=[model("Mine"), model(api_base="http://localhost:1")],
        models_fallbacks={"chat-default": ["chat-default"]},
    )
    with pytest.raises(Invalid) as caught:
        validate(given)
    assert {problem.key for problem in caught.value.problems} == {
        "litellm_port",
        "redis_port",
        "network_bind_address",
        "litellm_image",
        "redis_maxmemory_mib",
        "host_group",
        "litellm_wokers",
        "models_enable",
        "models_extra/0/name",
        "models_extra/1/api_base",
        "models_fallbacks/chat-default",
    }
    assert len(str(caught.value).splitlines()) == len(caught.value.problems)


def test_wrong_value_is_reported_once() -> None:
    """A rule that needs a value which is itself wrong stays silent."""
    assert list(problems(postgres_connections="100")) == ["postgres_connections"]


def test_settings_are_frozen() -> None:
    """Nobody changes settings after they were checked."""
    with pytest.raises(ValidationError, match="frozen"):
        settings().litellm_port = 1  # type: ignore[misc]


def test_table_has_a_row_for_each_setting() -> None:
    """The table shows each setting with its type, default and meaning."""
    table = {row[0]: row for row in rows(values())}
    assert table.keys() == FIELDS.keys()
    assert table["litellm_port"][1:4] == ("whole number, 1024 to 65535", "port", "4000")
    assert table["docker_source"][1] == '"docker" or "distribution"'
    assert all(row[1] and row[3] and row[4] for row in table.values())
    for _, entry in ENTRIES.values():
        assert [row[0] for row in entry_rows(entry)] == list(entry.model_fields)


def test_table_survives_pipes() -> None:
    """A `|` in a pattern does not make another column."""
    lines = [line for line in markdown(values()).splitlines() if line.startswith("|")]
    assert {line.replace("\\|", "").count("|") for line in lines} == {6}
