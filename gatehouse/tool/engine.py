"""`gatehouse engine`: what people do with the engines of a host."""

import grp
import json
import os
import subprocess
import time
from collections.abc import Callable
from contextlib import suppress
from functools import wraps
from typing import ParamSpec

import click

from gatehouse.engines.config import Engine
from gatehouse.engines.errors import EngineError
from gatehouse.engines.host import Host
from gatehouse.engines.state import AWAKE, FAILED, LEAVING, LOADING, REFUSED
from gatehouse.tool import engine_facts, show
from gatehouse.tool.errors import CannotLookError, ProblemError

_LOOK_SECONDS = 0.1
_GONE_SECONDS = 60
_HINT = (
    "; use sudo, or become a member of the group gatehouse (`sudo usermod -aG gatehouse $USER`, "
    "then log in again)"
)
_JOURNAL_GROUPS = ("systemd-journal", "adm", "wheel")

Parameters = ParamSpec("Parameters")


def _plainly(command: Callable[Parameters, None]) -> Callable[Parameters, None]:
    """Print what went wrong instead of a traceback: exit code 2, we could not look."""

    @wraps(command)
    def guarded(*args: Parameters.args, **kwargs: Parameters.kwargs) -> None:
        try:
            command(*args, **kwargs)
        except EngineError as error:
            raise CannotLookError(str(error)) from error

    return guarded


@click.group()
def engine() -> None:
    """List, start, stop and explain the local models' engines."""


@engine.command("list")
@show.json_option
@_plainly
def list_(*, as_json: bool) -> None:
    """Show every engine: what it is doing, what it needs, when it was used."""
    facts = engine_facts.engines(Host())
    if as_json:
        click.echo(json.dumps(facts, indent=2))
        return
    table = show.table(
        *("engine", "state", "port", "MiB", "idle", "connections", "models"),
        right=("port", "connections"),
    )
    for each in facts:
        memory = "?" if each["need_mib"] is None else str(each["need_mib"])
        table.add_row(
            each["name"],
            each["state"],
            str(each["port"]),
            memory + (" measured" if each["measured_mib"] else ""),
            "" if each["idle_seconds"] is None else show.span(each["idle_seconds"]),
            str(each["connections"] or ""),
            ", ".join(each["models"]),
        )
    show.console().print(table)
    for each in facts:
        if each["reason"]:
            click.echo(f"{each['name']}: {each['reason']}")


@engine.command()
@show.json_option
@_plainly
def plan(*, as_json: bool) -> None:
    """Show who holds the memory, and what would happen to each engine that sleeps."""
    pools = engine_facts.pools(Host())
    if as_json:
        click.echo(json.dumps(pools, indent=2))
    else:
        for pool in pools:
            _show_pool(pool)
    if any("error" in pool for pool in pools):
        raise SystemExit(1)


def _show_pool(pool: dict[str, engine_facts.Fact]) -> None:
    console = show.console()
    if "error" in pool:
        console.print(f"{pool['pool']}: {pool['error']}", style="bold", highlight=False)
        return
    table = show.table(f"{pool['pool']}, MiB", "size", "", right=("size",))
    table.add_row("total", str(pool["total_mib"]), "")
    for each in pool["engines"]:
        table.add_row(f"  {each['name']}", str(each["mib"]), each["doing"])
    foreign = ", ".join(f"pid {one['pid']} {one['name']} {one['mib']}" for one in pool["others"])
    table.add_row("  other programs", str(pool["foreign_mib"]), foreign)
    table.add_row("  kept free", str(pool["reserve_mib"]), "gpu_reserve_mib")
    table.add_row("free", str(pool["free_mib"]), "")
    console.print(table)
    for each in pool["asleep"]:
        needs = "all there is" if each["need_mib"] is None else f"{each['need_mib']} MiB"
        what = {
            "fits": f"fits ({needs})",
            "evicts": f"would stop {', '.join(each['evicts'])} ({needs})",
            "refused": f"would be refused: {each['reason']}",
        }[each["decision"]]
        click.echo(f"  {each['name']}: {what}")


