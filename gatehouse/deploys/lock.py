"""The lock of a deploy: one at a time, and none that a dead run leaves behind.

A unit of the host holds it (templates/release/watch.sh.j2), so it stays when the connection goes;
and it watches the connection and hears this side's heartbeat, so it does not stay for ever. It is
no operation: a deploy that changes nothing says so.
"""

import getpass
import os
import shlex
import socket
import time
import uuid
from collections.abc import Callable, Mapping
from typing import Any

import click
import gevent
from paramiko import SSHException
from paramiko.packet import Packetizer
from pyinfra import host as this_host
from pyinfra import logger
from pyinfra.api import StringCommand
from pyinfra.api.arguments import CONNECTOR_ARGUMENT_KEYS, pop_global_arguments
from pyinfra.api.exceptions import DeployError
from pyinfra.api.host import Host
from pyinfra.api.state import State
from pyinfra.connectors.local import LocalConnector

from gatehouse.deploys.facts import Run
from gatehouse.render.release import watch
from gatehouse.tool import lock, release_store

UNIT = "gatehouse-deploy"
# Every command of a deploy carries it: so the host knows what a dead one has left running.
VARIABLE = "GATEHOUSE_DEPLOY"
_MARKER = release_store.MARKER
_BALLAST = "/var/lib/gatehouse/ballast"
_BEAT_SECONDS = 3
_SAY_EVERY_SECONDS = 10
_HELD = 75
_FILE = str(lock.FILE)
# A shared lock for a moment; who takes it is patient.
_LOOK = (
    f"[ ! -e {_FILE} ] || flock --nonblock --shared {_FILE} true || "
    f"{{ cat {_FILE}; exit {_HELD}; }}"
)


# paramiko asks for new keys after half a GiB, an archive of images has more, and where a channel (a
# heartbeat's) is closed in that moment, its thread waits for itself (paramiko issue 822). AES needs
# new keys after 64 GiB (RFC 4344, section 3.2).
Packetizer.REKEY_BYTES = 2**35


class Lock:
    """The lock of one host: taken before the first operation, freed after the last."""

    def __init__(self, release: str, silence_seconds: int) -> None:
        """Hold what the deploy is known by; nothing is taken yet."""
        self.token = uuid.uuid4().hex[:12]
        self.taken = False
        self._release = release
        self._silence = silence_seconds
        self._beats: gevent.Greenlet[..., None] | None = None
        self._lost = False

    def take(self, state: State, host: Host) -> str:
        """Take it; give nothing, or why it cannot be had."""
        local = isinstance(host.connector, LocalConnector)
        take = _TAKE.format(
            place=self._place,
            line=shlex.quote(lock.line(f"deploy of {self._release}", operator())),
            script=shlex.quote(watch()),
            anchor=os.getpid() if local else 0,
            unit=UNIT,
            token=self.token,
            release=self._release,
            silence=self._silence,
            file=_FILE,
            held=_HELD,
        )
        done, output = _run(state, host, take)
        if done:
            self.taken = True
            # pyinfra knows what to do about the one, and ends with a traceback at the other.
            host.connector.run_shell_command = _closed(host.connector.run_shell_command)  # type: ignore[method-assign]
            self._beats = gevent.spawn(self._beat, state, host)
            return ""
        text = "\n".join(output)
        return lock.refusal(text) if text.startswith("{") else f"the lock cannot be taken: {text}"

    @property
    def lost(self) -> bool:
        """Whether the host has given the deploy up, as far as is known."""
        return self._lost

    def held(self, state: State, host: Host) -> bool:
        """Ask whether the host still holds the lock for this deploy."""
        self._lost = self._lost or not _run(state, host, f"test -d {self._place}")[0]
        return not self._lost

    def free(self, state: State, host: Host) -> None:
        """Give it back."""
        if self._beats is not None:
            self._beats.kill()
        self.taken = False
        _run(
            state,
            host,
            f"rm -f {_MARKER} {_BALLAST}; sync {_MARKER.parent}; systemctl stop {UNIT}; "
            f": >{_FILE}; rm -rf {self._place}",
        )

    def back(self, state: State, host: Host, reason: str) -> tuple[bool, list[str]]:
        """Have the host go back to the last good release; give whether it serves, and its words."""
        order = _BACK.format(place=self._place, reason=shlex.quote(reason))
        work = gevent.spawn(_run, state, host, order)
        begin = time.monotonic()
        while not work.ready():
            work.join(_SAY_EVERY_SECONDS)
            if not work.ready():
                seconds = time.monotonic() - begin
                logger.info(
                    f"{host.print_prefix}going back to the last good release ({seconds:.0f} s)"
                )
        return work.get()

    @property
    def _place(self) -> str:
        return f"/run/gatehouse/deploy-{self.token}"

    def _beat(self, state: State, host: Host) -> None:
        beat = f'read -r up rest </proc/uptime && echo "${{up%%.*}}" >{self._place}/beat'
        while True:
            gevent.sleep(_BEAT_SECONDS)
            done, _ = _run(state, host, beat)
            if not done:
                self._lost = True
                return


