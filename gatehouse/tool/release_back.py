"""The way back to a release that was good: one way, whoever goes it.

A deploy that failed, the dead man's switch of one that was killed (templates/release/watch.sh.j2),
the boot after a power cut, and `gatehouse rollback`. It can be gone again from wherever it was
broken off: everything is compared with what the release wants, and only the difference is made.
"""

import grp
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from gatehouse import audit
from gatehouse.probes.common import docker_root
from gatehouse.tool import here, lock, release_database, release_store, stack
from gatehouse.tool.errors import ProblemError
from gatehouse.tool.progress import human
from gatehouse.tool.release_store import CURRENT, DAEMON_JSON, DAEMON_OURS, GOOD, VENV, Release

Say = Callable[[str], None]

_UNITS = "/etc/systemd/system/"
_JOB = "litellm-migrate"
# In the order in which they need each other.
_FIRST = ("postgres", "redis")
# At the least: right after a boot everything else starts, too.
_START_SECONDS = 300
# Whose settings say how long it may take to start, where the name is another one.
_NOUNS = {_JOB: "litellm", "prometheus": "metrics", "alertmanager": "metrics"}
_POLL_SECONDS = 0.5
_NOTHING = 3
# At a boot: how often it is tried, and what the unit ends with when all was in vain; whatever else
# happens to the unit, systemd starts it again.
_ATTEMPTS = 3
_AGAIN_SECONDS = 10.0
_IN_VAIN = 4
# What a deploy writes to, besides containers and volumes.
_DISKS = ("/opt/gatehouse/releases", "/var/lib/gatehouse", "/etc/gatehouse")
_FULL = 16 * 2**20
_SUBNETS = {
    "gatehouse_edge": "GATEHOUSE_SUBNET",
    "gatehouse_inner": "GATEHOUSE_INNER_SUBNET",
    "gatehouse_engines": "GATEHOUSE_ENGINES_SUBNET",
}


@dataclass(frozen=True)
class _Container:
    name: str
    service: str
    inputs: str
    image: str
    identity: str
    running: bool
    code: int


def go_back(
    release: Release,
    failed: Release | None,
    say: Say,
    since: float | None = None,
    *,
    newer: bool = False,
) -> None:
    """Have a release serve again; `failed` is the one that is given up, if it was written at all.

    With `since` the dump that was made before `failed`, but not before `since`, takes the place of
    the database where migrations have changed its schema. A `newer` release migrates it before it
    serves. Raises `ProblemError` with what could not be made good.
    """
    _say_what_is_full(say)
    release_store.sweep()
    others = [each for each in (failed, _found(release_store.linked(CURRENT))) if each]
    changed = _put_back(release, others)
    if release_store.linked(CURRENT) != release.id:
        release_store.link(CURRENT, release.folder)
        say(f"release {release.id} is the current one again")
    _mean_again(release, say)
    _apart(release)
    _containers_gone(release)
    _units(release, changed)
    for service in _FIRST:
        _start(release, service)
    for service in _FIRST:
        stack.wait_healthy(service, _patience(service))
    if since is not None and failed:
        release_database.put_back(failed.id, say, since)
    if newer and not _is_migrated(release):
        stack.stop("litellm")
        _migrated(release)
    rest = [name for name in release.manifest["services"] if name not in (*_FIRST, _JOB)]
    for service in rest:
        _start(release, service)
    for service in rest:
        stack.wait_healthy(service, _patience(service))
    say(f"release {release.id} serves again")
    _engines(release)
    _migrated(release)


def _patience(service: str) -> float:
    """Give how long a service may take to start on this host, as its settings say."""
    try:
        known = json.loads(here.SETTINGS.read_text())
        seconds = known[f"{_NOUNS.get(service, service)}_start_timeout_seconds"]
    except (OSError, ValueError, KeyError):
        return _START_SECONDS
    return max(_START_SECONDS, float(seconds))


