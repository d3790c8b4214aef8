"""The audit log of a deploy: when it began to change something, and how it ended.

It costs no operation of its own: a run that changes nothing writes nothing and says so.
"""

import shlex

from pyinfra.api.host import Host
from pyinfra.api.state import State

from gatehouse.deploys.facts import Run
from gatehouse.deploys.lock import operator

_LOG = "/opt/gatehouse/venv/bin/python -I -m gatehouse.audit"


class Auditor:
    """Writes to the host's audit log as soon as there is one."""

    def __init__(self, release: str, action: str = "deploy") -> None:
        """Hold the release that the host gets; nothing was written yet."""
        self._release = release
        self._action = action
        self._begun = False

    def begun(self, state: State, host: Host, op_hash: str) -> None:
        """Say that something changes, once something has."""
        if not self._begun and _changed(state, host, op_hash):
            self._begun = self._write(host, "begun")

    def ok(self, state: State, host: Host, op_hash: str) -> None:
        """Say that it is done, if anything was changed."""
        changed = _changed(state, host, op_hash)
        if changed:
            self._write(host, "ok", changed=str(len(changed)))

    def failed(self, host: Host, step: str) -> None:
        """Say which operation failed."""
        self._write(host, "failed", step=step)

    def _write(self, host: Host, outcome: str, **details: str) -> bool:
        given = {"release": self._release, "from": operator(), **details}
        words = [self._action, outcome, *(f"{key}={value}" for key, value in given.items())]
        # Before the command is installed there is no log: the next operation tries again.
        return bool(host.get_fact(Run, command=f"{_LOG} {shlex.join(words)}")["rc"] == 0)


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
