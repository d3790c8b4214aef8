"""LiteLLM: its configuration says what was meant, in keys that it knows."""

import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from gatehouse.render import Machine
from gatehouse.render.litellm import seed
from gatehouse.render.template import plain
from tests.given import MACHINE, PROVIDER_KEY, model, proxy, rendered, settings, variables

CONFIG = proxy()
WITH_KEY = Machine(MACHINE.cores, MACHINE.memory_mib, frozenset({PROVIDER_KEY}))
HERMES = "chat-hermes-3-llama-3.1-8b"
CLOUD = "qwen3-coder-480b-cloud"

# LiteLLM accepts any key and ignores what it does not know: these are read by 1.106 and 1.109.
KNOWN = {
    "general_settings": {
        "background_health_checks",
        "disable_model_info_refresh",
        "database_connection_pool_limit",
        "database_connection_timeout",
        "database_url",
        "disable_error_logs",
        "disable_master_key_return",
        "forward_client_headers_to_llm_api",
        "health_check_details",
        "master_key",
        "maximum_spend_logs_retention_period",
        "password_policy_check_breached_passwords",
        "proxy_batch_write_at",
        "store_model_in_db",
        "store_prompts_in_spend_logs",
        "trusted_proxy_ranges",
        "ui_access_mode",
        "user_api_key_cache_ttl",
    },
    "litellm_settings": {
        "allowed_fails",
        "cache",
        "cache_params",
        "callbacks",
        "context_window_fallbacks",
        "default_key_generate_params",
        "drop_params",
        "fallbacks",
        "json_logs",
        "num_retries",
        "request_timeout",
        "turn_off_message_logging",
    },
    "router_settings": {
        "allowed_fails",
        "cooldown_time",
        "enable_pre_call_checks",
        "model_group_alias",
        "model_group_retry_policy",
        "num_retries",
        "redis_host",
        "redis_password",
        "redis_port",
        "routing_strategy",
        "timeout",
    },
}
# Keys of old guides that LiteLLM does not have any more, never had there, or has for payers only.
GONE = {
    "disable_adding_master_key_hash_to_db",
    "public_routes",
    "max_request_size_mb",
    "max_response_size_mb",
    "separate_health_app",
    "separate_health_port",
    "use_prisma_migrate",
    "skip_db_migration_check",
    "redis_url",
    "default_fallbacks",
    "disable_prisma_schema_update",
}


def leaves(value: object, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], object]]:
    """Yield every value in a tree with the keys that lead to it."""
    if isinstance(value, dict):
        for key, item in value.items():
            yield from leaves(item, (*path, str(key)))
    elif isinstance(value, list):
        for item in value:
            yield from leaves(item, path)
    else:
        yield path, value


def offered(config: dict[str, Any]) -> list[str]:
    """Give the names in the model list."""
    return [entry["model_name"] for entry in config["model_list"]]


def test_keys_are_known() -> None:
    """No key is misspelt: LiteLLM would not say so."""
    assert CONFIG.keys() == KNOWN.keys() | {"model_list"}
    for section, known in KNOWN.items():
        assert CONFIG[section].keys() <= known


def test_keys_that_are_gone_are_not_written() -> None:
    """Nothing is set that does nothing."""
    keys = {key.lower() for path, _ in leaves(proxy(WITH_KEY)) for key in path}
    assert not GONE & keys
    assert "cooldown_time" not in CONFIG["litellm_settings"]
    assert "json_logs" not in CONFIG["general_settings"]


