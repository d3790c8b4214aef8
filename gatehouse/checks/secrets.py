"""Secrets: there, not readable for others, and not visible where a secret often shows."""

import shlex

from gatehouse.checks.check import Check, silent
from gatehouse.settings import Settings

_NAMES = "master_key postgres_password redis_password salt_key ui_password"
# The secrets are grep's patterns by file: in a command line they would show in `ps` themselves.
_VISIBLE = r"""
cd /etc/gatehouse/secrets || exit 1
set --
for file in *_key *_password providers/*; do [ -s "$file" ] && set -- "$@" -f "$file"; done
# Counted: grep -q would break off who is read, and they would complain.
look() { place=$1; shift; [ "$(grep -cF "$@")" = 0 ] || echo "a secret shows in $place"; }
docker ps -aq | xargs -r docker inspect | look "docker inspect" "$@"
(cd /opt/gatehouse/current && docker compose config) | look "docker compose config" "$@"
ps -eo args= | look "ps" "$@"
find /opt/gatehouse /var/lib/gatehouse \( -path MODELS -o -path /opt/gatehouse/venvs \) -prune \
    -o -type f ! -name '*.tar' -exec cat {} + | look "a rendered file" "$@"
docker ps -aq --filter label=com.docker.compose.project=gatehouse |
    xargs -r -n 1 docker logs 2>&1 | look "docker logs" "$@"
true"""


def checks(settings: Settings) -> list[Check]:
    """Give the checks of secrets."""
    return [
        Check(
            name="secrets: made, and readable for their readers only",
            component="secrets",
            expected="every file 0440 root:gatehouse-secrets with at least 32 characters",
            command=f"""
cd /etc/gatehouse/secrets && for name in {_NAMES}; do
    [ "$(stat -c '%a %U %G' "$name")" = "440 root gatehouse-secrets" ] ||
        echo "$name: mode or owner"
    [ "$(wc -c <"$name")" -ge 32 ] || echo "$name: too short"
done
find . -type f ! -perm 440
cmp -s master_key salt_key && echo "the salt key is the master key"; true""",
            judge=silent,
            fix="deploy again: pyinfra inventory deploy.py",
        ),
        Check(
            name="secrets: visible nowhere else",
            component="secrets",
            expected="in no container's configuration, process list, log or rendered file",
            # Models are many gigabytes that nobody of ours writes to.
            command=_VISIBLE.replace("MODELS", shlex.quote(settings.models_dir)),
            judge=silent,
            fix="find out who wrote it there, remove it, and replace the secret",
        ),
    ]
