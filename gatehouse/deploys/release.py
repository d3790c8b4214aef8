"""The release: one directory of rendered files, complete and valid before it becomes current."""

import io
import json
import shlex
import tarfile
from typing import Any

from pyinfra import host
from pyinfra.api import FileUploadCommand, StringCommand, operation
from pyinfra.api.deploy import deploy as pyinfra_deploy

from gatehouse.deploys import Commands, progress
from gatehouse.deploys.facts import Containers, Run
from gatehouse.deploys.files import put
from gatehouse.deploys.gateway import Gateway
from gatehouse.deploys.lock import operator
from gatehouse.render import File
from gatehouse.render import release as render
from gatehouse.render.valid import references
from gatehouse.settings import Settings
from gatehouse.tool import release_store

HOME = "/opt/gatehouse"
PYTHON = f"{HOME}/venv/bin/python -I -m gatehouse.tool"
_CONFIG = "litellm/config.yaml"
_JOB = "litellm-migrate"
# Says where a reference means another image than it did.
_SAME = """[ ! -e {kept}.images ] || while read -r id name; do
    [ "$(docker image inspect -f '{{{{.Id}}}}' "$name" 2>/dev/null)" = "$id" ] || echo changed
done <{kept}.images"""
# It calls a configuration fine whose models it cannot make (an unknown provider), and serves
# without them (1.108.7).
_READ = """
said=$(docker run {words} 2>&1)
code=$?
printf '%s\\n' "$said" | grep -o 'Error creating deployment: [^"\\\\]*' >&2 && exit 1
[ $code = 0 ] || printf '%s\\n' "$said" | tail -n 20 >&2
exit $code"""


@pyinfra_deploy("Release")
def deploy(gateway: Gateway) -> None:
    """Write the release, validate it, and make it the current one."""
    rendered, settings = gateway.rendered, gateway.settings
    put(name="Write the unit of the way back", files=render.files())
    enabled(name="Have it look at each boot", unit=render.UNIT)
    written(name="Write the release", files=rendered.release, release=rendered.release_id)
    if settings.deploy_validate:
        validated(
            name="Have LiteLLM read its configuration",
            files=rendered.release,
            release=rendered.release_id,
            image=rendered_image(gateway, "litellm"),
            settings=settings,
        )
    dumped(
        name="Dump the database before its server changes",
        release=rendered.release_id,
        image=rendered_image(gateway, "postgres"),
        inputs=rendered.inputs[_JOB],
    )
    linked(name="Make it the current one", release=rendered.release_id)


def directory(release: str) -> str:
    """Give the path of a release."""
    return f"{HOME}/releases/{release}"


def rendered_image(gateway: Gateway, service: str) -> str:
    """Give the image of a service, as the release names it."""
    manifest = json.loads(gateway.rendered.release["manifest.json"].content)
    return str(manifest["services"][service]["image"])


def good() -> dict[str, Any]:
    """Give the manifest of the release that is gone back to; empty where there is none."""
    seen = host.get_fact(Run, command=f"cat {HOME}/good/manifest.json 2>/dev/null")
    try:
        found = json.loads(seen["out"]) if seen["rc"] == 0 else {}
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def migrates(inputs: str) -> bool:
    """Tell whether the job that migrates the database will run; `inputs` are the new ones."""
    jobs = [c for c in host.get_fact(Containers) if c.service == _JOB]
    return not any(
        job.inputs == inputs and not job.stale and job.status == "exited" and job.exit_code == 0
        for job in jobs
    )


@operation()
def enabled(unit: str) -> Commands:
    """Ensure that a unit is started at a boot; not now."""
    if host.get_fact(Run, command=f"systemctl is-enabled --quiet {unit}")["rc"] == 0:
        host.noop(f"{unit} is enabled")
        return
    yield StringCommand(f"systemctl daemon-reload && systemctl enable --quiet {unit}")


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
    yield FileUploadCommand(_tar(files), f"{path}.tar")
    yield StringCommand(unpack(path))


