"""The gateway."""

from typing import Annotated, Literal

from gatehouse.settings.field import Component, setting
from gatehouse.settings.postgres import CONTAINER_USER, IMAGE


class LitellmSettings(Component):
    """LiteLLM: image, limits, privacy, routing and what a new key may do."""

    litellm_image: Annotated[
        str,
        setting("Image, pinned to a version that is not on the refuse list.", pattern=IMAGE),
    ]
    litellm_user: Annotated[
        str,
        setting("uid:gid that the proxy runs as; 65534 in the image.", pattern=CONTAINER_USER),
    ]
    litellm_port: Annotated[
        int, setting("Port on the bind address.", unit="port", ge=1024, le=65535)
    ]
    litellm_workers: Annotated[
        int,
        setting(
            "Worker processes. Never more than the host's cores, nor than half of its memory "
            "holds: the deploy lowers the number and says so.",
            unit="processes",
            ge=1,
            le=128,
        ),
    ]
    litellm_worker_memory_mib: Annotated[
        int,
        setting(
            "Memory that the container's limit grants for each worker.",
            unit="MiB",
            ge=512,
            le=65536,
        ),
    ]
    litellm_worker_requests: Annotated[
        int,
        setting(
            "Requests after which a worker is replaced, against slow memory growth.",
            unit="requests",
            ge=100,
            le=10000000,
        ),
    ]
    litellm_cpus: Annotated[
        float | None,
        setting("CPU limit. None: one core for each worker.", unit="cores", ge=0.1, le=1024),
    ]
    litellm_pids: Annotated[int, setting("Process limit.", unit="processes", ge=64, le=32768)]
    litellm_stop_grace_seconds: Annotated[
        int,
        setting(
            "Time to finish running requests before it is killed.", unit="seconds", ge=5, le=900
        ),
    ]
    litellm_start_timeout_seconds: Annotated[
        int,
        setting(
            "How long migrations may take, and then the proxy to be healthy; for so long a deploy "
            "waits, and Docker does not call it unhealthy.",
            unit="seconds",
            ge=30,
            le=3600,
        ),
    ]
    litellm_pool_connections: Annotated[
        int,
        setting(
            "Database connections of all workers together (LiteLLM's own limit is per worker).",
            unit="connections",
            ge=4,
            le=900,
        ),
    ]
    litellm_request_timeout_seconds: Annotated[
        int, setting("Longest time for one request.", unit="seconds", ge=1, le=6000)
    ]
    litellm_batch_write_seconds: Annotated[
        int, setting("How often spend is written to the database.", unit="seconds", ge=1, le=3600)
    ]
    litellm_store_prompts: Annotated[
        bool, setting("Keep prompts and answers in the spend logs (privacy law applies).")
    ]
    litellm_store_errors: Annotated[
        bool,
        setting("Keep failed requests in the database: finds expired keys; off for privacy."),
    ]
    litellm_spend_log_days: Annotated[
        int | None,
        setting("How long spend logs are kept. None: for ever.", unit="days", ge=1, le=3650),
    ]
    litellm_admin_user: Annotated[
        str,
        setting(
            "Name of the admin in the web interface; the password is made on the host.",
            pattern=r"^[A-Za-z0-9._@-]{1,64}$",
        ),
    ]
    litellm_ui_access: Annotated[
        Literal["admin_only", "all"], setting("Who may use the web interface.")
    ]
    litellm_forward_client_headers: Annotated[
        bool, setting("Pass the client's own headers on to model servers and clouds.")
    ]
    litellm_api_docs: Annotated[
        bool, setting("Serve the API documentation pages, which need no key.")
    ]
    litellm_config_source: Annotated[
        Literal["file", "database"],
        setting(
            "Where the list of models is the truth: the rendered file (a deploy decides), or the "
            "database (the web interface decides; a deploy only adds what is missing). With the "
            "file, LiteLLM forgets a credential that was made in the web interface when it starts "
            "again."
        ),
    ]
    litellm_stream_guard: Annotated[
        list[str],
        setting(
            "Models whose servers garble streams, for example with tool calls: they are asked for "
            "the whole answer, which reaches the client as a stream of one chunk."
        ),
    ]
    litellm_retries: Annotated[
        int, setting("Retries of a failed request.", unit="times", ge=0, le=10)
    ]
    litellm_allowed_fails: Annotated[
        int,
        setting("Failures a minute before a model rests.", unit="failures", ge=1, le=1000),
    ]
    litellm_cooldown_seconds: Annotated[
        int, setting("How long such a model rests.", unit="seconds", ge=1, le=3600)
    ]
