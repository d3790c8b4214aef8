"""Streams of servers that garble them: asked in one piece, delivered as a stream of one chunk.

LiteLLM loads `guard` from the folder of its configuration.
"""

import json
from pathlib import Path
from typing import Any

from litellm.integrations.custom_logger import CustomLogger

CONFIGURATION = Path("/etc/gatehouse/engines.json")


class StreamGuard(CustomLogger):
    """Asks the models in `stream_guard` for the whole answer when a client wants a stream.

    Meant for servers that lose tool calls or the end of an answer when they stream. The client
    still gets a stream, complete and with its end, but only when the whole answer is there.
    """

    def __init__(self, models: frozenset[str]) -> None:
        """Hold the names of the models."""
        super().__init__()
        self._models = models

    async def async_pre_call_deployment_hook(
        self,
        kwargs: dict[str, Any],
        call_type: object,
    ) -> dict[str, Any] | None:
        """Look at the request on its way to one server, after routing and after each fallback."""
        metadata = kwargs.get("litellm_metadata") or kwargs.get("metadata") or {}
        names = {metadata.get("model_group"), metadata.get("deployment_model_name")}
        # The Messages API comes by twice; only what it makes of itself, a chat, can be converted.
        chat = getattr(call_type, "value", call_type) == "acompletion"
        if not chat or not kwargs.get("stream") or not self._models & names:
            return None
        # LiteLLM's own way when it needs the whole answer: it asks without a stream and makes one.
        # Versions before 1.108 do not have it, and start all the same where nothing is guarded.
        from litellm.types.integrations.custom_logger import (  # noqa: PLC0415
            HEADROOM_INTERCEPTION_PREFIX,
            as_converted_stream,
        )

        return as_converted_stream(kwargs, HEADROOM_INTERCEPTION_PREFIX)


def configured(path: Path = CONFIGURATION) -> frozenset[str]:
    """Read the names of the models."""
    if not path.exists():
        return frozenset()
    return frozenset(json.loads(path.read_text())["stream_guard"])


guard = StreamGuard(configured())