def unpack(path: str) -> str:
    """Give the command that makes a release of its archive, valid and whole before it has its name.

    Validated where it will stand: Compose follows the paths that the files name. On the disk first:
    a power cut would leave files without content.
    """
    new = f"{path}.new"
    return (
        f"rm -rf {new} && mkdir -m 755 {new} && tar -x -f {path}.tar -C {new} --no-same-owner && "
        f"docker compose --project-directory {new} -f {new}/compose.yaml config --quiet && "
        f"sync -f {new} && rm -rf {path} {path}.tar && mv {new} {path}"
    )


@operation()
def validated(files: dict[str, File], release: str, image: str, settings: Settings) -> Commands:
    """Ensure that LiteLLM of this image can read the configuration, where either is new.

    Before the first release serves there is nothing to protect: its start says the same, sooner.
    """
    before = good()
    if not before:
        host.noop("nothing serves yet")
        return
    known = before["files"].get(f"{HOME}/current/{_CONFIG}", {}).get("sha256")
    if (known, before["services"]["litellm"]["image"]) == (files[_CONFIG].sha256, image):
        host.noop("image and configuration are those of the good release")
        return
    # No secret is needed to read it, so it gets none.
    names = sorted(references(files[_CONFIG].content))
    options = [
        *("--rm", "--network=none", "--read-only", "--cap-drop=ALL"),
        *("--security-opt=no-new-privileges", f"--user={settings.litellm_user}"),
        *(
            "--tmpfs=/tmp:mode=1777,size=512m",
            f"--volume={directory(release)}/litellm:/etc/gatehouse:ro",
        ),
        *("--env=XDG_CACHE_HOME=/tmp/cache", "--env=LITELLM_LOCAL_MODEL_COST_MAP=True"),
        *("--env=LITELLM_OFFLINE_MODE=true", "--env=LITELLM_LOG=ERROR"),
        *(f"--env={name}=sk-not-a-secret" for name in names),
        "--entrypoint=/app/docker/prod_entrypoint.sh",
    ]
    words = shlex.join(
        [*options, image, "--config=/etc/gatehouse/config.yaml", "--validate_config"]
    )
    yield progress.run("having LiteLLM read its configuration", _READ.format(words=words))


@operation()
def dumped(release: str, image: str, inputs: str) -> Commands:
    """Ensure a dump where the server of the database changes, and room for one where that migrates.

    What was dumped here is for a person: the data directory stays what it is.
    """
    before = good()
    if not before:
        host.noop("there is no database yet")
        return
    changed = before["services"]["postgres"]["image"] != image
    if not changed and not migrates(inputs):
        host.noop("the database stays as it is")
        return
    up = any(each.service == "postgres" and each.ready for each in host.get_fact(Containers))
    if not changed and not up:
        # After `docker compose down`. Room is looked for again when the migration comes.
        host.noop("the database is asked when its server runs again")
        return
    how = "running" if changed else "room"
    yield progress.run("dumping the database", f"{PYTHON}.release_database {how} {release}")


@operation()
def linked(release: str) -> Commands:
    """Ensure that `/opt/gatehouse/current` is this release."""
    path = directory(release)
    if host.get_fact(Run, command=f"readlink {HOME}/current || true")["out"] == path:
        host.noop(f"release {release} is current")
        return
    yield StringCommand(f"cd {HOME} && ln -sfn {path} current.new && mv -T current.new current")


@operation()
def remembered(release: str, number: int) -> Commands:
    """Ensure that `/opt/gatehouse/good` is this release, which has passed every check.

    It is gone back to. What it placed is kept for that; releases that are too old go, with their
    images.
    """
    path = directory(release)
    kept = f"/var/lib/gatehouse/releases/{release}"
    check = (
        f"readlink {HOME}/good; tar --compare --file={kept}.tar --directory=/ >/dev/null 2>&1 && "
        f'[ "$(readlink {kept}.venv)" = "$(readlink {HOME}/venv)" ] && '
        # A rollback that did not end is overtaken.
        f"[ ! -e {release_store.ROLLBACK} ] && "
        f"[ -e {kept}.images ] || echo changed\n{_SAME.format(kept=kept)}"
    )
    if host.get_fact(Run, command=check)["out"] == path:
        host.noop(f"release {release} is good")
        return
    words = shlex.join([release, operator(), str(number)])
    yield progress.run("remembering the release as good", f"{PYTHON}.release_good {words}")


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
