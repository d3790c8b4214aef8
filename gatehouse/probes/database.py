"""Postgres, and LiteLLM's schema in it. Arguments: seconds after which a session is idle for long.

One call of psql answers everything; its password is read inside the container.
"""

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

from gatehouse.probes.common import containers, process_of, tell

PSQL = """
PGPASSWORD=$(cat /run/secrets/postgres_password)
export PGPASSWORD
exec psql -h 127.0.0.1 -U litellm -d litellm -AtXq \
-v proxy="$(getent hosts litellm | cut -d " " -f 1)" -v idle="$1" -f -"""
# The proxy's own pool may idle; anybody else who idles for long has forgotten to leave.
QUESTIONS = """
SET statement_timeout = 4000;
SELECT 'server', json_build_object(
    'limit', current_setting('max_connections')::int,
    'connections', (SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend'),
    'idle', (SELECT count(*) FROM pg_stat_activity WHERE state LIKE 'idle%'
        AND state_change < now() - make_interval(secs => :'idle')
        AND (state <> 'idle' OR host(client_addr) IS DISTINCT FROM NULLIF(:'proxy', ''))),
    'pooled', (SELECT count(*) FROM pg_stat_activity WHERE state = 'idle'
        AND host(client_addr) = NULLIF(:'proxy', '')),
    'locks', (SELECT count(DISTINCT pid) FROM pg_locks JOIN pg_stat_activity USING (pid)
        WHERE locktype = 'advisory' AND granted AND state LIKE 'idle%'
        AND state_change < now() - make_interval(secs => :'idle')),
    'bytes', pg_database_size(current_database()),
    'tables', (SELECT coalesce(json_agg(table_name), '[]') FROM information_schema.tables
        WHERE table_schema = current_schema()));
SELECT 'migrations', json_build_object(
    'done', coalesce(json_agg(migration_name) FILTER (WHERE finished_at IS NOT NULL), '[]'),
    'failed', coalesce(json_agg(migration_name) FILTER (WHERE finished_at IS NULL), '[]'))
    FROM _prisma_migrations WHERE rolled_back_at IS NULL;
SELECT 'spend', json_build_object(
    'bytes', pg_total_relation_size('"LiteLLM_SpendLogs"'),
    'day', (SELECT count(*) FROM "LiteLLM_SpendLogs"
        WHERE "startTime" > now() AT TIME ZONE 'UTC' - interval '1 day'),
    'rows', (SELECT greatest(reltuples, 0)::bigint FROM pg_class
        WHERE oid = '"LiteLLM_SpendLogs"'::regclass),
    'oldest_days', (SELECT extract(epoch FROM now() AT TIME ZONE 'UTC' - min("startTime")) / 86400
        FROM "LiteLLM_SpendLogs"));
SELECT 'prompts', count(*) FROM (SELECT messages::text AS asked, response::text AS answered
    FROM "LiteLLM_SpendLogs" ORDER BY "startTime" DESC LIMIT 1000) AS latest
    WHERE asked NOT IN ('{}', '[]', 'null', '""') OR answered NOT IN ('{}', '[]', 'null', '""');
SELECT 'keys', coalesce(json_agg(json_build_object(
    'alias', coalesce(key_alias, '#' || left(token, 12)),
    'left', extract(epoch FROM expires - (now() AT TIME ZONE 'UTC')),
    'limited', rpm_limit IS NOT NULL AND tpm_limit IS NOT NULL) ORDER BY key_alias), '[]')
    -- Neither sessions of the web interface, nor what a rotation has replaced.
    FROM "LiteLLM_VerificationToken" WHERE team_id IS DISTINCT FROM 'litellm-dashboard'
    AND coalesce(key_alias, '') !~ '@(new|[0-9]{8}-[0-9]{6}([.][0-9]{6})?)$';
SELECT 'admin', json_build_array(user_role) FROM "LiteLLM_UserTable"
    WHERE user_id = 'default_user_id';
"""
EXTRAS = (
    "app/.venv/lib/python3*/site-packages/litellm_proxy_extras",
    "usr/lib/python3*/site-packages/litellm_proxy_extras",
    "usr/local/lib/python3*/site-packages/litellm_proxy_extras",
)
MODEL = re.compile(r"^model (\w+) \{(.*?)^\}", re.MULTILINE | re.DOTALL)
MAPPED = re.compile(r'@@map\("(\w+)"\)')


def answers(idle: str) -> tuple[dict[str, Any], str]:
    """Give psql's answers by their names, and what it complained of."""
    done = subprocess.run(
        ["docker", "exec", "-i", "gatehouse-postgres-1", "sh", "-c", PSQL, "sh", idle],
        input=QUESTIONS,
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
    )
    lines = (line.partition("|") for line in done.stdout.splitlines())
    return {name: json.loads(value) for name, _, value in lines if value}, done.stderr.strip()


def schema() -> tuple[set[str], set[str]]:
    """Give the tables and the migrations that LiteLLM's container ships; raises `OSError`."""
    for pid in process_of("litellm", containers()):
        for pattern in EXTRAS:
            for folder in Path(f"/proc/{pid}/root").glob(pattern):
                models = MODEL.findall((folder / "schema.prisma").read_text())
                tables = {(MAPPED.findall(body) or [name])[0] for name, body in models}
                scripts = (folder / "migrations").glob("*/migration.sql")
                return tables, {path.parent.name for path in scripts}
    raise OSError("no running container of LiteLLM has its schema")


def main() -> None:
    """Ask Postgres once, and compare with what LiteLLM ships."""
    seen, complaints = answers(sys.argv[1])

    def part(name: str) -> Any:  # noqa: ANN401 - any JSON
        if name not in seen:
            raise OSError(complaints or "psql gave no answer")
        return seen[name]

    def missing_tables() -> list[str]:
        return sorted(schema()[0] - set(part("server")["tables"]))

    def migrations() -> dict[str, list[str]]:
        done = part("migrations")
        missing = schema()[1] - set(done["done"])
        return {"missing": sorted(missing), "failed": sorted(done["failed"])}

    tell(
        {
            "server": lambda: {k: v for k, v in part("server").items() if k != "tables"},
            "spend": lambda: part("spend"),
            "prompts": lambda: part("prompts"),
            "keys": lambda: part("keys"),
            "admin": lambda: part("server") and seen.get("admin", []),
            "missing_tables": missing_tables,
            "migrations": migrations,
        }
    )


if __name__ == "__main__":
    main()