@pytest.mark.parametrize(
    ("section", "key", "value"),
    [
        ("general_settings", "proxy_batch_write_at", 60),
        ("general_settings", "store_prompts_in_spend_logs", False),
        ("general_settings", "disable_error_logs", False),
        ("general_settings", "health_check_details", False),
        ("general_settings", "background_health_checks", False),
        ("general_settings", "disable_model_info_refresh", True),
        ("general_settings", "ui_access_mode", "admin_only"),
        ("general_settings", "forward_client_headers_to_llm_api", False),
        ("general_settings", "maximum_spend_logs_retention_period", "90d"),
        ("general_settings", "store_model_in_db", False),
        ("general_settings", "trusted_proxy_ranges", []),
        ("litellm_settings", "request_timeout", 120),
        ("litellm_settings", "num_retries", 3),
        ("litellm_settings", "json_logs", True),
        ("litellm_settings", "drop_params", True),
        ("litellm_settings", "turn_off_message_logging", True),
        (
            "litellm_settings",
            "default_key_generate_params",
            {"rpm_limit": 120, "tpm_limit": 60000, "duration": "90d"},
        ),
        ("litellm_settings", "cache", True),
        ("router_settings", "routing_strategy", "simple-shuffle"),
        ("router_settings", "enable_pre_call_checks", True),
        ("router_settings", "allowed_fails", 3),
        ("router_settings", "cooldown_time", 30),
        ("router_settings", "num_retries", 3),
        ("router_settings", "timeout", 120),
        ("router_settings", "redis_host", "redis"),
    ],
)
def test_defaults_are_safe_and_reliable(section: str, key: str, value: object) -> None:
    """What the shipped settings mean, in LiteLLM's words."""
    assert CONFIG[section][key] == value


@pytest.mark.parametrize(
    ("change", "section", "key", "value"),
    [
        ({"litellm_store_prompts": True}, "general_settings", "store_prompts_in_spend_logs", True),
        ({"litellm_store_errors": False}, "general_settings", "disable_error_logs", True),
        ({"litellm_batch_write_seconds": 5}, "general_settings", "proxy_batch_write_at", 5),
        ({"litellm_ui_access": "all"}, "general_settings", "ui_access_mode", "all"),
        ({"litellm_cooldown_seconds": 5}, "router_settings", "cooldown_time", 5),
        ({"litellm_retries": 0}, "router_settings", "num_retries", 0),
        ({"litellm_request_timeout_seconds": 9}, "litellm_settings", "request_timeout", 9),
    ],
)
def test_setting_reaches_the_configuration(
    change: dict[str, object], section: str, key: str, value: object
) -> None:
    """A changed setting changes what LiteLLM reads."""
    assert proxy(**change)[section][key] == value


def test_spend_logs_are_kept_for_ever_when_no_days_are_set() -> None:
    """Without a number of days there is no clean-up."""
    general = proxy(litellm_spend_log_days=None)["general_settings"]
    assert "maximum_spend_logs_retention_period" not in general


@pytest.mark.parametrize(
    ("cores", "pool", "per_worker"), [(4, 25, 6), (1, 25, 25), (2, 25, 12), (4, 4, 1)]
)
def test_pool_is_shared_by_the_workers(cores: int, pool: int, per_worker: int) -> None:
    """LiteLLM's limit is for each worker: all of them together stay within the setting."""
    machine = Machine(cores, 65536)
    general = proxy(machine, litellm_pool_connections=pool)["general_settings"]
    assert general["database_connection_pool_limit"] == per_worker
    assert per_worker * machine.workers(settings()) <= pool


def test_workers_reach_the_command_line() -> None:
    """The number of workers, their memory and their cores go together."""
    found = variables(Machine(2, 65536))
    assert found["GATEHOUSE_LITELLM_WORKERS"] == "2"
    assert found["GATEHOUSE_LITELLM_MEMORY"] == "2560m"
    assert found["GATEHOUSE_LITELLM_CPUS"] == "2"


def test_answers_are_cached_in_redis() -> None:
    """Completions and embeddings for ten minutes, with a reference to the password."""
    assert CONFIG["litellm_settings"]["cache_params"] == {
        "type": "redis",
        "host": "redis",
        "port": 6379,
        "password": "os.environ/REDIS_PASSWORD",
        "ttl": 600,
        "supported_call_types": ["acompletion", "aembedding"],
    }


def test_cache_can_be_switched_off() -> None:
    """Zero seconds are no cache; the workers still share who rests."""
    config = proxy(redis_cache_ttl_seconds=0)
    assert config["litellm_settings"]["cache"] is False
    assert "cache_params" not in config["litellm_settings"]
    assert config["router_settings"]["redis_host"] == "redis"


