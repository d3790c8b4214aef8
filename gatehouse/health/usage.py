"""Requests and spend of the last day, from LiteLLM's own log of them."""

import json
import subprocess
import time

from gatehouse.health.document import Hour, ModelUse, Usage

HOURS = 24
_SECONDS = 20
_MODELS = 8
# LiteLLM asks itself about its health under that name, and the checks the self-test model. What was
# refused for want of a key has no model.
_NOT_COUNTED = "('chat-selftest-builtin', 'litellm-internal-health-check')"
_SQL = f"""
set statement_timeout = '10s';
set default_transaction_read_only = on;
with day as (
    select extract(epoch from date_trunc('hour', "startTime"))::bigint as hour,
        coalesce(nullif(model_group, ''), nullif(model, '')) as model,
        coalesce(status, 'success') = 'failure' as failed,
        coalesce(total_tokens, 0) as tokens, coalesce(spend, 0) as spend
    from "LiteLLM_SpendLogs"
    where "startTime" >= date_trunc('hour', now() at time zone 'utc') - interval '{HOURS - 1} hours'
), counted as (select * from day where model is not null and model not in {_NOT_COUNTED})
select json_build_object(
    'hours', (select coalesce(json_agg(h), '[]') from (
        select hour as start, count(*) as requests, count(*) filter (where failed) as failed
        from counted group by hour order by hour) h),
    'models', (select coalesce(json_agg(m), '[]') from (
        select model, count(*) as requests, count(*) filter (where failed) as failed,
            sum(tokens) as tokens, sum(spend) as spend
        from counted group by model order by count(*) desc, model) m));
"""  # noqa: S608 - our own words, no value comes from outside
_PSQL = [
    *("docker", "exec", "-i", "gatehouse-postgres-1", "sh", "-c"),
    "PGPASSWORD=$(cat /run/secrets/postgres_password) "
    "exec psql -h 127.0.0.1 -U litellm -d litellm -v ON_ERROR_STOP=1 -qAt",
]


def last_day() -> Usage:
    """Ask the database; raises `OSError` or `ValueError` with what it said."""
    done = subprocess.run(
        _PSQL, input=_SQL, capture_output=True, text=True, timeout=_SECONDS, check=False
    )
    if done.returncode:
        words = done.stderr.strip().splitlines() or [f"exit code {done.returncode}"]
        raise OSError(f"Postgres does not say: {words[-1][:200]}")
    return summed(json.loads(done.stdout), time.time())


def summed(found: dict[str, list[dict[str, float]]], now: float) -> Usage:
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
