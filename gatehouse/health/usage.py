"""Requests and spend of the last day, from LiteLLM's own log of them."""

import time
from typing import Any

from gatehouse.health.document import Hour, ModelUse, Usage
from gatehouse.tool.database import rows

HOURS = 24
_MODELS = 8
# LiteLLM asks itself about its health under that name, and the checks the self-test model. What was
# refused for want of a key has no model.
_NOT_COUNTED = "('chat-selftest-builtin', 'litellm-internal-health-check')"
_COUNTED = f"""(
    select extract(epoch from date_trunc('hour', "startTime"))::bigint as start,
        coalesce(nullif(model_group, ''), nullif(model, '')) as model,
        coalesce(status, 'success') = 'failure' as failed,
        coalesce(total_tokens, 0) as tokens, coalesce(spend, 0) as spend
    from "LiteLLM_SpendLogs"
    where "startTime" >= date_trunc('hour', now() at time zone 'utc') - interval '{HOURS - 1} hours'
        and coalesce(nullif(model_group, ''), nullif(model, '')) not in {_NOT_COUNTED}
) counted"""  # noqa: S608 - our own words, no value comes from outside
_HOURS = f"""
select start, count(*) as requests, count(*) filter (where failed) as failed
from {_COUNTED} group by start order by start"""  # noqa: S608 - the same
_BY_MODEL = f"""
select model, count(*) as requests, count(*) filter (where failed) as failed,
    sum(tokens) as tokens, sum(spend) as spend
from {_COUNTED} group by model order by count(*) desc, model"""  # noqa: S608 - the same


def last_day() -> Usage:
    """Ask the database; raises `CannotLookError`."""
    found = {"hours": rows(_HOURS), "models": rows(_BY_MODEL)}
    return summed(found, time.time())


def summed(found: dict[str, list[dict[str, Any]]], now: float) -> Usage:
    """Sum up what the database gave; hours without a request are there with 0."""
    models = [ModelUse.model_validate(each) for each in found["models"]]
    by_start = {int(each["start"]): each for each in found["hours"]}
    this_hour = int(now) // 3600 * 3600
    hours = []
    for number in range(HOURS - 1, -1, -1):
        start = this_hour - number * 3600
        seen = by_start.get(start, {})
        hours.append(
            Hour(
                start=start,
                requests=int(seen.get("requests", 0)),
                failed=int(seen.get("failed", 0)),
            )
        )
    return Usage(
        requests=sum(each.requests for each in models),
        failed=sum(each.failed for each in models),
        tokens=sum(each.tokens for each in models),
        spend=sum(each.spend for each in models),
        hours=hours,
        models=models[:_MODELS],
    )
