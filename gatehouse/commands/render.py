"""`render`: write what each host would get to build/render/, without touching a host."""

import shutil
from pathlib import Path

import click

from gatehouse.commands.hosts import hosts
from gatehouse.images import lock_of, pinned
from gatehouse.providers import given
from gatehouse.render import Machine, render
from gatehouse.settings import validate

TARGET = Path("build/render")


@click.command("render")
@click.option("--inventory", default="inventory", show_default=True, help="pyinfra's inventory.")
def command(inventory: str) -> None:
    """Write each host's files to build/render/HOST/, under the paths they have on the host."""
    everything = {name: validate(data) for name, data in hosts(inventory).items()}
    for name, named in everything.items():
        lock = lock_of(named)
        settings = pinned(named, lock)
        machine = Machine(provider_keys=frozenset(given(settings)))
        target = TARGET / name
        shutil.rmtree(target, ignore_errors=True)
        rendered = render(settings, machine, lock)
        for path, file in rendered.files.items():
            place = target / path.lstrip("/")
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_text(file.content)
            place.chmod(int(file.mode, 8))
        click.echo(f"{target}: {len(rendered.files)} files, release {rendered.release_id}")
        if settings.host_cpu_cores is None or settings.host_memory_mib is None:
            click.echo(
                f"  for a machine of {machine.cores} cores and {machine.memory_mib} MiB; a deploy "
                "measures the real one (host_cpu_cores, host_memory_mib)"
            )
