"""What goes on around the operations of a deploy: the lock, and the audit log.

pyinfra tells a handler of each operation, before and after it; none of this is an operation.
"""

from pyinfra import host as this_host
from pyinfra import logger
from pyinfra import state as this_state
from pyinfra.api import FunctionCommand
from pyinfra.api.host import Host
from pyinfra.api.state import BaseStateCallback, State

from gatehouse.deploys.audit import Auditor
from gatehouse.deploys.lock import VARIABLE, Lock


class Guard(BaseStateCallback):
    """Has the lock while one host's operations run, and writes down how they went."""

    def __init__(self, name: str, lock: Lock, auditor: Auditor) -> None:
        """Hold the host's name and what is to be done around its operations."""
        self._name = name
        self._lock = lock
        self._auditor = auditor

    def operation_host_start(self, state: State, host: Host, op_hash: str) -> None:  # type: ignore[override] # pyinfra's are static
        """Take the lock before the first operation; stop where it is not ours."""
        if not self._mine(state, host, op_hash):
            return
        if not self._lock.taken:
            trouble = self._lock.take(state, host)
        else:
            trouble = GIVEN_UP if self._lock.lost else ""
        if trouble:
            # An exception would end the deploys of all other hosts too.
            refuse = FunctionCommand(_refuse, [trouble], {})
            state.get_op_data_for_host(host, op_hash).command_generator = lambda: iter([refuse])
        else:
            self._auditor.begun(state, host, op_hash)

    def operation_host_success(  # type: ignore[override] # the same
        self,
        state: State,
        host: Host,
        op_hash: str,
        retry_count: int = 0,  # noqa: ARG002 - pyinfra's call
    ) -> None:
        """Write the end down and free the lock, after the last operation."""
        if self._mine(state, host, op_hash) and host.op_hash_order[-1] == op_hash:
            self._auditor.ok(state, host, op_hash)
            self._lock.free(state, host)

    def operation_host_error(  # type: ignore[override] # the same
        self,
        state: State,
        host: Host,
        op_hash: str,
        retry_count: int = 0,  # noqa: ARG002 - the same
        max_retries: int = 0,  # noqa: ARG002 - the same
    ) -> None:
        """Have the release before serve again, write down which operation failed, free the lock."""
        if not self._mine(state, host, op_hash) or not self._lock.taken:
            return
        if not self._lock.held(state, host):
            # The host has written it down, gone back and freed the lock by itself.
            logger.error(f"{host.print_prefix}{GIVEN_UP}")
            return
        step = ", ".join(state.get_op_meta(op_hash).names)
        self._auditor.failed(host, step)
        _, said = self._lock.back(state, host, f"{step} failed")
        for line in said:
            logger.error(f"{host.print_prefix}{line}")
        self._lock.free(state, host)

    def _mine(self, state: State, host: Host, op_hash: str) -> bool:
        return host.name == self._name and op_hash in state.ops[host]


GIVEN_UP = (
    "the host has given this deploy up: it heard nothing of this machine for a while. What was "
    "changed is taken back there (gatehouse log); deploy again"
)


def guarded(release: str, silence_seconds: int, action: str) -> None:
    """Have the lock and the audit log around this host's operations; called before them."""
    lock = Lock(release, silence_seconds)
    this_host.data._env = {VARIABLE: lock.token}  # noqa: SLF001 - pyinfra's name for it
    this_state.add_callback_handler(Guard(this_host.name, lock, Auditor(release, action)))


def _refuse(state: State, host: Host, message: str) -> bool:  # noqa: ARG001 - pyinfra's call
    logger.error(f"{host.print_prefix}{message}")
    return False
