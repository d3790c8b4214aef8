"""Images: on the host, and those that they should be, before anything is switched to them."""

import os
import shlex
from collections.abc import Mapping, Sequence
from getpass import getuser
from pathlib import Path

from pyinfra import host, logger
from pyinfra.api import StringCommand, operation
from pyinfra.api.deploy import deploy as pyinfra_deploy
from pyinfra.api.exceptions import DeployError

from gatehouse.deploys import Commands, progress, upgrade
from gatehouse.deploys.facts import DOCKER_ROOT, Images, Run
from gatehouse.deploys.gateway import Gateway, this_gateway
from gatehouse.images import by_digest, ids
from gatehouse.render import Machine, references
from gatehouse.settings import Settings
from gatehouse.signature import Signer, repository

ARCHIVE = "/var/lib/gatehouse/images.tar"
# One line for each image whose signature was verified: its ID, and who signed it.
SIGNED = "/var/lib/gatehouse/signed"
# A reference that was pulled has a digest of its registry; that is what somebody has signed.
_VERIFY = """
id=$(docker image inspect -f '{{{{.Id}}}}' {image}) || exit 1
grep -qxF "$id "{name} {file} 2>/dev/null && exit 0
digest={digest}
digests='{{{{range .RepoDigests}}}}{{{{println .}}}}{{{{end}}}}'
[ -n "$digest" ] ||
    digest=$(docker image inspect -f "$digests" {image} | grep -F {repository}@ | head -n 1)
[ -n "$digest" ] || {{ echo {nowhere} >&2; exit 1; }}
folder=$(mktemp -d) || exit 1
trap 'rm -rf "$folder"' EXIT
printf %s {key} >"$folder/key.pub"
HOME=/root cosign verify {arguments} "$digest" >/dev/null 2>"$folder/words" || {{
    tail -n 15 "$folder/words" >&2
    echo {unsigned} >&2
    exit 1
}}
echo "$id "{name} >>{file}
"""
# hold NAME IDS WORDS BEFORE: ends with 1, and puts the image from before back under the name, where
# that is none of the locked ones now.
_HOLD = """
id_of() { docker image inspect -f '{{.Id}}' "$1" 2>/dev/null; }
hold() {
    now=$(id_of "$1") || return 0
    case " $2 " in *" $now "*) return 0 ;; esac
    echo "$3 $now: make it again of what is locked, or lock anew (make lock)" >&2
    docker rmi "$1" >/dev/null 2>&1
    [ -z "$4" ] || docker tag "$4" "$1"
    return 1
}"""
_LOAD = f"docker load --quiet --input {ARCHIVE}\ncode=$?"


@pyinfra_deploy("Images")
def deploy(gateway: Gateway) -> None:
    """Pull the images, or load them from the archive that the operator carries over."""
    _bring(gateway)


@pyinfra_deploy("Images")
def fetch() -> None:
    """Bring the images to the host, and do nothing else: `gatehouse upgrade --fetch`."""
    _bring(this_gateway("fetch images"))


def _bring(gateway: Gateway) -> None:
    settings = gateway.settings
    names = wanted(settings, gateway.machine)
    locked = {each: ids(gateway.lock, each) for each in names}
    _say(gateway, names)
    if settings.images_source == "registry":
        pulled(name="Pull the images", references=names)
        if gateway.signer and gateway.found.cosign:
            verified(
                name="Verify who signed LiteLLM's image",
                image=settings.litellm_image,
                signer=gateway.signer,
            )
    else:
        _carried(gateway, names, locked)
    upgrade.known(name="Have images that know the database", settings=settings)


def _carried(gateway: Gateway, names: list[str], locked: dict[str, list[str]]) -> None:
    settings = gateway.settings
    _refuse_others(locked)
    archive = Path(settings.images_archive or "")
    # A host that has every image needs no archive: an operator may throw it away afterwards.
    if (problem := _unreadable(archive)) and _missing(names):
        raise DeployError(f"images_archive = {archive}: {problem}; the host lacks images")
    loaded(
        name="Load the images from the archive",
        references=names,
        archive=str(archive),
        locked=locked,
    )


def _unreadable(archive: Path) -> str | None:
    """Say why nobody can read the archive: who deploys may not look into every folder."""
    try:
        there = archive.is_file()
    except PermissionError:
        return f"{getuser()} may not look there on this machine: move it"
    if not there:
        return (
            "there is no such file on this machine: make it (docs/airgap.md), or correct the path"
        )
    return None if os.access(archive, os.R_OK) else f"{getuser()} may not read it: change its mode"


def wanted(settings: Settings, machine: Machine) -> list[str]:
    """Give the image references that the stack and its engines run with."""
    return references(settings, machine)


@operation()
def pulled(references: list[str]) -> Commands:
    """Ensure that the host has each image, from its registry."""
    missing = _missing(references)
    for number, image in enumerate(missing, start=1):
        yield progress.run(
            f"pulling {image} ({number} of {len(missing)})",
            f"docker pull --quiet {shlex.quote(image)} || {{ echo "
            f"'cannot pull {image}: is a registry reachable from this host? Without one, set "
            'images_source = "archive" (docs/airgap.md)\' >&2; exit 1; }',
        )
    if not missing:
        host.noop("the images are there")