@engine.command()
@click.argument("name")
@click.option("--wait/--no-wait", default=True, help="Wait until it answers.  [default: wait]")
@_plainly
def start(name: str, *, wait: bool) -> None:
    """Load an engine now; it stays until it was idle for its time."""
    host = Host()
    found = host.config.engine(name)
    state = host.states.get(name)
    if state and state.state == AWAKE and _runs(host, found):
        click.echo(f"{name} is awake already, on 127.0.0.1:{found.port}")
        return
    if state and state.state == FAILED:
        # A person who asks has mended something. Without root the pause after a failure remains.
        with suppress(OSError):
            host.states.ask_force(name)
    # What runs then only tells clients that there is no engine: a start would change nothing.
    refusing = (state is None or state.state != LOADING) and _runs(host, found)
    verb = "restart" if refusing else "start"
    begin = time.monotonic()
    if not wait:
        _systemctl(verb, "--no-block", found.service)
        click.echo(f"{name} loads; `gatehouse engine list` shows when it is awake")
        return
    with show.busy(f"{name} loads"):
        _systemctl(verb, found.service)
    state = host.states.get(name)
    if state is None or state.state != AWAKE:
        reason = state.reason if state and state.reason else f"see `gatehouse engine logs {name}`"
        kind = state.state if state and state.state in (REFUSED, FAILED) else "not started"
        raise ProblemError(f"{name} {'was ' if kind == REFUSED else ''}{kind}: {reason}")
    click.echo(
        f"{name} is awake after {time.monotonic() - begin:.1f} s, "
        f"on 127.0.0.1:{found.port}, with {state.need_mib} MiB"
    )


@engine.command()
@click.argument("name")
@_plainly
def stop(name: str) -> None:
    """Stop an engine and free its memory; open connections are cut."""
    host = Host()
    found = host.config.engine(name)
    cut = host.connections().get(found.port, 0)
    # The server follows by itself; only one that root started without its proxy does not.
    servers = [found.server] if os.geteuid() == 0 else []
    with show.busy(f"{name} stops"):
        _systemctl("stop", found.service, *servers)
        end = time.monotonic() + _GONE_SECONDS
        while _holds(host, found):
            if time.monotonic() > end:
                raise ProblemError(
                    f"{name} is not gone after {_GONE_SECONDS} s: `systemctl status {found.server}`"
                )
            time.sleep(_LOOK_SECONDS)
    click.echo(f"{name} sleeps" + (f"; {cut} open connections were cut" if cut else ""))


@engine.command()
@click.argument("name")
@click.option("-f", "--follow", is_flag=True, help="Show new lines as they come.")
@click.option("-n", "--lines", default=100, show_default=True, help="How many lines to show.")
@_plainly
def logs(name: str, *, follow: bool, lines: int) -> None:
    """Show what an engine and its units wrote to the journal."""
    found = Host().config.engine(name)
    if not _may_read_journal():
        click.echo(
            "you see your own lines of the journal only: use sudo, or "
            "`sudo usermod -aG systemd-journal $USER` and log in again",
            err=True,
        )
    command = ["journalctl", f"--unit={found.server}", f"--unit={found.service}"]
    command += [f"--lines={lines}", *(["--follow"] if follow else ["--no-pager"])]
    try:
        os.execvp(command[0], command)  # noqa: S606 - journalctl takes our place, and the Ctrl+C
    except FileNotFoundError:
        raise CannotLookError("journalctl is missing: this host runs no systemd") from None


def _may_read_journal() -> bool:
    if os.geteuid() == 0:
        return True
    names = set()
    for number in os.getgroups():
        with suppress(KeyError):
            names.add(grp.getgrgid(number).gr_name)
    return not names.isdisjoint(_JOURNAL_GROUPS)


def _systemctl(*arguments: str) -> None:
    try:
        done = subprocess.run(["systemctl", *arguments], check=False, stderr=subprocess.PIPE)
    except FileNotFoundError:
        raise CannotLookError("systemctl is missing: this host runs no systemd") from None
    if done.returncode:
        seen = done.stderr.decode(errors="replace").strip()
        hint = "" if os.geteuid() == 0 else _HINT
        raise ProblemError(f"`systemctl {' '.join(arguments)}` failed: {seen}{hint}")


def _runs(host: Host, found: Engine) -> bool:
    unit = host.units.show([found.service]).get(found.service)
    return bool(unit and unit.pid)


def _holds(host: Host, found: Engine) -> bool:
    state = host.states.get(found.name)
    return state is not None and state.state in (AWAKE, LEAVING)
