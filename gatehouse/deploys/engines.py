"""Engines: their containers are made, their ports are open, and nothing runs."""

import shlex

from pyinfra import host
from pyinfra.api import StringCommand, operation
from pyinfra.api.deploy import deploy as pyinfra_deploy

from gatehouse.deploys import Commands, progress
from gatehouse.deploys.facts import Containers, Paths, Run
from gatehouse.deploys.files import put
from gatehouse.deploys.gateway import Gateway
from gatehouse.deploys.host import directories
from gatehouse.deploys.packages import present
from gatehouse.deploys.release import directory
from gatehouse.render.engines import UNITS
from gatehouse.settings import Engine
from gatehouse.settings.models import MODEL_NAME

RUNTIME = "/run/gatehouse/engines"
_PLACES = (
    f"{UNITS}/gatehouse-engine-",
    f"{UNITS}/gatehouse-server-",
    "/etc/polkit-1/",
)
_TMPFILES = "/etc/tmpfiles.d/gatehouse.conf"
# The package that lets a group start certain units; older Ubuntus cannot look at a unit's name.
_POLKIT = {"ubuntu 22.04": "policykit-1"}


@pyinfra_deploy("Engines")
def deploy(gateway: Gateway) -> None:
    """Have every engine that is on ready to be woken, and remove those that are off."""
    settings, rendered = gateway.settings, gateway.rendered
    engines = settings.active_engines
    if engines:
        package = _POLKIT.get(gateway.found.system, "polkitd")
        present(name="Install polkit", commands={"pkaction": package})
        models = {settings.models_dir: ("755", "root", "root")}
        directories(name="Make the directories", wanted=models)
    if any(engine.kind == "ollama" and not engine.command for engine in engines):
        path = f"{settings.models_dir}/ollama"
        owned(name="Make Ollama's own folder", path=path, user=settings.engines_user)
    removed(name="Remove what is off", keep=[engine.name for engine in engines])
    files = {
        path: file
        for path, file in rendered.files.items()
        if path in {_TMPFILES, f"{UNITS}/gatehouse-rearm@.service"} or path.startswith(_PLACES)
    }
    put(name="Write the units", files=files)
    runtime(name="Make the runtime directory")
    missing = [e for e in engines if _pulls(gateway, e)]
    if missing:
        pulled(name="Pull the models", engines=[engine.name for engine in missing])
    if rendered.engines:
        created(name="Make the containers", inputs=rendered.engines, release=rendered.release_id)
    if engines:
        always = [engine.name for engine in engines if engine.boot == "always"]
        names = [engine.name for engine in engines]
        listening(name="Open the ports", engines=names, always=always)


def _pulls(gateway: Gateway, engine: Engine) -> bool:
    path = f"{gateway.settings.models_dir}/{engine.file}"
    wanted = gateway.settings.models_pull and engine.repository is not None
    return wanted and path not in gateway.found.model_files


@operation()
def owned(path: str, user: str) -> Commands:
    """Ensure a folder that an engine writes to; `user` is uid:gid, whoever that is on the host."""
    if (
        host.get_fact(Run, command=f"stat -c '%F %a %u:%g' {path}")["out"]
        == f"directory 755 {user}"
    ):
        host.noop(f"{path} is as it should be")
        return
    uid, gid = user.split(":")
    yield StringCommand("install", "-d", "-o", uid, "-g", gid, "-m", "755", path)


@operation()
def runtime() -> Commands:
    """Ensure the directory in which the engines' units keep their state; it is gone at a boot."""
    if RUNTIME in host.get_fact(Paths, paths=[RUNTIME]):
        host.noop(f"{RUNTIME} is there")
        return
    yield StringCommand(f"systemd-tmpfiles --create {_TMPFILES}")


@operation()
def pulled(engines: list[str]) -> Commands:
    """Ensure the model files; asked for by models_pull only."""
    names = shlex.join(engines)
    yield progress.run(
        f"pulling the models of {names}", f"/opt/gatehouse/venv/bin/gatehouse models pull {names}"
    )


