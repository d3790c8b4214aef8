"""The faults: how each is made and undone, as root's shell on the workstation."""

import shlex
from dataclasses import dataclass

from gatehouse.faults import disks

ADDRESS = "172.30.40.1"
PORT, SPARE_PORT = 9200, 9201
# The one has nobody to stand in for it; the other is the same server, and has.
MODEL, BACKED, SPARE = "chat-faults-upstream", "chat-faults-backed", "chat-faults-spare"
# LiteLLM writes its rows every 30 seconds at the latest: a shorter lack of room it may not notice.
WRITTEN_SECONDS = 40
UPSTREAM = f"systemctl {{}} upstream-{PORT}"
BOTH = f"systemctl {{}} upstream-{PORT} upstream-{SPARE_PORT}"
_MODE = f"curl -sf -X POST http://{ADDRESS}:{PORT}/_mode -d '{{}}' >/dev/null"
# The container's first process is Docker's own little init; the server is its child.
_PID = "$(docker inspect -f '{{{{.State.Pid}}}}' gatehouse-{}-1)"
_CHILD = f"$(pgrep -P {_PID})"
SECRET = "/etc/gatehouse/secrets/redis_password"  # noqa: S105 - a path
# Holds what connections Postgres gives, each before its password, and ends LiteLLM's own meanwhile.
GREEDY = """
import select, socket, struct, subprocess, sys, time
words = b"".join(w + b"\\0" for w in (b"user", b"litellm", b"database", b"litellm")) + b"\\0"
hello = struct.pack("!ii", len(words) + 8, 196608) + words
held, end, ended = [], time.monotonic() + float(sys.argv[1]), False
while time.monotonic() < end:
    one = socket.create_connection(("127.0.0.1", int(sys.argv[2])), 2)
    one.settimeout(2)
    one.sendall(hello)
    try:
        taken = one.recv(1) == b"R"
    except OSError:
        taken = False
    if taken:
        held.append(one)
        continue
    one.close()
    if not ended and len(held) > 3:
        for _ in range(3):
            held.pop().close()
        subprocess.run(sys.argv[3], shell=True)
        ended = True
    time.sleep(0.02)
"""
_END_SESSIONS = (
    "docker exec gatehouse-postgres-1 sh -c 'PGPASSWORD=$(cat /run/secrets/postgres_password) "
    'psql -h 127.0.0.1 -U litellm -d litellm -AtXqc "select count(pg_terminate_backend(pid)) '
    "from pg_stat_activity where pid <> pg_backend_pid() and datname is not null\"'"
)
# Stops the server again and again, and lets it go on for a moment.
_SLOW = "while :; do kill -STOP $1; sleep 0.3; kill -CONT $1; sleep 0.05; done"
# LiteLLM's processes are to go first; then somebody else in its container takes what is left.
EATER = (
    "import time; kept = []\n"
    "for _ in range(16): kept.append(b'x' * (16 << 20)); time.sleep(0.1)\n"
    "time.sleep(60)"
)
_HUNGRY = f"""
used=$(docker exec gatehouse-litellm-1 sh -c 'cat /sys/fs/cgroup/memory.current 2>/dev/null ||
    cat /sys/fs/cgroup/memory/memory.usage_in_bytes')
limit=$((used + (64 << 20)))
for process in $(docker top gatehouse-litellm-1 -eo pid | tail -n +2); do
    echo 1000 >/proc/$process/oom_score_adj
done
docker update --memory $limit --memory-swap $limit gatehouse-litellm-1
docker exec -d gatehouse-litellm-1 timeout 10 python3 -c {shlex.quote(EATER)}"""
# A server that does not speak as it should: nonsense, or an answer that ends too soon.
LIAR = """
import json, socketserver, sys
NONSENSE = b"{nonsense"
def piece(text):
    choice = {"index": 0, "delta": {"role": "assistant", "content": text}, "finish_reason": None}
    event = {"id": "chatcmpl-cut", "object": "chat.completion.chunk", "created": 1, "model": "m",
             "choices": [choice]}
    data = b"data: " + json.dumps(event).encode() + b"\\n\\n"
    return b"%x\\r\\n%s\\r\\n" % (len(data), data)
class Liar(socketserver.StreamRequestHandler):
    def handle(self):
        length = 0
        while (line := self.rfile.readline().strip()):
            if line.lower().startswith(b"content-length:"):
                length = int(line.split(b":")[1])
        stream = b'"stream":true' in self.rfile.read(length).replace(b" ", b"")
        if sys.argv[1] == "nonsense":
            self.wfile.write(b"HTTP/1.1 200 OK\\r\\nContent-Type: application/json\\r\\n"
                b"Content-Length: %d\\r\\nConnection: close\\r\\n\\r\\n" % len(NONSENSE) + NONSENSE)
        elif stream:
            self.wfile.write(b"HTTP/1.1 200 OK\\r\\nContent-Type: text/event-stream\\r\\n"
                b"Transfer-Encoding: chunked\\r\\n\\r\\n" + piece("I am") + piece(" about to"))
        else:
            self.wfile.write(b"HTTP/1.1 200 OK\\r\\nContent-Type: application/json\\r\\n"
                b'Content-Length: 900\\r\\n\\r\\n{"id": "chatcmpl-cut", "choices": [')
class Liars(socketserver.ThreadingTCPServer):
    allow_reuse_address = daemon_threads = True
Liars((sys.argv[2], int(sys.argv[3])), Liar).serve_forever()
"""
_HONEST = f"systemctl stop liar; {UPSTREAM.format('start')}"


