"""Engines: their ports are held for them, they can be woken, and none runs unasked."""

from gatehouse.checks.check import Check, silent
from gatehouse.settings import Engine, Settings

_AGAIN = "deploy again: pyinfra inventory deploy.py"


def checks(settings: Settings) -> list[Check]:
    """Give the checks of the engines that are on."""
    engines = settings.active_engines
    if not engines:
        return []
    return [
        Check(
            name="engines: ports are held",
            component="engines",
            expected="each on loopback and the bridge's address only, by systemd",
            command="\n".join(_port(settings, engine) for engine in engines) + "\ntrue",
            judge=silent,
            fix="systemctl restart 'gatehouse-engine-*.socket' (or: " + _AGAIN + ")",
        ),
        Check(
            name="engines: can be woken",
            component="engines",
            expected="a container or program, and the model's file, for each",
            command="\n".join(_parts(settings, engine) for engine in engines) + "\ntrue",
            judge=silent,
            fix="gatehouse models pull NAME for a file that is missing; else " + _AGAIN,
        ),
        Check(
            name="engines: none runs unasked",
            component="engines",
            expected="only those that somebody uses, and those with boot = always",
            command="\n".join(_unasked(engine) for engine in engines if engine.boot == "never")
            + "\ntrue",
            judge=silent,
            fix="systemctl stop gatehouse-server-NAME; docker stop gatehouse-NAME-1",
        ),
    ]


def _port(settings: Settings, engine: Engine) -> str:
    """Print what is wrong with an engine's port: who holds it, and where."""
    unit = f"gatehouse-engine-{engine.name}.socket"
    places = sorted(f"{a}:{engine.port}" for a in ("127.0.0.1", settings.network_subnet[1]))
    return f"""
systemctl is-active --quiet {unit} || echo "{unit} is $(systemctl is-active {unit})"
found=$(ss -Hltn 'sport = :{engine.port}' | awk '{{ print $4 }}' | LC_ALL=C sort -u | xargs)
[ "$found" = "{" ".join(places)}" ] || echo "{engine.name} listens on ${{found:-nothing}}\""""


def _parts(settings: Settings, engine: Engine) -> str:
    """Print what an engine lacks."""
    lines = []
    if engine.command:
        lines.append(f"[ -x '{engine.command[0]}' ] || echo '{engine.command[0]} is missing'")
    else:
        name = f"gatehouse-{engine.name}-1"
        lines.append(f"docker inspect {name} >/dev/null 2>&1 || echo 'no container {name}'")
    if engine.file:
        path = f"{settings.models_dir}/{engine.file}"
        lines.append(f"[ -e '{path}' ] || echo '{engine.name}: {path} is missing'")
    return "\n".join(lines)


def _unasked(engine: Engine) -> str:
    """Print an engine that runs though the unit that people and requests start does not."""
    used = f"systemctl is-active --quiet gatehouse-engine-{engine.name}.service"
    loading = (
        f"systemctl list-jobs --no-legend | grep -q ' gatehouse-engine-{engine.name}.service '"
    )
    runs = f"systemctl is-active --quiet gatehouse-server-{engine.name}.service"
    if not engine.command:
        status = f"docker inspect -f '{{{{.State.Running}}}}' gatehouse-{engine.name}-1 2>/dev/null"
        runs = f'{{ {runs} || [ "$({status})" = true ]; }}'
    return (
        f"{runs} && ! {used} && ! {loading} && echo '{engine.name} runs, and nobody asked for it'"
    )