@operation()
def removed(keep: list[str]) -> Commands:
    """Ensure that engines which are off have no unit and no container."""
    prefix = f"{UNITS}/gatehouse-engine-"
    listed = host.get_fact(Run, command=f"ls {prefix}*.socket 2>/dev/null || true")["out"].split()
    names = {path.removeprefix(prefix).removesuffix(".socket") for path in listed}
    containers = {
        c.service: c.name
        for c in host.get_fact(Containers)
        if MODEL_NAME.fullmatch(c.service) and c.service not in keep
    }
    off = sorted(names - set(keep))
    for name in off:
        unit = f"gatehouse-engine-{name}"
        units = f"{unit}.socket {unit}.service gatehouse-server-{name}.service"
        yield StringCommand(f"systemctl disable --quiet --now {units}; true")
        yield StringCommand(f"rm -f {' '.join(f'{UNITS}/{each}' for each in units.split())}")
    if off:
        yield StringCommand("systemctl daemon-reload")
    if containers:
        yield StringCommand(f"docker rm --force {' '.join(sorted(containers.values()))}")
    if not off and not containers:
        host.noop("nothing is there that is off")


@operation()
def created(inputs: dict[str, str], release: str) -> Commands:
    """Ensure that each engine's container exists with the current inputs; none is started.

    An engine that is awake is stopped only if what it runs with has changed.
    """
    found = {c.service: c for c in host.get_fact(Containers)}
    right = True
    for name, wanted in inputs.items():
        container = found.get(name)
        if container and container.inputs == wanted and not container.stale:
            continue
        right = False
        if container and container.status == "running":
            units = f"gatehouse-engine-{name}.service gatehouse-server-{name}.service"
            yield StringCommand(f"systemctl stop {units}")
        path = directory(release)
        yield StringCommand(
            f"docker compose --project-directory {path} -f {path}/compose.yaml --profile engines "
            f"create --no-build --force-recreate {name}"
        )
    if right:
        host.noop("the containers are there")


@operation()
def listening(engines: list[str], always: list[str]) -> Commands:
    """Ensure that systemd holds each engine's port, with the units as they are on disk.

    `always`: engines that run from the boot on.
    """
    script = "\n".join(_state(name, runs=name in always) for name in engines)
    seen = host.get_fact(Run, command=f"{script}\ntrue")["out"].splitlines()
    if not seen:
        host.noop("every port is open")
        return
    yield StringCommand("systemctl daemon-reload")
    for name in engines:
        unit = f"gatehouse-engine-{name}"
        if f"{name} port" in seen:
            # A socket does not start while its service runs without it.
            yield StringCommand(f"systemctl stop {unit}.service")
            yield StringCommand(
                f"systemctl enable --quiet {unit}.socket && systemctl restart {unit}.socket"
            )
        if f"{name} boot" in seen:
            verb = "enable" if name in always else "disable"
            yield StringCommand(f"systemctl {verb} --quiet {unit}.service")
        if name in always and f"{name} asleep" in seen:
            yield StringCommand(f"systemctl start --no-block {unit}.service")


def _state(name: str, *, runs: bool) -> str:
    """Give a script that prints what is not as it should be with one engine's units."""
    unit = f"gatehouse-engine-{name}"
    started = f"systemctl show --timestamp=us+utc -p ActiveEnterTimestamp --value {unit}.socket"
    # Without an [Install] section, as all others have it, it is "static".
    boot = "!=" if runs else "="
    asleep = f"systemctl is-active --quiet {unit} || echo '{name} asleep'" if runs else ":"
    return f"""
{{ systemctl is-enabled --quiet {unit}.socket && systemctl is-active --quiet {unit}.socket &&
    [ -z "$(find {UNITS}/{unit}.socket -newermt "$({started})")" ]; }} || echo '{name} port'
systemctl show -p NeedDaemonReload --value {unit}.socket {unit}.service \
gatehouse-server-{name}.service | grep -q yes && echo '{name} reload'
[ "$(systemctl is-enabled {unit}.service 2>/dev/null)" {boot} enabled ] && echo '{name} boot'
{asleep}"""
