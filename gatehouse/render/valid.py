"""What LiteLLM's own look at its configuration misses (1.108.7).

Names that nobody knows, and values that nobody sets: it says that all is fine, and goes on without.
"""

import difflib
import re
from collections.abc import Iterable
from collections.abc import Set as AbstractSet
from typing import Any

import yaml

_REFERENCE = re.compile(r"\bos\.environ/(\w+)")
SECTIONS = {
    *("model_list", "general_settings", "litellm_settings", "router_settings", "mcp_servers"),
}
# Those that we write; a key that LiteLLM does not know changes nothing, and nobody is told.
GENERAL = {
    *("master_key", "database_url", "database_connection_pool_limit"),
    *("database_connection_timeout", "user_api_key_cache_ttl", "proxy_batch_write_at"),
    *("store_model_in_db", "store_prompts_in_spend_logs", "disable_error_logs"),
    *("disable_master_key_return", "health_check_details", "background_health_checks"),
    *("disable_model_info_refresh", "ui_access_mode", "forward_client_headers_to_llm_api"),
    *("trusted_proxy_ranges", "password_policy_check_breached_passwords"),
    "maximum_spend_logs_retention_period",
}
# What the container's start sets (compose/litellm/start.sh), besides the providers' keys.
SET = {
    *("LITELLM_MASTER_KEY", "LITELLM_SALT_KEY", "UI_PASSWORD", "REDIS_PASSWORD", "DATABASE_URL"),
}


def references(config: str) -> set[str]:
    """Give the variables that a configuration refers to."""
    return set(_REFERENCE.findall(config))


def problems(config: str, provider_keys: AbstractSet[str]) -> list[str]:
    """Give what is wrong with a configuration, on a host that has these provider keys."""
    try:
        found = yaml.safe_load(config)
    except yaml.YAMLError as error:
        return [f"it is no YAML: {' '.join(str(error).split())}"]
    if not isinstance(found, dict):
        return ["it holds no sections"]
    general = found.get("general_settings") or {}
    reasons = [
        f"no section is called {_meant(name, SECTIONS)}" for name in _unknown(found, SECTIONS)
    ]
    reasons += [
        f"general_settings has no key {_meant(name, GENERAL)}"
        for name in _unknown(general, GENERAL)
    ]
    unset = references(config) - SET - provider_keys
    reasons += [f"os.environ/{name}: nothing sets {name}" for name in sorted(unset)]
    if not general.get("master_key"):
        reasons.append("general_settings has no master_key: anybody could use the gateway")
    return reasons


def _unknown(found: dict[str, Any], known: AbstractSet[str]) -> list[str]:
    return [str(name) for name in found if name not in known]


def _meant(name: str, known: Iterable[str]) -> str:
    close = difflib.get_close_matches(name, known, 1)
    return f"{name} (did you mean {close[0]}?)" if close else name
