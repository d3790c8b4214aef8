"""The hosts of an inventory and their data, read as pyinfra reads them; as a command, in JSON."""

import json
import logging
import sys
from pathlib import Path
from typing import Any

from pyinfra.api import Inventory, State
from pyinfra.context import ctx_state
from pyinfra_cli.inventory import make_inventory


def load(
    inventory: str,
    overrides: dict[str, Any] | None = None,
    cwd: str = ".",
    group_data: list[str] | None = None,
) -> Inventory:
    """Read an inventory as pyinfra does. Raises `ValueError` when nobody is in it."""
    found: Inventory = make_inventory(
        inventory, override_data=overrides or {}, cwd=cwd, group_data_directories=group_data or []
    )
    if not len(found):
        raise ValueError(
            f"the inventory {inventory!r} has no hosts: add one (the file `inventory` shows how), "
            "or check the path"
        )
    return found


def main() -> int:
    """Print name → data of each host; exit code 1 with the reason when that is impossible.

    What pyinfra itself reads (`ssh_…`, `_sudo` …) is printed with `--connection` only.
    """
    logging.disable(logging.WARNING)
    sys.path.insert(0, str(Path.cwd()))
    ctx_state.set(State())
    try:
        found = load(sys.argv[1])
    except Exception as error:  # noqa: BLE001 - the inventory is the operator's own Python
        words = str(error)
        if sys.argv[1] not in words:
            words = f"{sys.argv[1]}: {words}"
        print(words, file=sys.stderr)  # noqa: T201 - this is a command
        return 1
    data = {
        host.name: {
            key: value
            for key, value in host.data.dict().items()
            if "--connection" in sys.argv[2:] or not key.startswith(("ssh_", "_"))
        }
        for host in found
    }
    print(json.dumps(data, default=str))  # noqa: T201 - the same
    return 0


if __name__ == "__main__":
    sys.exit(main())
