#!/bin/sh
# LiteLLM reads its secrets from the environment only. This puts them there from the mounted files,
# for this process alone: they are not in the image, `docker inspect` or `docker compose config`.
set -eu

secret() {
    [ -s "/run/secrets/$1" ] || { echo "/run/secrets/$1 is missing or empty" >&2; exit 1; }
    cat "/run/secrets/$1"
}

LITELLM_MASTER_KEY=$(secret master_key)
LITELLM_SALT_KEY=$(secret salt_key)
UI_PASSWORD=$(secret ui_password)
REDIS_PASSWORD=$(secret redis_password)
DATABASE_URL="postgresql://litellm:$(secret postgres_password)@postgres:5432/litellm"
export LITELLM_MASTER_KEY LITELLM_SALT_KEY UI_PASSWORD REDIS_PASSWORD DATABASE_URL

for file in /run/secrets/providers/*; do
    [ -f "$file" ] || continue
    # What a killed deploy left half-written (NAME.new) is no variable.
    case ${file##*/} in *[!A-Z0-9_]*) continue ;; esac
    export "${file##*/}=$(cat "$file")"
done

exec /app/docker/prod_entrypoint.sh "$@"
