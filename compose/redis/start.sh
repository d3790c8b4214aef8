#!/bin/sh
# Gives Redis its users without the password appearing in a configuration file, in `docker inspect`
# or in `ps`: only its hash is written, to the container's own memory.
set -eu
umask 077
password=$(cat /run/secrets/redis_password)
[ -n "$password" ] || { echo "/run/secrets/redis_password is empty" >&2; exit 1; }
hash=$(printf %s "$password" | sha256sum | cut -d ' ' -f 1)
cat >/tmp/users.acl <<ACL
user default on #$hash ~* &* +@all -@admin -@dangerous +info +flushall
user health on nopass resetchannels -@all +ping
ACL
exec "$@"
