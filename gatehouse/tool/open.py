"""`gatehouse open`: where the pages for people are, and the way to them from another machine."""

import getpass
import os
import socket

import click
from pydantic import BaseModel, Field

from gatehouse.settings import Settings
from gatehouse.tool import here, show


class Page(BaseModel):
    """A page for people."""

    name: str
    url: str = Field(description="On this host, and through the tunnel.")
    port: int


class OpenDocument(BaseModel):
    """What `gatehouse open --json` prints."""

    pages: list[Page]
    tunnel: str = Field(description="The command for another machine.")
    user: str = Field(description="Who logs in to the gateway's web interface.")


@click.command("open")
@click.option("--via", hidden=True, metavar="[USER@]HOST", help="How the other machine gets here.")
@show.json_option
def open_(*, via: str | None, as_json: bool) -> None:
    """Print where the pages are, and the SSH tunnel that leads to them from another machine."""
    settings = here.settings()
    pages = _pages(settings)
    ports = " ".join(f"-L {page.port}:127.0.0.1:{page.port}" for page in pages)
    way = via or f"{os.environ.get('SUDO_USER') or getpass.getuser()}@{socket.gethostname()}"
    document = OpenDocument(
        pages=pages, tunnel=f"ssh -N {ports} {way}", user=settings.litellm_admin_user
    )
    if as_json:
        show.emit(document)
        return
    table = show.table("page", "address")
    for page in pages:
        table.add_row(page.name, page.url)
    show.console().print(table)
    click.echo(
        f"user {document.user}, password: sudo cat {here.SECRETS / 'ui_password'}\n"
        f"from another machine, until Ctrl+C, with the same addresses there:\n  {document.tunnel}"
    )


def _pages(settings: Settings) -> list[Page]:
    gateway, health = settings.litellm_port, settings.health_port
    return [
        Page(name="web interface", url=f"http://127.0.0.1:{gateway}/ui", port=gateway),
        Page(name="health", url=f"http://127.0.0.1:{health}/", port=health),
    ]