def test_secrets_are_references() -> None:
    """Whatever is a key, a password or an address with one names a variable of the environment."""
    for path, value in leaves(proxy(WITH_KEY)):
        if re.fullmatch(r"(.*_)?(key|password)|database_url", path[-1]):
            assert value == "none" or re.fullmatch(r"os\.environ/[A-Z_]+", str(value)), path


def test_no_file_holds_a_value_of_a_secret() -> None:
    """Nothing that looks like a key is rendered anywhere."""
    for path, file in rendered(WITH_KEY).files.items():
        assert not re.search(r"\bsk-\w|://\w*:[^@/\s$]+@", file.content), path


def test_built_in_models_are_offered_on_a_fresh_host() -> None:
    """Without a key and a model server, the gateway still answers by itself."""
    assert offered(CONFIG) == [
        "chat-selftest-builtin",
        "embed-selftest-builtin",
        "chat-selftest-failing",
    ]


def test_provider_key_switches_the_cloud_on() -> None:
    """With its key each cloud model is offered, with a reference to the key; without, none is."""
    cloud = [name for name in offered(proxy(WITH_KEY)) if name.endswith("-cloud")]
    assert cloud == [CLOUD, "kimi-k2-1t-cloud", "deepseek-v3.1-671b-cloud"]
    assert not [name for name in offered(CONFIG) if name.endswith("-cloud")]
    keys = {
        entry["litellm_params"]["api_key"]
        for entry in proxy(WITH_KEY)["model_list"]
        if entry["model_name"] in cloud
    }
    assert keys == {f"os.environ/{PROVIDER_KEY}"}


def test_model_is_written_in_full() -> None:
    """An own model reaches LiteLLM with its limits, and without what was not given."""
    own = model(rpm=60, timeout_seconds=30, retries=1, context_tokens=4096, max_tokens=512)
    (entry,) = [
        entry
        for entry in proxy(models_extra=[own | {"tools": True}])["model_list"]
        if entry["model_name"] == "chat-mine-vllm"
    ]
    assert entry == {
        "model_name": "chat-mine-vllm",
        "litellm_params": {
            "model": "hosted_vllm/mine",
            "api_base": "http://host.docker.internal:8000/v1",
            "api_key": "none",
            "timeout": 30,
            "stream_timeout": 30,
            "rpm": 60,
            "max_retries": 1,
            "num_retries": 1,
            "max_tokens": 512,
        },
        "model_info": {
            "mode": "chat",
            "max_tokens": 512,
            "max_input_tokens": 4096,
            "max_output_tokens": 512,
            "supports_function_calling": True,
        },
    }


def test_embedding_is_not_asked_for_an_answer_length() -> None:
    """max_tokens is for chat."""
    entry = proxy(models_extra=[model("embed-mine", max_tokens=5)])["model_list"][-1]
    assert entry["model_info"]["mode"] == "embedding"
    assert "max_tokens" not in entry["litellm_params"]


def test_every_model_has_a_context() -> None:
    """Pre-call checks need the length of the question that each shipped model takes."""
    everything = proxy(WITH_KEY, models_enable=[m.name for m in settings().models])
    assert len(everything["model_list"]) == len(settings().models)
    assert all(entry["model_info"]["max_input_tokens"] for entry in everything["model_list"])


def test_alias_picks_the_first_that_is_offered() -> None:
    """chat-default is the local model where there is one, else the cloud's, else the built-in."""
    for expected, config in {
        "chat-selftest-builtin": CONFIG,
        CLOUD: proxy(WITH_KEY),
        HERMES: proxy(WITH_KEY, models_enable=[HERMES]),
    }.items():
        assert config["router_settings"]["model_group_alias"]["chat-default"] == expected


def test_alias_without_a_model_is_left_out() -> None:
    """Nobody is offered a name that nobody answers to."""
    assert CONFIG["router_settings"]["model_group_alias"].keys() == {
        "chat-default",
        "embeddings-default",
    }


