"""The release: one directory of rendered files, complete and valid before it becomes current."""

import io
import tarfile

from pyinfra import host
from pyinfra.api import FileUploadCommand, StringCommand, operation
from pyinfra.api.deploy import deploy as pyinfra_deploy

from gatehouse.deploys import Commands
from gatehouse.deploys.facts import Run
from gatehouse.deploys.gateway import Gateway
from gatehouse.render import File

HOME = "/opt/gatehouse"
KEPT = 5


@pyinfra_deploy("Release")
def deploy(gateway: Gateway) -> None:
    """Write the release, validate it, and make it the current one."""
    rendered = gateway.rendered
    written(name="Write the release", files=rendered.release, release=rendered.release_id)
    linked(name="Make it the current one", link="current", release=rendered.release_id)


def directory(release: str) -> str:
    """Give the path of a release."""
    return f"{HOME}/releases/{release}"


@operation()
def written(files: dict[str, File], release: str) -> Commands:
    """Ensure that the release exists, whole: what is there but differs is written anew."""
    path = directory(release)
    sums = "".join(f"{file.sha256}  {name}\n" for name, file in sorted(files.items()))
    check = f"""cd {path} || exit 1
[ -z "$(find . -type f ! -perm 644)" ] && [ "$(find . -type f | wc -l)" = {len(files)} ] || exit 1
sha256sum --quiet -c - <<'SUMS'
{sums}SUMS"""
    if host.get_fact(Run, command=check)["rc"] == 0:
        host.noop(f"release {release} is there")
        return
    new = f"{path}.new"
    yield FileUploadCommand(_tar(files), f"{path}.tar")
    # Validated where it will stand: Compose follows the paths that the files name.
    yield StringCommand(
        f"rm -rf {new} && mkdir -m 755 {new} && tar -x -f {path}.tar -C {new} --no-same-owner && "
        f"docker compose --project-directory {new} -f {new}/compose.yaml config --quiet && "
        f"rm -rf {path} {path}.tar && mv {new} {path}"
    )


@operation()
def linked(link: str, release: str) -> Commands:
    """Ensure that `/opt/gatehouse/<link>` is this release.

    `current` is what runs, `good` the last one that passed every check and is gone back to. Both
    are kept, and a few more; older ones go, and what a killed run left half-written.
    """
    path = directory(release)
    if host.get_fact(Run, command=f"readlink {HOME}/{link} || true")["out"] == path:
        host.noop(f"release {release} is {link}")
        return
    yield StringCommand(
        f"cd {HOME} && touch {path} && ln -sfn {path} {link}.new && mv -T {link}.new {link}"
    )
    yield StringCommand(
        f"cd {HOME}/releases && rm -rf -- *.tar *.new && "
        f"ls -1td -- */ | tail -n +{KEPT + 1} | while read -r old; do "
        f'case "$(readlink ../current) $(readlink ../good)" in '
        f'*"/${{old%/}}"*) ;; *) rm -rf -- "$old" ;; esac; done'
    )


def restore(timeout_seconds: int) -> str:
    """Give the command that makes the last good release current again and waits until it serves.

    It prints the release that serves then, or nothing where there is none to go back to.
    """
    compose = 'docker compose --project-directory "$old" -f "$old/compose.yaml" up -d --no-build'
    wait = f"--wait --wait-timeout {timeout_seconds}"
    return (
        f'cd {HOME} && old=$(readlink good) && [ -d "$old" ] && '
        f'[ "$old" != "$(readlink current)" ] && ln -sfn "$old" current.new && '
        f"mv -T current.new current && {{ {compose} {wait} postgres redis && "
        f'{compose} --no-deps {wait} litellm; }} >/dev/null 2>&1 && basename "$old"'
    )


def _tar(files: dict[str, File]) -> io.BytesIO:
    """Pack the files; the same files give the same bytes."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, file in sorted(files.items()):
            data = file.content.encode()
            info = tarfile.TarInfo(name)
            info.size, info.mode = len(data), int(file.mode, 8)
            archive.addfile(info, io.BytesIO(data))
    buffer.seek(0)
    return buffer
