#!/bin/sh
# Gives Redis its users without the password appearing in a configuration file, in `docker inspect`
# or in `ps`: only its hash is written, to the container's own memory.
set -eu
umask 077
hash=$(printf %s "$(cat /run/secrets/redis_password)" | sha256sum | cut -d ' ' -f 1)
cat >/tmp/users.acl <<ACL
user default on #$hash ~* &* +@all -@admin -@dangerous +info +flushall
user health on nopass resetchannels -@all +ping
ACL
exec "$@"