def _say_what_is_full(say: Say) -> None:
    """Name each disk that is full: what failed because of it may have had no words for it."""
    seen = set()
    for each in (*_DISKS, docker_root()):
        with suppress(OSError):
            device, free = Path(each).stat().st_dev, shutil.disk_usage(each).free
            if device not in seen and free < _FULL:
                say(f"the disk of {each} is full ({human(free)} free): free some space")
            seen.add(device)


def _found(name: str | None) -> Release | None:
    with suppress(click.ClickException):
        return release_store.find(name) if name else None
    return None


def _put_back(release: Release, others: Iterable[Release]) -> set[str]:
    """Put back what the release had placed, and remove what only others did; gives the paths."""
    files = release_store.placed(release)
    changed = set()
    ours = files.get(DAEMON_OURS)
    if ours is None or _same(DAEMON_OURS, ours[0]):
        # What else is in it is the operator's, and may be newer.
        files.pop(DAEMON_JSON, None)
    for path, (data, info) in files.items():
        if _same(path, data):
            continue
        new = Path(f"{path}.new")
        new.write_bytes(data)
        shutil.chown(new, info.uname or info.uid, info.gname or info.gid)
        new.chmod(info.mode)
        # As it was kept: what is newer than that makes the next deploy keep it anew.
        os.utime(new, ns=(release_store.moment(info),) * 2)
        new.replace(path)
        changed.add(path)
    gid = json.loads(files.get("/etc/gatehouse/settings.json", (b"{}",))[0]).get("secrets_gid")
    with suppress(KeyError):
        if gid and grp.getgrnam("gatehouse-secrets").gr_gid != gid:
            _run("groupmod", "-g", str(gid), "gatehouse-secrets")
    if not files:
        # Nothing was kept of it, so nobody can say what is too much.
        return changed
    for path in {path for each in others for path in each.placed} - set(release.placed):
        if Path(path).exists():
            if path.startswith(_UNITS):
                _run("systemctl", "disable", "--quiet", "--now", Path(path).name)
            Path(path).unlink(missing_ok=True)
            changed.add(path)
    return changed


def _same(path: str, data: bytes) -> bool:
    try:
        return Path(path).read_bytes() == data
    except OSError:
        return False


def _mean_again(release: Release, say: Say) -> None:
    """Have the release's references mean the images that they meant when it was good."""
    for name, identity in release_store.identities(release).items():
        if release_store.meant(name) == identity:
            continue
        try:
            stack.docker("tag", identity, name)
        except ProblemError:
            say(f"the image that {name} meant is gone: what it means now has to do")
        else:
            say(f"{name} means the image again that it meant when release {release.id} was good")


def _units(release: Release, changed: set[str]) -> None:
    """Have systemd go on with the units as they are now."""
    if DAEMON_JSON in changed:
        _run("systemctl", "restart", "docker.service")
    for path in changed:
        if path.startswith("/etc/tmpfiles.d/") and Path(path).exists():
            _run("systemd-tmpfiles", "--create", path)
    if any(path.startswith(_UNITS) for path in changed):
        _run("systemctl", "daemon-reload")
    if "/etc/gatehouse/firewall.sh" in changed:
        changed.add(f"{_UNITS}gatehouse-firewall.service")
    old = release.venv
    if (old / "complete").exists() and old.readlink() != VENV.readlink():
        release_store.link(VENV, old.readlink())
        changed.add(f"{_UNITS}gatehouse-health.service")
    for path in sorted(changed & set(release.placed)):
        if path.startswith(_UNITS):
            _again(Path(path))


def _again(unit: Path) -> None:
    """Start a unit again that has changed, as far as it runs by itself."""
    text = unit.read_text()
    if "[Install]" not in text:
        return
    _run("systemctl", "enable", "--quiet", unit.name)
    if unit.suffix == ".socket":
        # A socket does not start while its service runs without it.
        _run("systemctl", "stop", f"{unit.stem}.service")
    if "Type=oneshot" not in text or "RemainAfterExit=yes" in text:
        _run("systemctl", "restart", unit.name)