def _liar(what: str) -> str:
    words = shlex.join(["python3", "-I", "-c", LIAR, what, ADDRESS, str(PORT)])
    return f"{UPSTREAM.format('stop')}; systemd-run --quiet --collect --unit liar {words}"


def _greedy(seconds: int) -> str:
    port = "$(docker port gatehouse-postgres-1 5432/tcp | sed 's/.*://;q')"
    words = shlex.join(["python3", "-I", "-c", GREEDY, str(seconds)])
    unit = "systemd-run --quiet --collect --unit greedy"
    return f"{unit} {words} {port} {shlex.quote(_END_SESSIONS)}"


@dataclass(frozen=True)
class Fault:
    """One fault: its name, how it is made, for how long it lasts, and how it is undone.

    `before` and `after`: what it needs around it, while nobody asks anything. `model`: what is
    asked. `loses`: LiteLLM is known to lose rows then, and nobody can read that it did. `vm`: it
    needs a machine with a kernel of its own.
    """

    name: str
    make: str
    undo: str = "true"
    seconds: float = 8
    before: str = ""
    after: str = ""
    model: str = MODEL
    loses: bool = False
    vm: bool = False


def killed(service: str, *, loses: bool = False) -> Fault:
    """Give the death of a container's first process, as the kernel would bring it about."""
    kill = f"kill -9 {_PID.format(service)}"
    return Fault(f"{service}: kill -9", kill, seconds=1, loses=loses)


def jumped(where: str, by: str) -> Fault:
    """Give a clock that is set wrong, and set right again by the time that has really passed."""
    real = "$(($(cat /run/clock) + $(cut -d. -f1 /proc/uptime)))"
    # The time at which the machine was switched on, by the right clock.
    note = "echo $(($(date +%s) - $(cut -d. -f1 /proc/uptime))) >/run/clock"
    return Fault(
        f"clock: {where}",
        f"{note} && date -s '{by}'",
        f"[ ! -e /run/clock ] || {{ date -s @{real} && rm /run/clock; }}",
        seconds=20,
        vm=True,
    )


FAULTS = (
    Fault("nothing (to compare with)", "true"),
    killed("litellm", loses=True),
    killed("redis"),
    killed("postgres"),
    Fault("redis: down", "docker stop gatehouse-redis-1", "docker start gatehouse-redis-1"),
    Fault(
        "redis: slow",
        f"systemd-run --quiet --collect --unit slow sh -c '{_SLOW}' slow {_CHILD.format('redis')}",
        f"systemctl stop slow; kill -CONT {_CHILD.format('redis')}",
    ),
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
    Fault("postgres: no connection left", _greedy(12), "systemctl stop greedy", seconds=12),
    Fault(
        "postgres: disk full",
        disks.FILL,
        disks.EMPTY,
        seconds=WRITTEN_SECONDS,
        before=disks.small_volume("postgres"),
        after=disks.large_volume("postgres"),
    ),
    Fault(
        "litellm: out of memory",
        _HUNGRY,
        "docker update --memory {memory} --memory-swap {memory} gatehouse-litellm-1",
        loses=True,
    ),
    Fault(
        "litellm: floods its log",
        "docker exec -d gatehouse-litellm-1 timeout 10 sh -c 'yes a line of a log >/proc/1/fd/1'",
    ),
    Fault("backend: down", UPSTREAM.format("stop"), UPSTREAM.format("start")),
    Fault(
        "backend: down, another one up",
        UPSTREAM.format("stop"),
        UPSTREAM.format("start"),
        model=BACKED,
    ),
    # Longer than LiteLLM tries again: of a short one a client sees nothing but a late answer.
    Fault(
        "all backends: down", BOTH.format("stop"), BOTH.format("start"), seconds=40, model=BACKED
    ),
    Fault("backend: slow (5 s)", _MODE.format('{"delay_seconds": 5}'), _MODE.format("{}")),
    Fault("backend: errors", _MODE.format('{"fail": true}'), _MODE.format("{}")),
    Fault("backend: talks nonsense", _liar("nonsense"), _HONEST),
    Fault("backend: cuts answers off", _liar("cut"), _HONEST),
    Fault("docker: restarted", "systemctl restart docker", seconds=1),
    Fault(
        "/var: full",
        disks.FILL,
        disks.EMPTY,
        seconds=WRITTEN_SECONDS,
        before=disks.SMALL_VAR,
        after=disks.LARGE_VAR,
        loses=True,
    ),
    jumped("an hour ahead", "+1 hour"),
    jumped("an hour back", "-1 hour"),
)
