"""LiteLLM's database, asked and never written to; what it stores as ciphertext is not asked for."""

import json
import subprocess
from typing import Any

from gatehouse.tool.errors import CannotLookError

_PSQL = (
    *("docker", "exec", "-i", "gatehouse-postgres-1"),
    *("psql", "-U", "litellm", "-d", "litellm", "-XAtq", "-v", "ON_ERROR_STOP=1"),
)
_SECONDS = 60


def rows(query: str) -> list[dict[str, Any]]:
    """Give the rows of a query; raises `CannotLookError`."""
    wrapped = f"SET default_transaction_read_only = on; SELECT coalesce(json_agg(q), '[]') FROM ({query}) q;"  # noqa: E501, S608 - the callers' own words, with numbers in them
    try:
        done = subprocess.run(
            _PSQL, input=wrapped, capture_output=True, text=True, check=False, timeout=_SECONDS
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise CannotLookError(f"the database cannot be asked ({error}): gatehouse doctor") from None
    if done.returncode:
        words = " ".join(done.stderr.split())[:300]
        raise CannotLookError(f"the database cannot be asked ({words}): gatehouse doctor")
    found: list[dict[str, Any]] = json.loads(done.stdout)
    return found
