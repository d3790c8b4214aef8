"""Docker: the daemon is hardened, and so is every container; each is the current release's."""

from typing import Any

from gatehouse.checks.check import Check, Result
from gatehouse.checks.probe import nothing, of, probe, same
from gatehouse.settings import Settings

_AGAIN = "deploy again: pyinfra inventory deploy.py"
STACK = probe("stack")
ANSWERS = "docker: the engine answers"
# Below it the deploy refuses a host.
FLOOR = 25
Containers = list[dict[str, Any]]


def _version(version: str) -> Result:
    major = version.split(".", maxsplit=1)[0]
    return Result(major.isdigit() and int(major) >= FLOOR, version)


def hardened(containers: Containers) -> Result:
    """Judge that no container may do more than it was given."""
    found = []
    for each in containers:
        wrong = [
            word
            for word, right in {
                "not read-only": each["read_only"],
                "has capabilities": each["cap_drop"] == ["ALL"] and not each["cap_add"],
                "may gain privileges": each["security_opt"] == ["no-new-privileges:true"]
                and not each["privileged"],
                "is root": each["user"].split(":")[0] not in ("", "0", "root"),
                "has no memory limit": each["memory"] > 0,
                "has no CPU limit": each["cpus"] > 0,
                "has no process limit": each["pids"] > 0,
                "has the Docker socket": not any("docker.sock" in m for m in each["mounts"]),
            }.items()
            if not right
        ]
        found += [f"{each['name']} {word}" for word in wrong]
    if not containers:
        return Result(holds=False, found="no container")
    return nothing(found)


def _newest(containers: Containers) -> Result:
    return nothing(
        [f"{c['name']}: its image has been replaced" for c in containers if not c["newest"]]
    )


def _locked(code: int, output: str) -> Result:
    """Judge that each container whose image is locked runs one of the IDs that the lock allows."""
    locked: dict[str, list[str]] = {}

    def remember(images: dict[str, list[str]]) -> Result:
        locked.update(images)
        return Result(holds=True, found="")

    def compare(containers: Containers) -> Result:
        found = [
            f"{each['name']} runs {each['image_id']}, which is not the locked {each['image']}"
            for each in containers
            if locked.get(each["image"]) and each["image_id"] not in locked[each["image"]]
        ]
        return nothing(found)

    known = of("images", remember)(code, output)
    return of("containers", compare)(code, output) if known.holds else known


def current(service: str) -> Check:
    """Give the check that a service runs with the inputs and the image of the current release."""

    def judge(code: int, output: str) -> Result:
        wanted: dict[str, Any] = {}

        def remember(services: dict[str, Any]) -> Result:
            wanted.update(services.get(service, {}))
            return Result(bool(wanted), f"the release knows no {service}")

        known = of("release", remember)(code, output)
        if not known.holds:
            return known

        def compare(containers: Containers) -> Result:
            mine = [each for each in containers if each["service"] == service]
            if len(mine) != 1:
                return Result(holds=False, found=f"{len(mine)} containers")
            other = [key for key in ("inputs", "image") if mine[0][key] != wanted[key]]
            words = [f"{key} {mine[0][key]}, not {wanted[key]}" for key in other]
            return Result(not other, ", ".join(words) or mine[0]["image"])

        return of("containers", compare)(code, output)

    return Check(
        name=f"{service}: of the current release",
        component=service,
        expected="one container, with the release's image and configuration",
        command=STACK,
        judge=judge,
        fix=_AGAIN,
        needs=(ANSWERS,),
    )


def checks(settings: Settings) -> list[Check]:
    """Give the checks of the engine and of how containers run."""
    live = settings.docker_live_restore
    return [
        Check(
            name=ANSWERS,
            component="docker",
            expected=f"version {FLOOR} or newer",
            command=STACK,
            judge=of("version", _version),
            fix="systemctl status docker; journalctl -u docker -n 50; systemctl restart docker",
            repair="systemctl start docker.service",
        ),
        Check(
            name="docker: live restore as set",
            component="docker",
            expected=str(live).lower(),
            command=STACK,
            judge=of("live_restore", same(live)),
            fix="look at /etc/docker/daemon.json, then: systemctl restart docker",
            needs=(ANSWERS,),
        ),
        Check(
            name="docker: containers are hardened",
            component="docker",
            expected="read-only, no capabilities, no new privileges, not root, limits set",
            command=STACK,
            judge=of("containers", hardened),
            fix=_AGAIN,
            needs=(ANSWERS,),
        ),
        Check(
            name="docker: images are those that the containers run",
            component="docker",
            expected="no image has been replaced under its name",
            command=STACK,
            judge=of("containers", _newest),
            fix=_AGAIN,
            needs=(ANSWERS,),
        ),
        Check(
            name="docker: locked images are those that the containers run",
            component="docker",
            expected="no other image than images.lock says, where it says one",
            command=STACK,
            judge=_locked,
            fix=f"remove the wrong image (docker rmi --force), then {_AGAIN}",
            needs=(ANSWERS,),
        ),
        Check(
            name="docker: containers see the release's files",
            component="docker",
            expected="what is mounted is what was rendered",
            command=STACK,
            judge=of("unlike", nothing),
            fix=_AGAIN,
            needs=(ANSWERS, "host: files are as rendered"),
        ),
    ]