def test_fallbacks_to_what_is_not_offered_are_left_out() -> None:
    """Without the cloud there is nobody to fall back to."""
    local = proxy(models_enable=[HERMES])["litellm_settings"]
    assert local["fallbacks"] == [{"chat-selftest-failing": ["chat-selftest-builtin"]}]
    assert local["context_window_fallbacks"] == []


def test_fallbacks_are_lists_of_offered_models() -> None:
    """From 1.108 LiteLLM does not start with a plain name: each target stands in a list."""
    config = proxy(WITH_KEY, models_enable=[HERMES])
    names = {*offered(config), *config["router_settings"]["model_group_alias"]}
    for key in ("fallbacks", "context_window_fallbacks"):
        entries = config["litellm_settings"][key]
        assert {HERMES: [CLOUD]} in entries
        for entry in entries:
            ((source, targets),) = entry.items()
            assert isinstance(targets, list)
            assert {source, *targets} <= names


def test_model_is_not_its_own_fallback() -> None:
    """Where an alias means the cloud model already, the cloud model is no fallback for it."""
    sources = {
        source for entry in proxy(WITH_KEY)["litellm_settings"]["fallbacks"] for source in entry
    }
    assert "chat-default" not in sources


def test_database_may_be_the_truth() -> None:
    """Then the file holds the self-tests only, and a deploy offers the others to the database."""
    change = {"litellm_config_source": "database"}
    config = proxy(WITH_KEY, **change)
    assert offered(config) == offered(CONFIG)
    assert config["general_settings"]["store_model_in_db"] is True
    seeded = [entry["model_name"] for entry in seed(settings(**change), WITH_KEY)]
    assert [*offered(config), *seeded] == offered(proxy(WITH_KEY))
    assert seed(settings(), WITH_KEY) == []


@pytest.mark.parametrize(("docs", "hidden"), [(False, "True"), (True, "False")])
def test_api_docs_need_their_setting(*, docs: bool, hidden: str) -> None:
    """The pages that need no key are off unless they are asked for."""
    assert variables(litellm_api_docs=docs)["GATEHOUSE_LITELLM_NO_DOCS"] == hidden


def start(place: Path) -> subprocess.CompletedProcess[str]:
    """Run start.sh with its secrets in `place`, and `env` as the server."""
    script = plain("litellm/start.sh").replace("/run/secrets", str(place))
    script = script.replace("/app/docker/prod_entrypoint.sh", "env")
    return subprocess.run(
        ["sh", "-c", script, "start.sh"], capture_output=True, text=True, check=False
    )


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """Give a directory with the container's secrets."""
    for name in ("master_key", "salt_key", "ui_password", "redis_password", "postgres_password"):
        (tmp_path / name).write_text(f"the {name}")
    (tmp_path / "providers").mkdir()
    return tmp_path


def test_start_gives_the_secrets_to_the_server(place: Path) -> None:
    """Each mounted file becomes the variable that LiteLLM reads."""
    (place / "providers" / PROVIDER_KEY).write_text("$not `expanded`")
    (place / "providers/MY_KEY.new").write_text("left by a killed deploy")
    environment = start(place).stdout.splitlines()
    assert {
        "LITELLM_MASTER_KEY=the master_key",
        "LITELLM_SALT_KEY=the salt_key",
        "UI_PASSWORD=the ui_password",
        "REDIS_PASSWORD=the redis_password",
        "DATABASE_URL=postgresql://litellm:the postgres_password@postgres:5432/litellm",
        f"{PROVIDER_KEY}=$not `expanded`",
    } <= set(environment)
    assert not [line for line in environment if "killed" in line]


@pytest.mark.parametrize("name", ["master_key", "salt_key", "postgres_password"])
def test_start_fails_without_a_secret(place: Path, name: str) -> None:
    """The server is not started with half of its secrets."""
    (place / name).unlink()
    done = start(place)
    assert done.returncode != 0
    assert name in done.stderr
    assert "LITELLM" not in done.stdout
