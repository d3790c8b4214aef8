"""The faults: how each is made and undone, as root's shell on the workstation."""

import shlex
from dataclasses import dataclass

PORT = 9200
UPSTREAM = f"systemctl {{}} upstream-{PORT}"
_MODE = f"curl -sf -X POST http://172.30.40.1:{PORT}/_mode -d '{{}}' >/dev/null"
_PID = "$(docker inspect -f '{{{{.State.Pid}}}}' gatehouse-{}-1)"
SECRET = "/etc/gatehouse/secrets/redis_password"  # noqa: S105 - a path
# As many sessions as Postgres takes, each asleep.
_SESSIONS = (
    "docker exec -d gatehouse-postgres-1 sh -c 'export PGPASSWORD=$(cat "
    "/run/secrets/postgres_password); for i in $(seq 120); do psql -h 127.0.0.1 -U litellm "
    '-d litellm -c "select pg_sleep({})" >/dev/null 2>&1 & done; wait\''
)
# Postgres' volume becomes a small disk in memory, and is full.
_VOLUME = "$(docker volume inspect -f '{{.Mountpoint}}' gatehouse_postgres-data)"
_SMALL_DISK = f"""
volume={_VOLUME}; docker stop gatehouse-postgres-1
mkdir -p /run/kept && mount --bind $volume /run/kept
size=$(( $(du -sm $volume | cut -f 1) + 24 ))
mount -t tmpfs -o size=${{size}}m,mode=700 tmpfs $volume
cp -a /run/kept/. $volume/ && docker start gatehouse-postgres-1
dd if=/dev/zero of=$volume/filler bs=1M 2>/dev/null; true"""
_LARGE_DISK = f"""
volume={_VOLUME}; rm -f $volume/filler; docker stop gatehouse-postgres-1
cp -a $volume/. /run/kept/ && umount $volume && umount /run/kept
docker start gatehouse-postgres-1"""
# Answers whatever it is asked with nine bytes that are no JSON, and says that they are so many.
_LIAR = """
import socketserver, sys
class Liar(socketserver.BaseRequestHandler):
    def handle(self):
        self.request.recv(65536)
        self.request.sendall(b"HTTP/1.1 200 OK\\r\\nContent-Type: application/json\\r\\n"
            b"Content-Length: %d\\r\\n\\r\\n{nonsense" % int(sys.argv[1]))
socketserver.ThreadingTCPServer.allow_reuse_address = True
socketserver.ThreadingTCPServer(("172.30.40.1", int(sys.argv[2])), Liar).serve_forever()
"""
_HONEST = f"systemctl stop liar; {UPSTREAM.format('start')}"


def _liar(length: int) -> str:
    words = shlex.join(["python3", "-I", "-c", _LIAR, str(length), str(PORT)])
    return f"{UPSTREAM.format('stop')}; systemd-run --quiet --collect --unit liar {words}"


@dataclass(frozen=True)
class Fault:
    """One fault: its name, how it is made, for how long it lasts, and how it is undone."""

    name: str
    make: str
    undo: str = "true"
    seconds: float = 10


def killed(service: str) -> Fault:
    """Give the death of a container's first process, as the kernel would bring it about."""
    return Fault(f"{service}: kill -9", f"kill -9 {_PID.format(service)}", seconds=1)


FAULTS = (
    Fault("nothing (to compare with)", "true"),
    killed("litellm"),
    killed("redis"),
    killed("postgres"),
    Fault("redis: down", "docker stop gatehouse-redis-1", "docker start gatehouse-redis-1"),
    Fault(
        "redis: gives no answer",
        "docker pause gatehouse-redis-1",
        "docker unpause gatehouse-redis-1",
    ),
    Fault(
        "redis: another password",
        f"cp -a {SECRET} /run/kept-password && printf %064d 0 >{SECRET} "
        "&& docker restart gatehouse-redis-1",
        f"cat /run/kept-password >{SECRET} && rm /run/kept-password "
        "&& docker restart gatehouse-redis-1",
    ),
    Fault(
        "postgres: down", "docker stop gatehouse-postgres-1", "docker start gatehouse-postgres-1"
    ),
    Fault("postgres: restarted", "docker restart gatehouse-postgres-1", seconds=1),
    Fault(
        "postgres: gives no answer",
        "docker pause gatehouse-postgres-1",
        "docker unpause gatehouse-postgres-1",
    ),
    Fault("postgres: no connection left", _SESSIONS.format(12), seconds=12),
    Fault("postgres: disk full", _SMALL_DISK, _LARGE_DISK, seconds=15),
    Fault(
        "litellm: out of memory",
        "docker update --memory 192m --memory-swap 192m gatehouse-litellm-1",
        "docker update --memory {memory} --memory-swap {memory} gatehouse-litellm-1",
    ),
    Fault("backend: down", UPSTREAM.format("stop"), UPSTREAM.format("start")),
    Fault("backend: slow (5 s)", _MODE.format('{"delay_seconds": 5}'), _MODE.format("{}")),
    Fault("backend: errors", _MODE.format('{"fail": true}'), _MODE.format("{}")),
    Fault("backend: talks nonsense", _liar(9), _HONEST),
    Fault("backend: cuts answers off", _liar(900), _HONEST),
    Fault(
        "litellm: floods its log",
        "docker exec -d gatehouse-litellm-1 timeout 10 sh -c 'yes a line of a log >/proc/1/fd/1'",
    ),
    Fault("docker: restarted", "systemctl restart docker", seconds=1),
)
