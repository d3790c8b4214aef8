"""Where a secret shows that should not: every place where one could, searched by value.

Arguments: paths that are passed over (model files). Only names and places are printed: the value
of a secret reaches no command line, no file and no output. What is read is bounded.
"""

import contextlib
import json
import os
import stat
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from gatehouse.probes.common import containers, docker, tell

ROOT = "/etc/gatehouse"
HOLDERS = ("/etc/gatehouse/secrets", "/etc/gatehouse/keys")
# What others could read, or what is carried away: configuration, releases, logs, what is left over.
TREES = (
    *("/etc", "/opt", "/usr/local", "/var/lib/gatehouse", "/var/lib/systemd", "/var/log"),
    *("/var/tmp", "/tmp", "/home", "/root", "/run"),  # noqa: S108 - searched
)
# Compressed: that they are there is what is told.
DUMPS = "/var/lib/systemd/coredump"
# Binary, large, or searched by another name; backups hold secrets on purpose, and are encrypted.
PASSED = (
    *HOLDERS,
    *("/opt/gatehouse/venvs", "/var/log/journal", "/run/log/journal", DUMPS),
    "/var/lib/gatehouse/backup/repository",
)
# Below /run others are mounted, too: a container's files, a person's remote folders.
HERE = ("tmpfs", "ramfs")
MOST_BYTES = 16 * 2**20
# With every field an entry has a kilobyte or so.
JOURNAL_BYTES = 2**30
LOG_LINES = 20_000
SHORTEST = 8
MOST_PLACES = 20
CHUNK = 2**20

Needles = dict[str, bytes]


def needles() -> Needles:
    """Give every secret of the host by its file's name; raises `OSError` where there is none."""
    found = {}
    for holder in HOLDERS:
        for path in sorted(Path(holder).rglob("*")):
            if path.is_file():
                value = path.read_bytes().strip()
                if len(value) >= SHORTEST and not value.startswith(b"{"):
                    found[str(path.relative_to(ROOT))] = value
    if not found:
        raise OSError(f"{HOLDERS[0]} holds no secret")
    return found


def names(wanted: Needles, text: bytes) -> list[str]:
    """Give the names of the secrets that a text holds."""
    return [name for name, value in wanted.items() if value in text]


def in_docker(wanted: Needles) -> Iterator[str]:
    """Look through all containers' configuration, all images and the Compose project."""
    for each in json.loads(docker("/containers/json?all=true")):
        called = each["Names"][0].lstrip("/") if each["Names"] else each["Id"][:12]
        text = docker(f"/containers/{each['Id']}/json")
        yield from (f"{name} in docker inspect {called}" for name in names(wanted, text))
    for each in json.loads(docker("/images/json?all=true")):
        called = (each.get("RepoTags") or [each["Id"][:19]])[0]
        text = docker(f"/images/{each['Id']}/json") + docker(f"/images/{each['Id']}/history")
        yield from (f"{name} in the image {called}" for name in names(wanted, text))
    done = subprocess.run(
        ["docker", "compose", "config"],
        cwd="/opt/gatehouse/current",
        capture_output=True,
        timeout=60,
        check=False,
    )
    if done.returncode:
        raise OSError(f"docker compose config: {done.stderr.decode(errors='replace')[-200:]}")
    yield from (f"{name} in docker compose config" for name in names(wanted, done.stdout))


def given(found: list[dict[str, Any]], wanted: Needles) -> dict[str, set[str]]:
    """Give container → the secrets that are mounted into it: its processes rightly have them."""
    held: dict[str, set[str]] = {}
    for each in found:
        sources = [f"{mount['Source']}/" for mount in each["Mounts"]]
        held[each["Id"]] = {
            name
            for name in wanted
            if any(f"{ROOT}/{name}/".startswith(source) for source in sources)
        }
    return held


def in_processes(wanted: Needles) -> Iterator[str]:
    """Look through every command line and every environment."""
    held = given(containers(), wanted)
    mine = os.getpid()
    for path in Path("/proc").glob("[0-9]*"):
        if int(path.name) == mine:
            continue
        # It may end while it is looked at, and the kernel has processes without any of this.
        with contextlib.suppress(OSError):
            command = (path / "cmdline").read_bytes()
            environment = (path / "environ").read_bytes()
            group = (path / "cgroup").read_text()
            rightly = {name for each, those in held.items() if each in group for name in those}
            who = f"{(path / 'comm').read_text().strip()} (process {path.name})"
            for name in names(wanted, command):
                yield f"{name} in the command line of {who}"
            for name in names(wanted, environment):
                if name not in rightly:
                    yield f"{name} in the environment of {who}"


