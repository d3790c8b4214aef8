"""Long steps that say for how long they have been going on."""

import time
from collections.abc import Callable, Mapping
from typing import Any

import gevent
from pyinfra import logger
from pyinfra.api import FunctionCommand, StringCommand
from pyinfra.api.arguments import CONNECTOR_ARGUMENT_KEYS, pop_global_arguments
from pyinfra.api.host import Host
from pyinfra.api.state import State
from pyinfra.api.util import get_file_io

_SAY_EVERY_SECONDS = 10


def run(what: str, command: str) -> FunctionCommand:
    """Give a command that runs `command` on the host and reports on it as `what`.

    What it printed is shown when it fails.
    """

    def start(host: Host, arguments: dict[str, Any]) -> tuple[bool, list[str]]:
        status, output = host.run_shell_command(StringCommand(command), **arguments)
        return status, [line.line for line in output]

    return FunctionCommand(_watch, [what, start], {})


def upload(what: str, source: str, target: str) -> FunctionCommand:
    """Give a command that uploads the file `source` to the path `target` and reports on it."""

    def start(host: Host, arguments: dict[str, Any]) -> tuple[bool, list[str]]:
        with get_file_io(source) as file:
            return host.put_file(file, target, **arguments), []

    return FunctionCommand(_watch, [what, start], {})


def _watch(
    state: State,
    host: Host,
    what: str,
    start: Callable[[Host, dict[str, Any]], tuple[bool, list[str]]],
) -> bool:
    everything: Mapping[str, Any] = pop_global_arguments(state, host, {})[0]
    arguments = {key: everything[key] for key in CONNECTOR_ARGUMENT_KEYS if key in everything}
    begin = time.monotonic()
    work = gevent.spawn(start, host, arguments)
    while not work.ready():
        work.join(_SAY_EVERY_SECONDS)
        if not work.ready():
            seconds = time.monotonic() - begin
            logger.info(f"{host.print_prefix}{what} ({seconds:.0f} s)")
    status, lines = work.get()
    if not status:
        logger.error(f"{host.print_prefix}{what}: failed after {time.monotonic() - begin:.0f} s")
        for line in lines[-25:]:
            logger.error(f"{host.print_prefix}  | {line}")
    return bool(status)
