"""Engines: their ports are held for them, they can be woken, and none runs unasked."""

from gatehouse.checks.check import Check, Result, silent
from gatehouse.checks.docker import ANSWERS, STACK, Containers
from gatehouse.checks.network import OURS
from gatehouse.checks.probe import nothing, of
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
            needs=(OURS,),
            repair="\n".join(_open(engine) for engine in engines),
        ),
        Check(
            name="engines: can be woken",
            component="engines",
            expected="a container or program, and the model's file, for each",
            command="\n".join(_parts(settings, engine) for engine in engines) + "\ntrue",
            judge=silent,
            fix="gatehouse models pull NAME for a file that is missing; else " + _AGAIN,
            needs=(ANSWERS,),
        ),
        Check(
            name="engines: none runs unasked",
            component="engines",
            expected="only those that somebody uses, and those with boot = always",
            command="\n".join(_unasked(engine) for engine in engines if engine.boot == "never")
            + "\ntrue",
            judge=silent,
            fix="systemctl stop gatehouse-server-NAME; docker stop gatehouse-NAME-1",
            needs=(ANSWERS,),
        ),
        Check(
            name="engines: of the current release",
            component="engines",
            expected="each container with the release's configuration",
            command=STACK,
            judge=_current,
            fix=_AGAIN,
            needs=(ANSWERS,),
        ),
    ]


def _current(code: int, output: str) -> Result:
    """Judge that each engine's container was made from what the release says."""
    wanted: dict[str, str] = {}

    def remember(inputs: dict[str, str]) -> Result:
        wanted.update(inputs)
        return Result(holds=True, found="")

    def compare(containers: Containers) -> Result:
        inputs = {each["service"]: each["inputs"] for each in containers}
        return nothing(
            [f"{name} has another one" for name in wanted if inputs.get(name) != wanted[name]]
        )

    known = of("engines", remember)(code, output)
    return of("containers", compare)(code, output) if known.holds else known


def _port(settings: Settings, engine: Engine) -> str:
    """Print what is wrong with an engine's port: who holds it, and where."""
    unit = f"gatehouse-engine-{engine.name}.socket"
    places = sorted(f"{a}:{engine.port}" for a in ("127.0.0.1", settings.network_subnet[1]))
    return f"""
systemctl is-active --quiet {unit} || echo "{unit} is $(systemctl is-active {unit})"
found=$(ss -Hltn 'sport = :{engine.port}' | awk '{{ print $4 }}' | LC_ALL=C sort -u | xargs)
[ "$found" = "{" ".join(places)}" ] || echo "{engine.name} listens on ${{found:-nothing}}\""""


def _open(engine: Engine) -> str:
    """Open an engine's port again, where systemd does not hold it."""
    unit = f"gatehouse-engine-{engine.name}"
    return (
        f"systemctl is-active --quiet {unit}.socket || {{ systemctl stop {unit}.service; "
        f"systemctl reset-failed {unit}.socket; systemctl start {unit}.socket; }}"
    )


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