def stream(wanted: Needles, command: list[str], most: int) -> set[str]:
    """Give the names of the secrets in what a command prints, the first `most` bytes of it.

    Raises `OSError` where the command fails before that.
    """
    found: set[str] = set()
    overlap = max(map(len, wanted.values()))
    with (
        tempfile.TemporaryFile() as errors,
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors) as process,
    ):
        assert process.stdout  # noqa: S101 - it is a pipe
        kept, total = b"", 0
        while total < most and (chunk := process.stdout.read(CHUNK)):
            total += len(chunk)
            found.update(names(wanted, kept + chunk))
            kept = (kept + chunk)[-overlap:]
        if total >= most:
            process.kill()
        elif process.wait():
            errors.seek(0)
            said = errors.read().decode(errors="replace").strip()
            raise OSError(f"{command[0]} ended with {process.returncode}: {said[-200:]}")
    return found


def in_logs(wanted: Needles) -> Iterator[str]:
    """Look through the journal, newest first and with all its fields, and the containers' logs."""
    journal = ["journalctl", "--no-pager", "--reverse", "--all", "-o", "export"]
    for name in stream(wanted, journal, JOURNAL_BYTES):
        yield f"{name} in the journal"
    for each in json.loads(docker("/containers/json?all=true")):
        called = each["Names"][0].lstrip("/") if each["Names"] else each["Id"][:12]
        logs = f"logs?stdout=true&stderr=true&tail={LOG_LINES}"
        try:
            text = docker(f"/containers/{each['Id']}/{logs}")
        except OSError as error:
            # A driver that keeps nothing here has nothing to search.
            if "does not support reading" not in str(error):
                raise
            continue
        yield from (f"{name} in the log of {called}" for name in names(wanted, text))


def elsewhere(mounted: str) -> set[str]:
    """Give the places below /run that are of another kind, from the kernel's list of mounts."""
    found = set()
    for line in mounted.splitlines():
        before, _, after = line.partition(" - ")
        place = before.split(" ")[4]
        if place.startswith("/run/") and after.split(" ")[0] not in HERE:
            found.add(place)
    return found


def dumps(found: list[dict[str, Any]]) -> Iterator[str]:
    """Give the core dumps of who may have held a secret in memory: root, and containers' users."""
    users = {"0", "root", *(each["Config"]["User"].split(":")[0] for each in found)}
    for path in sorted(Path(DUMPS).glob("core.*")):
        # core.COMMAND.USER.BOOT.PROCESS.TIME, with other dots than these escaped.
        words = path.name.split(".")
        if words[2:3] and words[2] in users:
            yield f"perhaps every secret of {words[1]} in the core dump {path}"


def in_files(wanted: Needles, passed: set[str]) -> Iterator[str]:
    """Look through the trees, whoever may read what is there."""
    for top in TREES:
        for folder, folders, files in os.walk(top):
            folders[:] = [each for each in folders if f"{folder}/{each}" not in passed]
            for file in files:
                path = Path(folder, file)
                # It may go while others are looked at; pipes and sockets would not end.
                with contextlib.suppress(OSError):
                    seen = path.lstat()
                    if not stat.S_ISREG(seen.st_mode) or seen.st_size > MOST_BYTES:
                        continue
                    for name in names(wanted, path.read_bytes()):
                        readers = "everybody" if seen.st_mode & stat.S_IROTH else "its owner"
                        yield f"{name} in {path} (readable for {readers})"


def complete(places: Iterator[str]) -> set[str]:
    """Give all places; where the look at them breaks off, what was found before is told, too."""
    found: set[str] = set()
    try:
        found.update(places)
    except Exception as error:
        if not found:
            raise
        found.add(f"not all was looked at ({error})")
    return found


def main() -> None:
    """Look everywhere."""
    wanted = needles()
    passed = {*PASSED, *sys.argv[1:]}

    def places(look: Callable[[], Iterator[str]]) -> Callable[[], list[str]]:
        return lambda: sorted(complete(look()))[:MOST_PLACES]

    def on_disk() -> Iterator[str]:
        yield from in_files(wanted, passed | elsewhere(Path("/proc/self/mountinfo").read_text()))
        yield from dumps(containers())

    tell(
        {
            "docker": places(lambda: in_docker(wanted)),
            "processes": places(lambda: in_processes(wanted)),
            "logs": places(lambda: in_logs(wanted)),
            "disk": places(on_disk),
            "searched": lambda: len(wanted),
        },
        at_once=2,
    )


if __name__ == "__main__":
    main()
