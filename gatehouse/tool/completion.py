"""`gatehouse completion`: what a shell needs to complete the command's words."""

import click
from click.shell_completion import get_completion_class

SHELLS = ("bash", "zsh", "fish")


@click.command()
@click.argument("shell", type=click.Choice(SHELLS))
@click.pass_context
def completion(ctx: click.Context, shell: str) -> None:
    """Print the completion for a shell.

    \b
    gatehouse completion bash >~/.local/share/bash-completion/completions/gatehouse
    gatehouse completion zsh >~/.zfunc/_gatehouse
    gatehouse completion fish >~/.config/fish/completions/gatehouse.fish
    """  # noqa: D301 - click's mark for a block that stays as it is
    made = get_completion_class(shell)
    assert made  # noqa: S101 - click has one for each of them
    click.echo(made(ctx.find_root().command, {}, "gatehouse", "_GATEHOUSE_COMPLETE").source())