def _apart(release: Release) -> None:
    """Remove containers and networks where a network has another subnet: none can be changed."""
    values = _dotenv(release)
    form = "{{.Name}} {{range .IPAM.Config}}{{.Subnet}}{{end}}"
    for name, variable in _SUBNETS.items():
        with suppress(ProblemError):
            seen = stack.docker("network", "inspect", "-f", form, name).split()
            if len(seen) > 1 and seen[1] != values.get(variable):
                stack.docker("compose", "-p", "gatehouse", "down")
                return


def _dotenv(release: Release) -> dict[str, str]:
    lines = (release.folder / ".env").read_text().splitlines()
    pairs = (line.partition("=") for line in lines if not line.startswith("#"))
    return {name: value.strip("'") for name, _, value in pairs}


def _containers() -> list[_Container]:
    ids = stack.docker("ps", "-aq", "--filter", "label=com.docker.compose.project=gatehouse")
    if not ids.split():
        return []
    found: list[dict[str, Any]] = json.loads(stack.docker("inspect", *ids.split()))
    return [
        _Container(
            each["Name"].lstrip("/"),
            each["Config"]["Labels"].get("com.docker.compose.service", ""),
            each["Config"]["Labels"].get("gatehouse.inputs", ""),
            each["Config"]["Image"],
            each["Image"],
            each["State"]["Status"] == "running",
            each["State"]["ExitCode"],
        )
        for each in found
    ]


def _containers_gone(release: Release) -> None:
    """Remove what the release does not have, and a job that may be at work on the database."""
    wanted = {*release.manifest["services"], *release.manifest["engines"]}
    for each in _containers():
        job = each.service == _JOB and each.running
        if job or each.service not in wanted or each.name != stack.container(each.service):
            stack.docker("rm", "--force", each.name)


def _start(release: Release, service: str) -> None:
    """Have a service run as the release wants it; one that does so already is left alone."""
    wanted = release.manifest["services"][service]
    mine = [each for each in _containers() if each.service == service]
    right = (
        mine
        and (mine[0].inputs, mine[0].image) == (wanted["inputs"], wanted["image"])
        # A name that is gone takes nothing from a container that runs.
        and release_store.meant(wanted["image"]) in {"", mine[0].identity}
    )
    if right and mine[0].running and stack.health(service) in ("healthy", "starting"):
        return
    how = [] if right and stack.health(service) != "unhealthy" else ["--force-recreate"]
    _compose(release, "up", "-d", "--no-deps", "--no-build", "--pull=never", *how, service)


def _migrated(release: Release) -> None:
    """Have the job of the release done: it finds nothing to do, and is what the checks look for."""
    if _is_migrated(release):
        return
    _compose(release, "up", "-d", "--no-deps", "--no-build", "--force-recreate", _JOB)
    deadline = time.monotonic() + _patience(_JOB)
    while (job := next(e for e in _containers() if e.service == _JOB)).running:
        if time.monotonic() > deadline:
            raise ProblemError(f"the job {_JOB} does not end: docker logs {job.name}")
        time.sleep(_POLL_SECONDS)
    if job.code:
        raise ProblemError(f"the job {_JOB} failed; its last lines:\n{stack.tail(_JOB)}")


def _is_migrated(release: Release) -> bool:
    """Tell whether the job of the release is done, or there is none."""
    wanted = release.manifest["services"].get(_JOB)
    mine = [each for each in _containers() if each.service == _JOB]
    return wanted is None or bool(mine and mine[0].inputs == wanted["inputs"] and mine[0].code == 0)


