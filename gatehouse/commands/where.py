"""`where`: list the files of one component in every layer."""

from pathlib import Path

import click

from gatehouse.settings.model import COMPONENTS

_LAYERS = (
    "group_data",
    "gatehouse/settings",
    "gatehouse/render",
    "compose",
    "templates",
    "gatehouse/deploys",
    "gatehouse/checks",
    "tests",
    "docs",
)


def files(component: str) -> list[Path]:
    """Give the files named after the component, by layer; paths relative to the repository."""
    found = []
    for layer in _LAYERS:
        for path in sorted(Path(layer).rglob("*")):
            stem = path.name.split(".", 1)[0]
            inside = component in path.parts[:-1]
            named = stem in {component, f"test_{component}"}
            if path.is_file() and "__pycache__" not in path.parts and (named or inside):
                found.append(path)
    return found


@click.command("where")
@click.argument("component")
def command(component: str) -> None:
    """List where COMPONENT (redis, litellm, docker …) is found."""
    found = files(component)
    if not found:
        names = sorted(each.__module__.rsplit(".", 1)[-1] for each in COMPONENTS)
        raise click.ClickException(
            f"nothing is called {component!r}; try one of {', '.join(names)}"
        )
    for path in found:
        click.echo(path)
