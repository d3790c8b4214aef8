"""A host that pyinfra's `@fake` connector plays: it answers from a script and changes nothing."""

from pathlib import Path
from typing import Any

from gatehouse import wheels
from gatehouse.checks import Check, commands, every
from gatehouse.deploys.host import DIRECTORIES, READERS
from gatehouse.deploys.secrets import DIRECTORY, GROUP, PROVIDERS
from gatehouse.render.tree import SECRETS
from tests import probes
from tests.given import BARE_HOST, rendered, settings

# A part of a remote command → the lines that it prints; the first part that is found counts.
Answers = dict[str, list[str]]


def bare(**changes: str) -> Answers:
    """Give a host on which nothing was ever deployed, with changed lines of HostFact."""
    lines = dict(line.split("=", 1) for line in BARE_HOST.splitlines()) | changes
    return {
        "id -u": ["root"],
        "/etc/os-release": [f"{key}={value}" for key, value in lines.items()],
        # Every check fails: there is nothing yet.
        "\\036": ["\x1e1"] * len(commands(every(settings()))),
        "is-enabled --quiet gatehouse-back.service": ["1"],
        "is-enabled": ["disabled", "stopped", "0"],
        "import gatehouse.tool": ["1"],
        "platform.machine": ["3.13 x86_64", "0"],
        "for c in restic": ["restic", "0"],
        "command -v": ["iptables", "0"],
        "docker exec": ["No such container", "1"],
        "sha256sum --quiet": ["1"],
        "echo $rc": ["0"],
    }


def deployed() -> Answers:
    """Give a host on which the shipped settings were deployed."""
    tree = rendered()
    paths = [
        f"{path}|directory|{mode}|{owner}|{'gatehouse' if group is READERS else group}"
        for path, (mode, owner, group) in DIRECTORIES.items()
    ]
    paths.append("/run/gatehouse/engines|directory|755|root|root")
    paths.append(f"{PROVIDERS}|directory|750|root|{GROUP}")
    paths += [f"{DIRECTORY}/{name}|regular file|440|root|{GROUP}" for name in SECRETS]
    for path, file in tree.files.items():
        paths += [
            f"{path}|regular file|{file.mode}|{file.owner}|{file.group}",
            f"{file.sha256}  {path}",
        ]
    daemon = tree.files["/etc/docker/daemon.json"].content.splitlines()
    release = f"/opt/gatehouse/releases/{tree.release_id}"
    s = settings()
    containers = [
        f"gatehouse-{service}-1|{service}|{digest}|"
        + ("exited|none" if service == "litellm-migrate" else "running|healthy")
        + "|0|image|no"
        for service, digest in tree.inputs.items()
    ]
    return {
        "id -u": ["root"],
        "/etc/os-release": [
            *BARE_HOST.splitlines(),
            "engine=28.3.3",
            "compose=2.39.1",
            *(f"daemon_json={line}" for line in daemon),
        ],
        "\\036": [line for each in rights().values() for line in (each, "\x1e0")],
        "%n|%F|%a|%U|%G": paths,
        "gatehouse.inputs": containers,
        "for image in": [
            f"{image} id" for image in (s.postgres_image, s.redis_image, s.litellm_image)
        ],
        "cat /etc/gatehouse/docker-daemon.json": daemon,
        "cat /opt/gatehouse/good/manifest.json": [
            *tree.release["manifest.json"].content.splitlines(),
            "0",
        ],
        **{f"cat {path} ": file.content.splitlines() for path, file in tree.files.items()},
        "user_role": ["proxy_admin", "0"],
        "getent group gatehouse-status": ["gatehouse-status:x:991:", "0"],
        "getent group": ["gatehouse:x:990:", f"{GROUP}:x:{s.secrets_gid}:", "0"],
        "import gatehouse.tool": ["0"],
        "ensurepip": ["python3", "0"],
        "readlink /opt/gatehouse/good": [release, "0"],
        "readlink /opt/gatehouse/venv": [
            f"/opt/gatehouse/venvs/{wheels.identity()} /opt/gatehouse/venv/bin/gatehouse",
            "0",
        ],
        "readlink": [release, "0"],
        f"cd {release} ": ["0"],
        "sha256sum --quiet": ["1"],
        "echo $rc": ["0"],
    }


def rights() -> dict[str, str]:
    """Give command → an output with which every check of it holds."""
    known = probes.answers(settings(), rendered())
    return {check.command: right(check, known) for check in every(settings())}


def right(check: Check, known: dict[str, str]) -> str:
    """Give an output with which the check holds."""
    outputs = (known.get(check.command, ""), check.expected)
    return next(output for output in outputs if check.judge(0, output).holds)


def inventory(path: Path, answers: Answers, **data: object) -> None:
    """Write an inventory of one fake host that answers so, with settings of its own."""
    everything: dict[str, Any] = {"fake_responses": answers, "fake_delay": 0} | data
    everything["fake_delay_jitter"] = 0
    path.write_text(f"boxes = [('@fake/box', {everything!r})]\n")
