"""The gatehouse command on the host, in a virtual environment of its own.

A virtual environment cannot be moved, so each is made where it stays: `venvs/<id>`, complete once
it holds a marker. The link `venv` then goes over to it in one step; the one before is kept.
"""

from pyinfra import host, logger
from pyinfra.api import FunctionCommand, StringCommand, operation
from pyinfra.api.deploy import deploy as pyinfra_deploy
from pyinfra.api.exceptions import DeployError
from pyinfra.api.host import Host
from pyinfra.api.state import State

from gatehouse import wheels
from gatehouse.deploys import Commands, progress
from gatehouse.deploys.facts import Run
from gatehouse.deploys.gateway import Gateway
from gatehouse.deploys.packages import install
from gatehouse.deploys.release import HOME

VENVS = f"{HOME}/venvs"
LINK = f"{HOME}/venv"
COMMAND = "/usr/local/bin/gatehouse"
KEPT = 2
_MARKER = "complete"
# One link for each release that can be gone back to.
_NEEDED = "/var/lib/gatehouse/releases/*.venv"
_LOCK = f"{VENVS}/.lock"
_WAIT_SECONDS = 300
# Sets $python to the newest that can make virtual environments, or to nothing.
_FIND_PYTHON = """python=
for each in python3.14 python3.13 python3.12 python3.11 python3; do
    "$each" -c 'import ensurepip, sys, venv; sys.exit(sys.version_info < (3, 11))' 2>/dev/null &&
        python=$each && break
done"""
_WHICH_PYTHON = f"""{_FIND_PYTHON}
"$python" -c 'import platform, sys; print("%d.%d" % sys.version_info[:2], platform.machine())'"""
# Ubuntu 22.04's own python3 is too old.
_PACKAGES = {"ubuntu 22.04": ["python3.11", "python3.11-venv"]}


@pyinfra_deploy("The gatehouse command")
def deploy(gateway: Gateway) -> None:
    """Install the command, and have it found by its name."""
    wanted = wheels.identity()
    if host.get_fact(Run, command=complete(wanted))["rc"]:
        try:
            # Now: the sources may change until it is installed.
            wheels.build(wanted)
        except wheels.Unavailable as unavailable:
            raise DeployError(str(unavailable)) from None
    packages = _PACKAGES.get(gateway.found.system, ["python3", "python3-venv"])
    python(name="Have Python", packages=packages)
    installed(name="Install the command", wanted=wanted)
    switched(name="Have it in use", wanted=wanted)


def complete(wanted: str) -> str:
    """Give the check that this virtual environment is whole and that its Python still runs."""
    path = f"{VENVS}/{wanted}"
    # The distribution's next release takes its Python away from under it.
    works = "import gatehouse.tool, pydantic_core"
    return f"test -f {path}/{_MARKER} && {path}/bin/python -I -c '{works}'"


@operation()
def python(packages: list[str]) -> Commands:
    """Ensure a Python that can make virtual environments."""
    found = host.get_fact(Run, command=f'{_FIND_PYTHON}\necho "$python"')["out"]
    if found:
        host.noop(f"{found} is there")
    else:
        yield install(packages)


@operation()
def installed(wanted: str) -> Commands:
    """Ensure the virtual environment, whole; what a killed run left of it is made anew."""
    if host.get_fact(Run, command=complete(wanted))["rc"] == 0:
        host.noop(f"{VENVS}/{wanted} is there")
        return
    yield StringCommand(f"install -d -m 755 {VENVS}")
    yield FunctionCommand(_packed, [wanted], {})
    yield progress.upload(
        "uploading the gatehouse command",
        str(wheels.archive(wanted, host.name)),
        f"{VENVS}/{wanted}.new.tar",
    )
    yield progress.run("installing the gatehouse command", script(wanted))


def script(wanted: str) -> str:
    """Give the command that makes the virtual environment from the archive that was uploaded."""
    path, new = f"{VENVS}/{wanted}", f"{VENVS}/{wanted}.new"
    pip = f"{path}/bin/python -I -m pip --isolated --disable-pip-version-check install --quiet"
    # A deploy that was killed leaves its installation running on the host: one at a time, and what
    # that one has finished is not made again.
    return f"""set -e; umask 022
exec 9>{_LOCK}; flock -w {_WAIT_SECONDS} 9
if {complete(wanted)}; then rm -rf {new} {new}.tar; exit 0; fi
{_FIND_PYTHON}
rm -rf {path} {new}
mkdir {new}
tar -x -f {new}.tar -C {new} --no-same-owner
"$python" -I -m venv {path}
{pip} --no-index --find-links {new} --require-hashes --only-binary :all: -r {new}/{wheels.LOCK.name}
{pip} --no-index --no-deps {new}/gatehouse-*.whl
sync -f {path}
touch {path}/{_MARKER}
rm -rf {new} {new}.tar"""


def _packed(state: State, host: Host, wanted: str) -> bool:  # noqa: ARG001 - pyinfra's call
    """Have the archive for this host's Python and processor, under this host's name."""
    found = host.get_fact(Run, command=_WHICH_PYTHON)["out"].split()
    if len(found) != 2:  # noqa: PLR2004 - the version and the processor
        logger.error(f"{host.print_prefix}this host's Python does not say what it is: {found}")
        return False
    try:
        path = wheels.bundle(wanted, wheels.Target(*found))
    except wheels.Unavailable as unavailable:
        # An exception would reach the operator as a traceback.
        logger.error(f"{host.print_prefix}{unavailable}")
        return False
    mine = wheels.archive(wanted, host.name)
    mine.unlink(missing_ok=True)
    mine.hardlink_to(path)
    size = path.stat().st_size / 1e6
    logger.info(f"{host.print_prefix}the gatehouse command {wanted} is {size:.1f} MB to upload")
    return True


@operation()
def switched(wanted: str) -> Commands:
    """Ensure that the command is this one, and prune older ones but the last."""
    path = f"{VENVS}/{wanted}"
    check = (
        f'echo "$(readlink {LINK}) $(readlink {COMMAND})"; [ ! -e {COMMAND} ] || [ -L {COMMAND} ]'
    )
    found = host.get_fact(Run, command=check)
    if found == {"rc": 0, "out": f"{path} {LINK}/bin/gatehouse"}:
        host.noop(f"{COMMAND} is of {path}")
        return
    yield StringCommand(
        f"[ ! -e {COMMAND} ] || [ -L {COMMAND} ] || {{ echo '{COMMAND} is a file that Gatehouse "
        "did not make: move it away' >&2; exit 1; }"
    )
    yield StringCommand(
        # What is in use until now is the one to keep, however old it is.
        f'old=$(readlink {LINK}); [ ! -d "$old" ] || touch "$old"; '
        f"touch {path} && ln -sfn {path} {LINK}.new && mv -T {LINK}.new {LINK} && "
        f"ln -sfn {LINK}/bin/gatehouse {COMMAND}.new && mv -T {COMMAND}.new {COMMAND}"
    )
    yield StringCommand(
        f"cd {VENVS} && rm -rf -- *.new *.tar && "
        f"ls -1td -- */ | tail -n +{KEPT + 1} | while read -r old; do "
        # A release that can be gone back to was made by it.
        f'readlink {_NEEDED} | grep -qxF "{VENVS}/${{old%/}}" || rm -rf -- "$old"; done'
    )