def _engines(release: Release) -> None:
    """Have the engines' containers as the release wants them; none is started."""
    found = {each.service: each for each in _containers()}
    for name, inputs in release.manifest["engines"].items():
        if name in found and found[name].inputs == inputs:
            continue
        _run("systemctl", "stop", f"gatehouse-engine-{name}.service")
        _run("systemctl", "stop", f"gatehouse-server-{name}.service")
        _compose(release, "--profile", "engines", "create", "--no-build", "--force-recreate", name)


def _compose(release: Release, *words: str) -> None:
    folder = str(release.folder)
    stack.docker("compose", "--project-directory", folder, "-f", f"{folder}/compose.yaml", *words)


def _run(*words: str) -> None:
    """Run a command whose failure the checks tell of."""
    subprocess.run(words, check=False, capture_output=True)


def main() -> None:
    """Go back to the last good release: `… RELEASE REASON`, by whoever found out that it must be.

    RELEASE is the one that is given up. Ends with 0 when the good one serves, 1 when it does not,
    3 when there is none to go back to.
    """
    if sys.argv[1:] == ["--boot"]:
        if release_store.MARKER.exists():
            _boot()
        return
    sys.exit(_main(*sys.argv[1:]))


def _boot() -> None:
    """Go back from a deploy that a power cut ended; where that fails, the next boot tries again."""
    for attempt in range(_ATTEMPTS):
        if attempt:
            time.sleep(_AGAIN_SECONDS)
        with lock.held("way back"):
            code = _main(
                release_store.MARKER.read_text().strip(),
                "the host was switched off during a deploy",
            )
            if code != 1:
                release_store.MARKER.unlink()
                return
    sys.exit(_IN_VAIN)


def _main(marked: str, reason: str) -> int:
    given_up: str | None = marked
    good = _found(release_store.linked(GOOD))
    failed = _found(marked)
    begun = time.monotonic()
    if failed and _is_bad(failed, good):
        with suppress(OSError):
            release_store.remember(failed.id, "bad", reason=reason, came_from=_deployer())
    if good is None:
        _record("failed", given_up, reason, None)
        click.echo("there is no good release to go back to: the next deploy goes on")
        return _NOTHING
    # What was dumped before this deploy began is another deploy's.
    since = release_store.MARKER.stat().st_mtime if release_store.MARKER.exists() else None
    if since is not None and failed and _was_good(failed, good, since):
        # Its database is the one that it has migrated.
        since, failed, given_up = None, None, None
        reason = f"{reason}, after it was called good"
    try:
        # The same release fails, too, where one of its references means another image by now.
        go_back(good, failed, click.echo, since)
    except (click.ClickException, OSError) as error:
        words = error.message if isinstance(error, click.ClickException) else str(error)
        _record("failed", given_up, f"{reason}; and the way back failed", None)
        click.echo(f"the way back to release {good.id} failed: {words}")
        return 1
    release_store.ROLLBACK.unlink(missing_ok=True)
    _record("ok", given_up, reason, good.id)
    click.echo(f"the way back took {time.monotonic() - begun:.0f} s")
    return 0


def _was_good(failed: Release, good: Release, begun: float) -> bool:
    """Tell whether the deploy that began then was good, and only its end is not written down."""
    known = failed.known
    return failed.id == good.id and known.get("result") == "good" and known["when"] >= begun


def _is_bad(failed: Release, good: Release | None) -> bool:
    """Say whether it is the release's fault: one that was good and was not switched to stays so."""
    if good is not None and failed.id == good.id:
        return False
    return failed.known.get("result") != "good" or release_store.linked(CURRENT) == failed.id


def _deployer() -> str | None:
    with suppress(OSError, ValueError, KeyError, TypeError):
        return str(json.loads(lock.FILE.read_text())["who"])
    return None


def _record(outcome: audit.Outcome, given_up: str | None, reason: str, back: str | None) -> None:
    # A full disk is a reason to go back, and no reason not to.
    with suppress(OSError):
        audit.record("way back", outcome, given_up=given_up, reason=reason, release=back)


if __name__ == "__main__":
    os.umask(0o022)
    main()
