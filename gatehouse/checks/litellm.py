"""LiteLLM: the gateway, as a client sees it, and its database's schema."""

from typing import Any

from gatehouse.checks.check import Check, Result
from gatehouse.checks.docker import ANSWERS, STACK, Containers, current
from gatehouse.checks.postgres import ANSWERS as DATABASE
from gatehouse.checks.postgres import database
from gatehouse.checks.probe import listed, nothing, of, probe, same
from gatehouse.checks.service import healthy
from gatehouse.settings import Settings
from gatehouse.settings.version import ADVICE, refusal

SELFTEST = "chat-selftest-builtin"
_LOGS = "cd /opt/gatehouse/current && docker compose logs --tail 50 litellm"
_HEALTHY = "litellm: healthy"
_ALIVE = "litellm: alive"
_MIGRATED = "litellm: migrations complete"
_TABLES = "litellm: no table is missing"
_ADMIN = "litellm: the admin user is there"
_JOB = "docker start --attach gatehouse-litellm-migrate-1"


def address(settings: Settings) -> str:
    """Give where the gateway listens, as the host itself reaches it."""
    bind = settings.network_bind_address
    return f"http://{'127.0.0.1' if bind.is_unspecified else bind}:{settings.litellm_port}"


def _job(containers: Containers) -> Result:
    mine = [each for each in containers if each["service"] == "litellm-migrate"]
    seen = [f"{each['status']} {each['exit_code']}" for each in mine]
    return Result(seen == ["exited 0"], ", ".join(seen) or "no container")


def _version(containers: Containers) -> Result:
    images = {each["image"] for each in containers if each["service"] == "litellm"}
    refused = [f"{image}: {why}" for image in images if (why := refusal(image))]
    return Result(bool(images) and not refused, listed(refused) or ", ".join(images) or "nothing")


def _migrations(seen: dict[str, list[str]]) -> Result:
    failed = [f"{name} failed" for name in seen["failed"]]
    return nothing(failed + [f"{name} is missing" for name in seen["missing"]])


def _readable(names: list[str]) -> Result:
    return nothing([f"{name} is ciphertext" for name in names])


def _completed(seen: dict[str, Any]) -> Result:
    return Result(seen["object"] == "chat.completion", f"{seen['object']} in {seen['seconds']} s")


def _admin(roles: list[str]) -> Result:
    return Result(roles == ["proxy_admin"], ", ".join(map(str, roles)) or "no such user")


def checks(settings: Settings) -> list[Check]:
    """Give the checks of the gateway."""
    url = address(settings)
    ask = probe("gateway", url, SELFTEST)
    login = probe("login", url, settings.litellm_admin_user)
    tables = database(settings)

    def check(name: str, expected: str, command: str, judge: Any, fix: str, **more: Any) -> Check:  # noqa: ANN401
        return Check(name, "litellm", expected, command, judge, fix, **more)

    return [
        check(
            "litellm: its version may be used",
            "a version that is not on the refuse list",
            STACK,
            of("containers", _version),
            f"{ADVICE}: litellm_image",
            needs=(ANSWERS,),
        ),
        check(
            "litellm: migrations done",
            "exited 0",
            STACK,
            of("containers", _job),
            "cd /opt/gatehouse/current && docker compose logs litellm-migrate",
            needs=(ANSWERS, "postgres: healthy", "postgres: nobody sits on the migration lock"),
            repair=_JOB,
        ),
        healthy("litellm", "postgres: healthy", "litellm: migrations done"),
        current("litellm"),
        check(
            _ALIVE,
            "200",
            ask,
            of("liveness", same(200)),
            f"{_LOGS}; the address is {url}",
            needs=(_HEALTHY, "network: no port of ours is held by somebody else"),
        ),
        check(
            "litellm: connected to its database",
            "connected",
            ask,
            of("readiness", lambda seen: same("connected")(seen.get("db"))),
            _LOGS,
            needs=(_ALIVE,),
        ),
        check(
            "litellm: refuses a client without a key",
            "401",
            ask,
            of("anonymous", same(401)),
            _LOGS,
            needs=(_ALIVE,),
        ),
        check(
            "litellm: lists its models",
            "every model of the configuration",
            ask,
            of("unlisted", lambda names: nothing([f"{name} is missing" for name in names])),
            _LOGS,
            needs=(_ALIVE,),
        ),
        check(
            "litellm: answers through the self-test model",
            "an answer",
            ask,
            of("completion", _completed),
            f"{_LOGS}; the address is {url}",
            needs=(_ALIVE, "litellm: lists its models"),
        ),
        check(
            "litellm: every provider is readable",
            "no model whose provider, name or address is ciphertext",
            ask,
            of("unreadable", _readable),
            "put the salt key back that it was stored with, or delete the model and add it again",
            needs=(_ALIVE,),
        ),
        check(
            _MIGRATED,
            "every migration that its image ships, none failed",
            tables,
            of("migrations", _migrations),
            "sudo gatehouse doctor --fix runs the job litellm-migrate again",
            needs=(DATABASE, _HEALTHY, "litellm: migrations done"),
            repair=_JOB,
        ),
        check(
            _TABLES,
            "every table of LiteLLM's own schema",
            tables,
            of("missing_tables", lambda names: nothing([f"{name} is missing" for name in names])),
            "sudo gatehouse doctor --fix runs the job litellm-migrate again; else put the database "
            "back from a backup",
            needs=(DATABASE, _HEALTHY, _MIGRATED),
            repair=_JOB,
        ),
        check(
            _ADMIN,
            "a user default_user_id that is proxy_admin",
            tables,
            of("admin", _admin),
            "sudo gatehouse doctor --fix, or log in once at " + url + "/ui",
            needs=(DATABASE, _TABLES, _ALIVE),
            repair=admin(settings),
        ),
        check(
            "litellm: serves its web interface",
            "a page",
            ask,
            of("page", lambda page: Result(page is True, "a page" if page else "no page")),
            _LOGS,
            needs=(_ALIVE,),
        ),
        check(
            "litellm: lets the admin in",
            "a session",
            login,
            of("login", same("a session")),
            f"{_LOGS}; user and password are litellm_admin_user and "
            "/etc/gatehouse/secrets/ui_password",
            needs=(_ADMIN, "litellm: serves its web interface"),
            thorough=True,
        ),
    ]


def admin(settings: Settings) -> str:
    """Give the command that has LiteLLM make the admin user: it does so at a login."""
    return probe("login", address(settings), settings.litellm_admin_user) + " | grep -q 'a session'"
