"""The audit log of a deploy: when it began to change something, and how it ended.

pyinfra tells a handler of each operation, so the log costs no operation of its own: a run that
changes nothing writes nothing and says so.
"""

import getpass
import shlex
import socket

from pyinfra import host as this_host
from pyinfra import state as this_state
from pyinfra.api.host import Host
from pyinfra.api.state import BaseStateCallback, State

from gatehouse.deploys.facts import Run

_LOG = "/opt/gatehouse/venv/bin/python -I -m gatehouse.audit"


class Auditor(BaseStateCallback):
    """Writes to the host's audit log as soon as there is one."""

    def __init__(self, name: str, release: str) -> None:
        """Hold the host's name and the release that it gets; nothing was written yet."""
        self._name = name
        self._release = release
        self._begun = False

    def operation_host_start(self, state: State, host: Host, op_hash: str) -> None:  # type: ignore[override] # pyinfra's are static
        """Say that something changes, once something has."""
        mine = host.name == self._name
        if mine and not self._begun and _changed(state, host, op_hash):
            self._begun = self._write(host, "begun")

    def operation_host_success(  # type: ignore[override] # the same
        self,
        state: State,
        host: Host,
        op_hash: str,
        retry_count: int = 0,  # noqa: ARG002 - pyinfra's call
    ) -> None:
        """Say that it is done, after the last operation, if anything was changed."""
        if host.name != self._name or host.op_hash_order[-1] != op_hash:
            return
        changed = _changed(state, host, op_hash)
        if changed:
            self._write(host, "ok", changed=str(len(changed)))

    def operation_host_error(  # type: ignore[override] # the same
        self,
        state: State,
        host: Host,
        op_hash: str,
        retry_count: int = 0,  # noqa: ARG002 - the same
        max_retries: int = 0,  # noqa: ARG002 - the same
    ) -> None:
        """Say which operation failed."""
        if host.name == self._name:
            self._write(host, "failed", step=", ".join(state.get_op_meta(op_hash).names))

    def _write(self, host: Host, outcome: str, **details: str) -> bool:
        given = {"release": self._release, "from": _operator(), **details}
        words = ["deploy", outcome, *(f"{key}={value}" for key, value in given.items())]
        # Before the command is installed there is no log: the next operation tries again.
        return bool(host.get_fact(Run, command=f"{_LOG} {shlex.join(words)}")["rc"] == 0)


def audited(release: str) -> None:
    """Have this host's deploy in its audit log; called once, before the operations."""
    this_state.add_callback_handler(Auditor(this_host.name, release))


def _changed(state: State, host: Host, until: str) -> list[str]:
    """Give the operations before this one that have changed something."""
    found = []
    for op_hash in host.op_hash_order:
        if op_hash == until:
            break
        meta = state.get_op_data_for_host(host, op_hash).operation_meta
        if meta.is_complete() and meta.did_change():
            found.append(op_hash)
    return found


def _operator() -> str:
    try:
        return f"{getpass.getuser()}@{socket.gethostname()}"
    except (OSError, KeyError):  # a user without a name
        return socket.gethostname()
