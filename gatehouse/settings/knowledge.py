"""What is known of models elsewhere: prices and context lengths."""

from typing import Annotated

from gatehouse.settings.field import Component, setting


class KnowledgeSettings(Component):
    """LiteLLM's list of prices and context lengths, kept on the host; nothing needs it."""

    knowledge_refresh: Annotated[
        bool,
        setting(
            "Fetch the list from knowledge_url now and then. Off: the host asks nobody, and "
            "`gatehouse knowledge refresh --from FILE` takes one that you bring."
        ),
    ]
    knowledge_url: Annotated[
        str,
        setting(
            "Where the list is: LiteLLM's own, or a mirror of it.",
            example="https://mirror.example.com/model_prices_and_context_window.json",
            pattern=r"^https?://[^\s@]+$",
        ),
    ]
