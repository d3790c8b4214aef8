"""The graphics cards: NVIDIA's container toolkit, what tells Docker of the cards, and the watchdog.

`nvidia-ctk runtime configure` is never called: it would write daemon.json behind the back of the
merge that knows whose key is whose (gatehouse/render/docker.py has the keys instead).
"""

from pyinfra import host
from pyinfra.api import StringCommand, operation
from pyinfra.api.deploy import deploy as pyinfra_deploy
from pyinfra.operations import files

from gatehouse.checks.gpu import SPECIFICATION
from gatehouse.deploys import Commands
from gatehouse.deploys.card import Gpus, numbers
from gatehouse.deploys.facts import Run
from gatehouse.deploys.files import put
from gatehouse.deploys.gateway import Gateway
from gatehouse.deploys.packages import install
from gatehouse.deploys.sources import Source, known
from gatehouse.deploys.unit import started
from gatehouse.render import gpu as render
from gatehouse.settings import Settings

# Since 1.18 the toolkit keeps the CDI specification up to date by itself.
FLOOR = "1.18"
_PACKAGE = "nvidia-container-toolkit"
# The toolkit's own unit that writes the specification, or ours where its package has none.
_REFRESH = """
refresh=nvidia-cdi-refresh
[ -e /usr/lib/systemd/system/$refresh.service ] || refresh=gatehouse-cdi
"""


@pyinfra_deploy("GPU")
def deploy(gateway: Gateway) -> None:
    """Have containers get the cards they ask for; nothing on a host whose cards are not used."""
    units = render.files(gateway.settings, gateway.machine.card(gateway.settings))
    if not units:
        return
    if to_install(gateway.found.gpus):
        _install(gateway.settings)
    drop_in = next(path for path in units if ".service.d/" in path).rpartition("/")[0]
    files.directory(name="Make room for a drop-in", path=drop_in, mode="755")
    put(name="Write the units", files=units)
    specified(name="Tell Docker which cards there are")
    persistent(name="Keep the driver loaded")
    watch = f"{render.UNITS}/{render.WATCH}"
    started(
        name="Watch that engines keep their cards",
        unit=f"{render.WATCH}.timer",
        newer_than=[f"{watch}.timer", f"{watch}.service"],
    )


def to_install(found: Gpus) -> bool:
    """Say whether the host's toolkit is missing or too old."""
    return numbers(found.toolkit) < numbers(FLOOR)


def source(settings: Settings) -> Source:
    """Give NVIDIA's repository of the toolkit."""
    url = settings.gpu_toolkit_repository_url
    return Source(
        name="nvidia-container-toolkit",
        uri=f"{url}/stable/deb/$(ARCH)",
        # It has no suites and no components.
        suite="/",
        component="",
        key_url=f"{url}/gpgkey",
        fingerprint=settings.gpu_toolkit_repository_fingerprint,
        mend="is the repository reachable (gpu_toolkit_repository_url), should "
        'gpu_toolkit_source be "distribution", or gpu_mode "none"?',
    )


def _install(settings: Settings) -> None:
    if settings.gpu_toolkit_source == "nvidia":
        known(name="Add NVIDIA's package repository", source=source(settings))
    toolkit(name="Install the container toolkit")


@operation()
def toolkit() -> Commands:
    """Install the toolkit, and refuse one that is too old."""
    yield install([_PACKAGE])
    # Comes out of what apt was able to find, so it is known only now.
    yield StringCommand(
        "version=$(nvidia-ctk --version | grep -oE '[0-9]+([.][0-9]+)+' | head -n 1); "
        f'dpkg --compare-versions "$version" ge {FLOOR} || '
        f'{{ echo "the container toolkit is $version, {FLOOR} is needed: set gpu_toolkit_source = '
        "'nvidia', or update the package source that it comes from\" >&2; exit 1; }"
    )


@operation()
def specified() -> Commands:
    """Ensure a CDI specification for the driver that runs, and that it is kept up to date."""
    wrong = host.get_fact(
        Run,
        command=f"""{_REFRESH}
systemctl is-enabled --quiet $refresh.service || echo disabled
systemctl is-enabled --quiet $refresh.path || echo disabled
systemctl is-active --quiet $refresh.path || echo stopped
{SPECIFICATION}
true""",
    )["out"]
    if not wrong:
        host.noop("the CDI specification is right")
        return
    yield StringCommand(
        f"{_REFRESH}\nsystemctl daemon-reload && "
        "systemctl enable $refresh.service $refresh.path && "
        "systemctl restart $refresh.path $refresh.service"
    )


@operation()
def persistent() -> Commands:
    """Ensure that the driver keeps the cards initialised, where its package brings the daemon."""
    wrong = host.get_fact(
        Run,
        command="""
systemctl cat nvidia-persistenced.service >/dev/null 2>&1 || exit 0
systemctl is-enabled --quiet nvidia-persistenced.service || echo disabled
systemctl is-active --quiet nvidia-persistenced.service || echo stopped
timeout 30 nvidia-smi --query-gpu=persistence_mode --format=csv,noheader | grep -i disabled
true""",
    )["out"]
    if not wrong:
        host.noop("the driver stays loaded")
        return
    yield StringCommand(
        "systemctl daemon-reload && systemctl enable nvidia-persistenced.service && "
        "systemctl restart nvidia-persistenced.service"
    )