@operation()
def verified(image: str, signer: Signer) -> Commands:
    """Ensure that the image's signature was verified, once for each image and signer."""
    present = host.get_fact(Images, references=[image]).get(image)
    line = shlex.quote(f"{present} {signer.name}")
    if present and host.get_fact(Run, command=f"grep -qxF {line} {SIGNED}")["rc"] == 0:
        host.noop(f"it was signed by {signer.name}")
        return
    name = repository(image)
    digest = f"{name}@{image.partition('@')[2]}" if "@" in image else ""
    key = ["--key", '"$folder/key.pub"'] if signer.key else []
    yield progress.run(
        f"verifying that {signer.name} signed {image}",
        _VERIFY.format(
            image=shlex.quote(image),
            file=SIGNED,
            name=shlex.quote(signer.name),
            digest=shlex.quote(digest),
            nowhere=shlex.quote(
                f"{image} came from no registry, so nobody can say who signed it: remove it "
                "(docker rmi) and deploy again, or set images_cosign"
            ),
            unsigned=shlex.quote(
                f"{image} is not verified to be signed by {signer.name}; nothing was switched. "
                "docs/supply.md says what to look at"
            ),
            repository=shlex.quote(name),
            key=shlex.quote(signer.key),
            arguments=" ".join([*key, *map(shlex.quote, signer.arguments)]),
        ),
    )


@operation()
def loaded(references: list[str], archive: str, locked: dict[str, list[str]]) -> Commands:
    """Ensure that the host has each image, from an archive on the operator's machine.

    An archive has no digests of a registry; what is locked is known by its ID.
    """
    missing = _missing(references)
    if missing:
        size = Path(archive).stat().st_size
        yield progress.run("looking for room for the archive", room(size))
        yield progress.upload(f"uploading {archive} ({size / 1e6:.0f} MB)", archive, ARCHIVE)
        yield progress.run("loading the images", load(archive, locked, missing))
    # Also what a run that died in the middle has left.
    if missing or host.get_fact(Run, command=f"test -e {ARCHIVE}")["rc"] == 0:
        yield StringCommand("rm", "-f", ARCHIVE)
    else:
        host.noop("the images are there")


def room(
    size: int, folder: str = str(Path(ARCHIVE).parent), docker: str = f"$({DOCKER_ROOT})"
) -> str:
    """Give the command that fails where the archive, and the images out of it, do not fit."""
    return f"""
needed={size // 2**20 + 1}
[ "$(stat -c %d {folder})" != "$(stat -c %d "{docker}")" ] || needed=$((2 * needed))
free=$(df -Pm {folder} | awk 'NR == 2 {{ print $4 }}')
[ "$free" -ge "$needed" ] || {{
    echo "$free MiB are free on {folder}, $needed MiB are needed for the archive of the images:" \\
        "free some space" >&2
    exit 1
}}"""


def load(archive: str, locked: Mapping[str, list[str]], missing: Sequence[str]) -> str:
    """Give the command that fails unless the archive brought what was missing, as it was locked.

    Docker gives every name that an archive holds to the archive's image, also where the host has
    the name already: what is locked and became another image is what it was before again.
    """
    names = [image for image, ids in locked.items() if ids]
    before = [f"before{n}=$(id_of {shlex.quote(name)})" for n, name in enumerate(names)]
    held = []
    for n, name in enumerate(names):
        words = f"the archive {archive} holds another {name} than images.lock says:"
        ids = " ".join(locked[name])
        held.append(f'hold {shlex.join([name, ids, words])} "$before{n}" || code=1')
    there = []
    for name in missing:
        words = f"the archive {archive} does not hold {name}: make it again, or name the images "
        words += "that it holds (docs/airgap.md)"
        there.append(
            f"id_of {shlex.quote(name)} >/dev/null || {{ echo {shlex.quote(words)} >&2; exit 1; }}"
        )
    return "\n".join([_HOLD, *before, _LOAD, *held, "[ $code = 0 ] || exit $code", *there])


def _refuse_others(locked: dict[str, list[str]]) -> None:
    """Raise `DeployError` where the host has another image under a name than the locked one."""
    present = host.get_fact(Images, references=list(locked))
    other = [
        f"  - {image} is {found}"
        for image, found in present.items()
        if locked[image] and found not in locked[image]
    ]
    if other:
        lines = "\n".join(other)
        raise DeployError(
            "images on this host are not those of images.lock, nothing was switched:\n"
            f"{lines}\nremove them (docker rmi) and deploy with the right archive, or lock anew"
        )


def _say(gateway: Gateway, references: list[str]) -> None:
    """Say what is held by its digest, and what is not."""
    loose = [each for each in references if not by_digest(gateway.lock, each)]
    held = f"{len(references) - len(loose)} of {len(references)} images by digest"
    words = f"; by tag alone: {', '.join(loose)} (make lock)" if loose else ""
    logger.info(f"    {held}{words}")
    if gateway.unsigned or not gateway.found.cosign:
        why = gateway.unsigned or "cosign is not on this host"
        logger.info(f"    nobody's signature of LiteLLM's image is verified: {why}")


def _missing(references: list[str]) -> list[str]:
    present = host.get_fact(Images, references=references)
    return [image for image in references if image not in present]