# `anchor` is the process that the operator's connection ends at: sshd's, or pyinfra itself.
_TAKE = """
mkdir -p /run/gatehouse && mkdir -m 700 {place} || exit 1
printf %s {line} >{place}/line
printf %s {script} >{place}/watch.sh
anchor={anchor} process=$$
while [ $anchor = 0 ] && [ "${{process:-0}}" -gt 1 ]; do
    case $(cat /proc/$process/comm) in sshd*) anchor=$process ;; esac
    process=$(sed -n 's/^PPid:[[:space:]]*//p' /proc/$process/status)
done
born=$(sed 's/.*) //' /proc/$anchor/stat 2>/dev/null | cut -d ' ' -f 20)
# The unit gets a file, not the text: systemd puts its own variables into arguments.
systemd-run --quiet --collect --unit={unit} --description='Gatehouse: a deploy is under way' \
    --property=Restart=on-failure --property=RestartPreventExitStatus={held} \
    sh {place}/watch.sh {token} {release} $anchor "$born" {silence} 2>{place}/trouble
started=$?
for _ in $(seq 100); do
    [ $started = 0 ] || break
    [ ! -e {place}/beat ] || exit 0
    systemctl is-active --quiet {unit} || break
    sleep 0.1
done
if [ -s {file} ]; then cat {file}; else cat {place}/trouble; fi
rm -rf {place}
exit {held}
"""


_BACK = """
cd {place} && printf %s {reason} >order.new && mv order.new order || exit 1
until [ -e answer ]; do
    [ -d {place} ] || exit 1
    sleep 0.2
done
cat said
exit "$(cat answer)"
"""


def look() -> None:
    """Raise `DeployError` where somebody else changes the host now; a plan changes nothing."""
    context = click.get_current_context(silent=True)
    if context is not None and context.params.get("dry"):
        return
    seen = this_host.get_fact(Run, command=_LOOK)
    if seen["rc"] == _HELD:
        raise DeployError(lock.refusal(seen["out"]))


def operator() -> str:
    """Give who deploys, and from where."""
    try:
        return f"{getpass.getuser()}@{socket.gethostname()}"
    except (OSError, KeyError):  # a user without a name
        return socket.gethostname()


def _closed(run: Callable[..., Any]) -> Callable[..., Any]:
    """Have a connection that the host has ended told of as one that does not work."""

    def wrapped(*arguments: Any, **options: Any) -> Any:  # noqa: ANN401 - the connector's own
        try:
            return run(*arguments, **options)
        except EOFError:
            raise SSHException("the host has ended the connection") from None

    return wrapped


def _run(state: State, host: Host, command: str) -> tuple[bool, list[str]]:
    """Run a command outside of the operations."""
    everything: Mapping[str, Any] = pop_global_arguments(state, host, {})[0]
    arguments = {key: everything[key] for key in CONNECTOR_ARGUMENT_KEYS if key in everything}
    try:
        done, output = host.run_shell_command(StringCommand(command), **arguments)
    except (OSError, SSHException) as error:
        return False, [str(error)]
    return done, [line.line for line in output]
