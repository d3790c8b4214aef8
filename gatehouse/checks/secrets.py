"""Secrets: there, not readable for others, in use, and not visible where a secret often shows."""

from gatehouse.checks.check import Check, Result, silent
from gatehouse.checks.docker import ANSWERS, STACK
from gatehouse.checks.host import SECRETS, disk, modes
from gatehouse.checks.probe import nothing, of, probe
from gatehouse.settings import Settings

MADE = "secrets: made, and no default"
HELD = ("master_key", "salt_key", "ui_password", "redis_password")


def _in_use(environment: dict[str, str]) -> Result:
    if not environment:
        return Result(holds=False, found="LiteLLM does not run")
    return nothing([f"{name} is another one" for name in HELD if environment.get(name) != "same"])


def checks(settings: Settings) -> list[Check]:
    """Give the checks of secrets."""
    return [
        Check(
            name=MADE,
            component="secrets",
            expected=f"{len(SECRETS)} files with at least 32 characters, each its own",
            command=disk(settings),
            judge=of("secrets", nothing),
            fix="put it back from a backup; for a new host: pyinfra inventory deploy.py",
        ),
        Check(
            name="secrets: readable for their readers only",
            component="secrets",
            expected="every file 0440 root:gatehouse-secrets",
            command=disk(settings),
            judge=of("secret_modes", nothing),
            fix="sudo gatehouse doctor --fix sets modes and owners",
            needs=("host: nothing is writable for everybody",),
            repair=modes(settings),
        ),
        Check(
            name="secrets: no rotation was broken off",
            component="secrets",
            expected="one value of each",
            # What a rotation keeps until the new value is proven (gatehouse/tool/rotation.py).
            command="cd /etc/gatehouse/secrets && ls | grep \\.old$; true",
            judge=silent,
            fix="sudo gatehouse secrets recover",
            repair="gatehouse secrets recover",
        ),
        Check(
            name="secrets: LiteLLM runs with those on disk",
            component="secrets",
            expected="the same in its process and on disk",
            command=STACK,
            judge=of("environment", _in_use),
            fix="pyinfra inventory deploy.py starts again what runs with an older secret",
            needs=(ANSWERS, MADE, "litellm: healthy"),
        ),
        Check(
            name="secrets: visible nowhere else",
            component="secrets",
            expected="in no container's configuration, process list, log or rendered file",
            # Models are many gigabytes that nobody of ours writes to.
            command=probe("leaks", settings.models_dir),
            judge=of("places", nothing),
            fix="find out who wrote it there, remove it, and replace the secret",
            needs=(ANSWERS,),
        ),
    ]
