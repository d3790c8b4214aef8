"""`gatehouse secrets`: the host's own secrets, and the providers' keys."""

import os
import re
import sys

import click
from pydantic import BaseModel, Field, SecretStr

from gatehouse.settings import Settings
from gatehouse.settings.rules import suggestion
from gatehouse.tool import here, rotation, show, stack
from gatehouse.tool.audited import audited
from gatehouse.tool.errors import CannotLookError, ProblemError

_SALT = (
    "the salt key is what the credentials in the database are encrypted with: LiteLLM would read "
    "them with a new one as garbage, without an error. There is no way yet that re-encrypts them, "
    "so it stays"
)
_WORDS = (*rotation.ROTATED, "all", "salt")
_LONGEST = 8192


class SecretFile(BaseModel):
    """A secret of the host; never its value."""

    name: str = Field(description="File below /etc/gatehouse/secrets.")
    mode: str = Field(description="Octal digits.")
    changed: float = Field(description="When it got its value, seconds since the epoch.")
    rotates_as: str | None = Field(description="What `gatehouse secrets rotate` calls it.")


class SecretsDocument(BaseModel):
    """What `gatehouse secrets list --json` prints."""

    secrets: list[SecretFile]
    unfinished: list[str] = Field(description="Rotations that were broken off, by their names.")


@click.group()
def secrets() -> None:
    """Rotate the host's own secrets, and take over providers' keys.

    \b
    sudo gatehouse secrets list
    sudo gatehouse secrets rotate master       a new master key; the old one is refused
    sudo gatehouse secrets rotate all --yes
    sudo gatehouse secrets set OLLAMA_API_KEY <key.txt
    """  # noqa: D301 - click's mark for a block that stays as it is


@secrets.command("list")
@show.json_option
def list_(*, as_json: bool) -> None:
    """Show which secrets there are and how old they are; never a value."""
    here.be_root("secrets list")
    own = {each.file: name for name, each in rotation.ROTATED.items()}
    found = [
        SecretFile(
            name=str(path.relative_to(here.SECRETS)),
            mode=f"{path.stat().st_mode & 0o7777:o}",
            changed=path.stat().st_mtime,
            rotates_as=own.get(path.name) if path.parent == here.SECRETS else None,
        )
        for path in sorted(here.SECRETS.rglob("*"))
        if path.is_file()
    ]
    document = SecretsDocument(secrets=found, unfinished=rotation.unfinished())
    if as_json:
        show.emit(document)
    else:
        table = show.table("secret", "mode", "changed", "rotate as")
        for each in found:
            table.add_row(each.name, each.mode, show.ago(each.changed), each.rotates_as or "")
        show.console().print(table)
    if document.unfinished:
        raise ProblemError(
            f"a rotation of {', '.join(document.unfinished)} was broken off: "
            "sudo gatehouse secrets recover"
        )


@secrets.command()
@click.argument("names", nargs=-1, required=True, metavar="master|redis|postgres|ui|all …")
@click.option("--yes", is_flag=True, help="Do not ask.")
def rotate(names: tuple[str, ...], *, yes: bool) -> None:
    """Give secrets a new value, prove that the old one is refused, or go back.

    LiteLLM restarts once; open answers are finished first. If the gateway does not come up with the
    new values, the old ones are put back.
    """
    here.be_root(f"secrets rotate {' '.join(names)}")
    wanted = _named(names)
    settings = here.settings()
    here.confirm(f"Rotate {', '.join(wanted)}? The gateway restarts once.", yes=yes)
    with audited(f"secrets rotate {' '.join(wanted)}"):
        rotation.rotate(wanted, settings, _say)
    click.echo(f"rotated: {', '.join(wanted)}")


@secrets.command()
def recover() -> None:
    """Put the old values back that a rotation which was killed has left."""
    here.be_root("secrets recover")
    settings = here.settings()
    if not rotation.unfinished():
        click.echo("no rotation was broken off")
        return
    with audited("secrets recover"):
        rotation.recover(settings, _say)
    click.echo("the old values are in force")


@secrets.command("set")
@click.argument("name")
def set_(name: str) -> None:
    """Take over a provider's key from standard input."""
    here.be_root(f"secrets set {name}")
    settings = here.settings()
    known = sorted(settings.provider_keys)
    if name not in known:
        raise CannotLookError(
            f"no model and no MCP server uses a key {name!r}{suggestion(name, known)}: the "
            f"settings name {', '.join(known) or 'none'}"
        )
    value = SecretStr(_value(name))
    path = here.SECRETS / "providers" / name
    before = path.exists()
    with audited(f"secrets set {name}"):
        rotation.write(path, value)
        if before:
            _restart(settings)
    if before:
        click.echo(f"{name} is in use")
    else:
        click.echo(f"{name} is kept; its models are offered after: pyinfra inventory deploy.py")


def _restart(settings: Settings) -> None:
    with show.busy("litellm restarts"):
        stack.docker("restart", stack.container("litellm"))
        stack.wait_healthy("litellm", settings.litellm_start_timeout_seconds)


def _value(name: str) -> str:
    """Read a key without showing it; raises `CannotLookError` for what cannot be one."""
    if os.isatty(0):
        text = str(click.prompt(f"{name} (it is not shown)", hide_input=True, err=True))
    else:
        text = sys.stdin.read(_LONGEST + 1)
    value = text.strip()
    if not value:
        raise CannotLookError(f"{name}: nothing came on standard input")
    if len(text) > _LONGEST or not re.fullmatch(r"[\x21-\x7e]+", value):
        raise CannotLookError(
            f"{name}: what came on standard input is no key: one line without spaces, at most "
            f"{_LONGEST} characters"
        )
    return value


def _named(names: tuple[str, ...]) -> list[str]:
    """Give what is to be rotated, in the order in which it is done."""
    for name in names:
        if name == "salt":
            raise ProblemError(_SALT)
        if name not in _WORDS:
            close = suggestion(name, list(_WORDS))
            raise CannotLookError(
                f"there is no secret {name!r} to rotate{close}: {', '.join(rotation.ROTATED)}, all"
            )
    return [name for name in rotation.ROTATED if name in names or "all" in names]


def _say(line: str) -> None:
    click.echo(f"  {line}")
