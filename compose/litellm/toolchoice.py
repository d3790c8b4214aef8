"""`tool_choice: required` becomes `auto` for model servers that break on it.

LiteLLM loads `guard` from the folder of its configuration.
"""

import json
from pathlib import Path
from typing import Any

from litellm.integrations.custom_logger import CustomLogger

CONFIGURATION = Path("/etc/gatehouse/engines.json")


class ToolChoiceGuard(CustomLogger):
    """Changes requests to the models in `tool_choice_auto`, when they are a fallback too."""

    def __init__(self, models: frozenset[str]) -> None:
        """Hold the names of the models."""
        super().__init__()
        self._models = models

    async def async_pre_call_deployment_hook(
        self,
        kwargs: dict[str, Any],
        call_type: object,  # noqa: ARG002 - LiteLLM's signature
    ) -> dict[str, Any] | None:
        """Look at the request on its way to one server, after routing and after each fallback."""
        metadata = kwargs.get("litellm_metadata") or kwargs.get("metadata") or {}
        names = {metadata.get("model_group"), metadata.get("deployment_model_name")}
        if kwargs.get("tool_choice") != "required" or not self._models & names:
            return None
        return {**kwargs, "tool_choice": "auto"}


def configured(path: Path = CONFIGURATION) -> frozenset[str]:
    """Read the names of the models."""
    if not path.exists():
        return frozenset()
    return frozenset(json.loads(path.read_text())["tool_choice_auto"])


guard = ToolChoiceGuard(configured())
