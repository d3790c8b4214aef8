"""How one setting is declared: its type, its bounds, its unit and what it means."""

from typing import Any

from pydantic import BaseModel, ConfigDict, Field


class Component(BaseModel):
    """The settings of one component; every field starts with the component's noun."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


def setting(meaning: str, *, unit: str | None = None, example: object = None, **bounds: Any) -> Any:  # noqa: ANN401 - pydantic types a field by its annotation, not by this value
    """Declare a setting without a default: the defaults stand in `group_data/all.py`.

    `bounds` are pydantic's (`ge`, `le`, `pattern`, `min_length` …).
    """
    extra: dict[str, Any] = {"unit": unit, "example": example}
    return Field(description=meaning, json_schema_extra=extra, **bounds)
