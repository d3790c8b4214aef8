"""`python -m gatehouse.lab`: start, enter, list and remove throwaway workstations."""

import argparse
import os
import subprocess
import sys

import docker
from docker.errors import APIError, DockerException

from gatehouse.lab import images
from gatehouse.lab.common import BUILD, LABEL, PREFIX, ROOT, LabError
from gatehouse.lab.demo import demo, demo_down
from gatehouse.lab.engine import engine
from gatehouse.lab.machine import check_name
from gatehouse.lab.progress import Progress
from gatehouse.lab.vm import Vm
from gatehouse.lab.workstation import Workstation, remove

DEFAULT_NAME = "lab"


def main(arguments: list[str] | None = None) -> int:
    """Run one command; gives 0, or 2 when it could not be done."""
    options = _parser().parse_args(arguments)
    progress = Progress()
    try:
        return int(options.command(options, progress))
    except LabError as error:
        progress.say(f"error: {error}")
    except DockerException as error:
        progress.say(f"error: the Docker engine says: {error}")
    except KeyboardInterrupt:
        progress.say("stopped; `python -m gatehouse.lab down --all` removes what is left")
    return 2


def up(options: argparse.Namespace, progress: Progress) -> int:
    """Start a workstation."""
    check_name(options.name)
    client = engine(progress)
    images.ensure_hosts(client, progress)
    workstation = Workstation.start(
        options.name,
        image=images.BARE if options.bare else images.HOST,
        preload=None if options.bare or options.empty else images.ensure(client, progress),
        user=options.user,
        progress=progress,
    )
    way_in = workstation.access
    print(f"address    {workstation.address}")
    print(f"ssh        ssh -F {way_in.ssh_config.relative_to(ROOT)} {way_in.name}")
    print(f"pyinfra    pyinfra {way_in.inventory.relative_to(ROOT)} deploy.py")
    print(
        f"testinfra  --hosts=ssh://{way_in.name} --ssh-config={way_in.ssh_config.relative_to(ROOT)}"
    )
    return 0


def down(options: argparse.Namespace, progress: Progress) -> int:
    """Remove a workstation, or everything."""
    client = engine(progress)
    if not options.all:
        if options.images:
            raise LabError("`--images` goes with `--all`: the images belong to every workstation")
        if not remove(client, options.name):
            raise LabError(f"nothing of a workstation {options.name!r} is here to remove")
        return 0
    everything = _everything()
    names = {each.labels[LABEL] for each in client.containers.list(all=True, filters=everything)}
    names |= {each.attrs["Labels"][LABEL] for each in client.networks.list(filters=everything)}
    names |= {each.attrs["Labels"][LABEL] for each in client.volumes.list(filters=everything)}
    for name in sorted(names):
        progress.say(f"removing {name}")
        remove(client, name)
    if options.images:
        _remove_images(client, progress)
    return 0


def ssh(options: argparse.Namespace, progress: Progress) -> int:
    """Log in, or run a command over SSH."""
    there = Vm.find(options.name, progress) or Workstation.find(options.name, progress)
    way_in = there.access
    return subprocess.run(
        ["ssh", "-F", str(way_in.ssh_config), way_in.name, *options.words], check=False
    ).returncode


def execute(options: argparse.Namespace, progress: Progress) -> int:
    """Run a command inside as root, without SSH."""
    name = Workstation.find(options.name, progress).name
    terminal = ["-t"] if sys.stdin.isatty() else []
    words = options.words or ["bash"]
    return subprocess.run(
        ["docker", "exec", "-i", *terminal, f"{PREFIX}-{name}", *words], check=False
    ).returncode


def build(options: argparse.Namespace, progress: Progress) -> int:
    """Make the images, and the archive of the gateway's if it is asked for."""
    client = engine(progress)
    found = images.ensure(client, progress)
    for reference in (found.host, found.bare, *found.gateway):
        print(reference)
    if options.archive:
        path = images.archive(client, found, progress)
        print(f"{path.relative_to(ROOT)} {path.stat().st_size / 1e6:.0f} MB")
    return 0


def status(_options: argparse.Namespace, progress: Progress) -> int:
    """List what is there."""
    client = engine(progress)
    everything = _everything()
    for container in client.containers.list(all=True, filters=everything):
        print(f"container  {container.name}  {container.status}")
    for network in client.networks.list(filters=everything):
        print(f"network    {network.name}")
    for volume in client.volumes.list(filters=everything):
        print(f"volume     {volume.name}")
    for image in client.images.list(filters=everything):
        print(f"image      {', '.join(image.tags) or image.short_id}")
    return 0


def show(_options: argparse.Namespace, progress: Progress) -> int:
    """Provision a throwaway workstation and use it: `make demo`."""
    return demo(progress)


def put_away(_options: argparse.Namespace, progress: Progress) -> int:
    """Remove what the demo left running: `make demo-down`."""
    return demo_down(progress)


def _everything() -> dict[str, str | list[str] | bool]:
    return {"label": LABEL}


def _remove_images(client: docker.DockerClient, progress: Progress) -> None:
    for archive in BUILD.glob("images-*.tar"):
        archive.unlink()
    # Children before parents: newest first.
    for image in client.images.list(filters=_everything()):
        progress.say(f"removing {', '.join(image.tags) or image.short_id}")
        try:
            client.images.remove(image.id or "", force=True)
        except APIError as error:
            progress.say(f"kept: {error.explanation}")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m gatehouse.lab", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def command(name: str, run: object, *, named: bool = True) -> argparse.ArgumentParser:
        added = commands.add_parser(name, help=run.__doc__, description=run.__doc__)
        added.set_defaults(command=run)
        if named:
            added.add_argument("name", nargs="?", default=DEFAULT_NAME, metavar="NAME")
        return added

    starting = command("up", up)
    starting.add_argument("--bare", action="store_true", help="without a container engine")
    starting.add_argument("--empty", action="store_true", help="with an engine that has no images")
    starting.add_argument("--user", choices=("root", "operator"), default="root")
    stopping = command("down", down)
    stopping.add_argument("--all", action="store_true", help="every workstation and cached volume")
    stopping.add_argument("--images", action="store_true", help="with --all: the images too")
    command("ssh", ssh).add_argument("words", nargs=argparse.REMAINDER, metavar="COMMAND")
    command("exec", execute).add_argument("words", nargs=argparse.REMAINDER, metavar="COMMAND")
    command("images", build, named=False).add_argument(
        "--archive", action="store_true", help="save the gateway's images to build/lab/"
    )
    command("status", status, named=False)
    command("demo", show, named=False)
    command("demo-down", put_away, named=False)
    return parser


if __name__ == "__main__":
    # Builders and clients must not look for a terminal that a person is typing at.
    os.environ.setdefault("DOCKER_CLI_HINTS", "false")
    sys.exit(main())
