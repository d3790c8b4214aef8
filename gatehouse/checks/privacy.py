"""Privacy: what was promised holds for what runs, not only for what was rendered."""

from collections.abc import Callable

from gatehouse.checks.check import Check, Result
from gatehouse.checks.docker import ANSWERS, STACK
from gatehouse.checks.postgres import ANSWERS as DATABASE
from gatehouse.checks.postgres import database
from gatehouse.checks.probe import nothing, of
from gatehouse.settings import Settings

# Nothing is fetched at start, and nothing is told to anybody.
QUIET = {
    "LITELLM_TELEMETRY_DISABLED": "true",
    "LITELLM_OFFLINE_MODE": "true",
    "LITELLM_LOCAL_MODEL_COST_MAP": "True",
    "LITELLM_DISABLE_LATEST_RELEASE_CHECK": "true",
    "CHECKPOINT_DISABLE": "1",
    "LITELLM_MODE": "PRODUCTION",
    "LITELLM_LOG": "ERROR",
}


def promises(settings: Settings) -> dict[str, str]:
    """Give the lines of LiteLLM's configuration that privacy rests on."""
    values = {
        "store_prompts_in_spend_logs": settings.litellm_store_prompts,
        "disable_error_logs": not settings.litellm_store_errors,
        "forward_client_headers_to_llm_api": settings.litellm_forward_client_headers,
        "turn_off_message_logging": True,
        "disable_master_key_return": True,
        "health_check_details": False,
        "background_health_checks": False,
        "password_policy_check_breached_passwords": False,
    }
    found = {key: str(value).lower() for key, value in values.items()}
    if settings.litellm_spend_log_days:
        found["maximum_spend_logs_retention_period"] = f"{settings.litellm_spend_log_days}d"
    return found


def _lines(expected: dict[str, str], where: str) -> Callable[[dict[str, str]], Result]:
    def judge(seen: dict[str, str]) -> Result:
        if not seen:
            return Result(holds=False, found=f"no {where}: LiteLLM does not run")
        return nothing(
            [
                f"{key} is {seen.get(key) or 'not set'}"
                for key, value in expected.items()
                if seen.get(key) != value
            ]
        )

    return judge


def checks(settings: Settings) -> list[Check]:
    """Give the checks of what people were promised."""
    again = "deploy again: pyinfra inventory deploy.py"
    found = [
        Check(
            name="privacy: the configuration that runs is as promised",
            component="privacy",
            expected=", ".join(f"{key}: {value}" for key, value in promises(settings).items()),
            command=STACK,
            judge=of("configuration", _lines(promises(settings), "configuration")),
            fix=again,
            needs=(ANSWERS, "litellm: healthy"),
        ),
        Check(
            name="privacy: nothing is told to anybody",
            component="privacy",
            expected=", ".join(f"{key}={value}" for key, value in QUIET.items()),
            command=STACK,
            judge=of("environment", _lines(QUIET, "environment")),
            fix=again,
            needs=(ANSWERS, "litellm: healthy"),
        ),
    ]
    if not settings.litellm_store_prompts:
        found.append(
            Check(
                name="privacy: no prompt in the spend logs",
                component="privacy",
                expected="none in the last 1000 rows",
                command=database(settings),
                judge=of("prompts", lambda rows: Result(rows == 0, f"{rows} rows with text")),
                fix="set litellm_store_prompts = False, deploy again, and delete these rows",
                needs=(DATABASE, "litellm: no table is missing"),
            )
        )
    return found
