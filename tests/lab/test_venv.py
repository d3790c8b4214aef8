"""The gatehouse command on the host: there after a deploy, whole, and kept as it is."""

from collections.abc import Callable

import pytest

from gatehouse import wheels
from gatehouse.deploys.venv import COMMAND, LINK, VENVS
from gatehouse.lab.workstation import Workstation
from tests.deploying import deploy
from tests.lab.conftest import failing
from tests.lab.releases import kill_deploy

INSTALL = "The gatehouse command | Install the command"
SWITCH = "The gatehouse command | Have it in use"


def installed(workstation: Workstation) -> str:
    """Give the virtual environment that is in use."""
    return workstation.exec(f"readlink {LINK}").stdout.strip()


def test_command_works_for_root_and_for_people(workstation: Workstation) -> None:
    """Root and a user without rights call it by its name; nobody but root may change it."""
    for user in ("root", "operator"):
        assert "gatehouse models list" in workstation.ssh("gatehouse --help", user=user).stdout
    wrong = workstation.ssh("gatehouse nothing", user="operator", check=False)
    assert wrong.returncode == 2
    writable = f"find {VENVS} {LINK} {COMMAND} ! -type l ( ! -user root -o -perm /022 )"
    assert workstation.exec(writable.split()).stdout == ""


def test_second_deploy_leaves_what_this_checkout_holds(workstation: Workstation) -> None:
    """The environment is that of these sources and holds what the lock names; none is uploaded."""
    again = deploy(workstation)
    assert not [name for name in again.changed if "gatehouse command" in name]
    assert "to upload" not in again.words
    assert installed(workstation) == f"{VENVS}/{wheels.identity()}"
    freeze = f"{LINK}/bin/python -I -m pip list --format=freeze --disable-pip-version-check"
    found = set(workstation.exec(freeze).stdout.lower().replace("_", "-").split())
    lock = [line.split()[0] for line in wheels.LOCK.read_text().splitlines() if "==" in line]
    assert set(lock) <= found


@pytest.mark.parametrize(
    "damage",
    [
        "rm {venv}/complete",
        "rm {venv}/bin/python*",
        "rm -r {venv}/lib/python3*/site-packages/gatehouse",
    ],
)
def test_damaged_environment_is_made_anew(workstation: Workstation, damage: str) -> None:
    """What a killed installation, an upgraded Python or a person broke works after a deploy."""
    venv = installed(workstation)
    workstation.exec(damage.format(venv=venv))
    healed = deploy(workstation)
    assert INSTALL in healed.changed
    assert installed(workstation) == venv
    workstation.exec("gatehouse --help")
    assert deploy(workstation).changed == []


def in_the_middle(workstation: Workstation) -> Callable[[str], bool]:
    """Tell when pip is at work."""
    at_work = f"ls {VENVS}/*.new/*.whl && ls {VENVS}/*/bin/pip"
    return lambda _: workstation.exec(at_work, check=False).returncode == 0


def test_killed_installation_is_healed(workstation: Workstation) -> None:
    """A deploy that is killed while pip works is finished by the next, and leaves nothing behind.

    The host stops what the dead one has left running: the two do not get in each other's way.
    """
    workstation.exec(f"rm -r {installed(workstation)}")
    kill_deploy(workstation, in_the_middle(workstation))
    deploy(workstation)
    assert workstation.exec("gatehouse --version").stdout.startswith("gatehouse")
    leftovers = workstation.exec(f"find {VENVS} -maxdepth 1 -name '*.new' -o -name '*.tar'")
    assert leftovers.stdout == ""
    assert failing(workstation) == []
    assert deploy(workstation).changed == []


def test_older_environments_go_but_one(workstation: Workstation) -> None:
    """The one before is kept; what is older goes when another is switched to."""
    now = installed(workstation)
    for number, name in enumerate(("aaaaaaaaaaaa", "bbbbbbbbbbbb"), start=1):
        workstation.exec(f"mkdir {VENVS}/{name} && touch -d '-{number} hour' {VENVS}/{name}")
    workstation.exec(f"ln -sfn {VENVS}/aaaaaaaaaaaa {LINK}")
    switched = deploy(workstation)
    assert SWITCH in switched.changed
    kept = workstation.exec(f"ls {VENVS}").stdout.split()
    assert set(kept) == {now.rsplit("/", 1)[-1], "aaaaaaaaaaaa"}
    workstation.exec(f"rm -r {VENVS}/aaaaaaaaaaaa")


def test_file_of_somebody_else_is_not_replaced(workstation: Workstation) -> None:
    """A person's own /usr/local/bin/gatehouse ends the deploy with a word about it."""
    workstation.exec(f"rm {COMMAND} && echo mine >{COMMAND}")
    try:
        refused = deploy(workstation, expect=1)
        assert "move it away" in refused.words
        assert workstation.exec(f"cat {COMMAND}").stdout == "mine\n"
    finally:
        workstation.exec(f"rm -f {COMMAND}")
        deploy(workstation)
