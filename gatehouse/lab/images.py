"""The images of the lab: the workstation's own, and those that a gateway is made of.

Where an image registry answers, the gateway's images are the official ones that `group_data/all.py`
names. Where none does, stand-ins that keep their contract are built from Debian's, PyPI's and npm's
packages.
"""

import hashlib
import os
import re
import shutil
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Literal

import docker
from docker.errors import APIError, DockerException, ImageNotFound
from docker.models.images import Image

from gatehouse.lab.common import BUILD, LABEL, OF_IMAGES, PREFIX, ROOT, LabError, alone
from gatehouse.lab.engine import install, run_logged
from gatehouse.lab.progress import Progress
from gatehouse.settings import defaults

SUITE = "trixie"
OFFICIAL_ROOTFS = f"debian:{SUITE}-slim"
REGISTRY_SECONDS = 20

# Says what an image was made from, so that only a change makes it again.
RECIPE = f"{LABEL}.recipe"
RECIPES = ROOT / "tests" / "images"
# "built" or "registry" spares the question to the registry.
SOURCE_VARIABLE = "GATEHOUSE_LAB_IMAGES"

BASE = f"{PREFIX}/base:{SUITE}"
ROOTFS = f"{PREFIX}/rootfs:{SUITE}"
HOST = f"{PREFIX}/host:{SUITE}"
BARE = f"{PREFIX}/host:bare"
# QEMU and what makes its disks (gatehouse/lab/vm.py).
VM = f"{PREFIX}/vm:{SUITE}"
# Nothing but the files of gatehouse/lab/models.py; no registry has it.
MODELS = f"{PREFIX}/models:tiny"
# A registry, cosign, and a server of repositories: what stands elsewhere in tests.
SUPPLY = f"{PREFIX}/supply:{SUITE}"
# A name of ours, and the setting that holds the official image's reference.
GATEWAY = {
    "postgres": "postgres_image",
    "redis": "redis_image",
    "litellm": "litellm_image",
    "llamacpp": "engines_llamacpp_image",
}


@dataclass(frozen=True)
class LabImages:
    """References of images that the engine of this machine holds."""

    source: Literal["registry", "built"]
    host: str
    bare: str
    postgres: str
    redis: str
    litellm: str
    llamacpp: str

    @property
    def gateway(self) -> tuple[str, ...]:
        """The images that the host needs to run a gateway and its engines."""
        return (self.postgres, self.redis, self.litellm, self.llamacpp)


@dataclass(frozen=True)
class Recipe:
    """One image to build; `parent` is the recipe of the image it starts from."""

    name: str
    tag: str
    arguments: dict[str, str] = field(default_factory=dict)
    parent: str = ""
    target: str | None = None
    # Files from outside the recipe's folder, by the name that they get in it.
    extra: dict[str, Path] = field(default_factory=dict)

    @property
    def folder(self) -> Path:
        """Where the Dockerfile is."""
        return RECIPES / self.name

    @property
    def digest(self) -> str:
        """A hash of all that the image is made from, its parent's recipe included."""
        found = hashlib.sha256(repr((self.arguments, self.parent, self.target)).encode())
        for name, path in sorted(self._files().items()):
            content = hashlib.sha256(path.read_bytes()).hexdigest()
            found.update(f"{name} {path.stat().st_mode & 0o100:o} {content}\n".encode())
        return found.hexdigest()

    def _files(self) -> dict[str, Path]:
        own = {
            str(path.relative_to(self.folder)): path
            for path in self.folder.rglob("*")
            if path.is_file() and "__pycache__" not in path.parts
        }
        return own | self.extra

    def context(self) -> Path:
        """Give the folder to build in: a copy of the recipe's, where files from outside join it."""
        if not self.extra:
            return self.folder
        copy = BUILD / "context" / self.name
        shutil.rmtree(copy, ignore_errors=True)
        for name, path in self._files().items():
            (copy / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, copy / name)
        return copy


def ensure_hosts(client: docker.DockerClient, progress: Progress) -> dict[str, Recipe]:
    """Build what is missing of the workstation's own images, and give their recipes."""
    with alone(progress):
        recipes = _host_recipes(_ensure_rootfs(client, progress, _source(progress)))
        _ensure_recipes(client, progress, recipes)
    return recipes


def ensure_vm(client: docker.DockerClient, progress: Progress) -> str:
    """Build what is missing of the image that machines are emulated in, and give its reference."""
    base = ensure_hosts(client, progress)["base"].digest
    with alone(progress):
        recipe = Recipe("vm", VM, {"BASE": BASE}, parent=base)
        _ensure_recipes(client, progress, {"vm": recipe})
    return VM


def ensure(client: docker.DockerClient, progress: Progress) -> LabImages:
    """Pull or build what is missing or out of date, and give the references.

    Raises `LabError` with the end of the builder's output when an image cannot be built.
    """
    hosts = ensure_hosts(client, progress)
    source = _source(progress)
    recipes = _gateway_recipes(hosts["base"].digest)
    if source == "registry":
        # llama.cpp's is always ours: tests have it load slowly, fail, and keep a pace.
        recipes = {"llamacpp": recipes["llamacpp"]}
    with alone(progress):
        _ensure_recipes(client, progress, recipes | _models_recipes(hosts["base"].digest))
    references = {name: recipe.tag for name, recipe in recipes.items()}
    named = defaults(ROOT / "group_data" / "all.py")
    for name in GATEWAY.keys() - recipes.keys():
        references[name] = str(named[GATEWAY[name]])
        _pull(client, progress, references[name])
    return LabImages(source=source, host=HOST, bare=BARE, **references)


def ensure_before(client: docker.DockerClient, images: LabImages, progress: Progress) -> str:
    """Have an earlier LiteLLM than the lab's, to upgrade from, and give its reference."""
    version = _locked("litellm-before", "litellm")
    if images.source == "registry":
        name = images.litellm.split("@")[0].rsplit(":", 1)[0]
        _pull(client, progress, f"{name}:v{version}")
        return f"{name}:v{version}"
    recipe = Recipe(
        "litellm-before",
        f"{PREFIX}/litellm:{version}",
        {"BASE": BASE, "LITELLM": images.litellm},
        parent=_recipe_of(client, images.litellm) or "",
        extra=_of_newer(),
    )
    with alone(progress):
        _ensure_recipes(client, progress, {"litellm-before": recipe})
    return recipe.tag


def ensure_supply(client: docker.DockerClient, progress: Progress) -> str:
    """Have what stands elsewhere in tests, of Debian's packages, and give the image's reference."""
    hosts = ensure_hosts(client, progress)
    recipe = Recipe("supply", SUPPLY, {"BASE": BASE}, parent=hosts["base"].digest)
    with alone(progress):
        _ensure_recipes(client, progress, {"supply": recipe})
    return recipe.tag


def identity(client: docker.DockerClient, images: LabImages) -> str:
    """Give a short hash of the gateway's images as they are now."""
    ids = [client.images.get(reference).id or "" for reference in images.gateway]
    return hashlib.sha256("\n".join([*images.gateway, *ids]).encode()).hexdigest()[:12]


def archive(client: docker.DockerClient, images: LabImages, progress: Progress) -> Path:
    """Give a `docker save` archive of the gateway's images, as an air-gapped install carries it."""
    path = BUILD / f"images-{identity(client, images)}.tar"
    with alone(progress):
        if path.exists():
            return path
        BUILD.mkdir(parents=True, exist_ok=True)
        for stale in BUILD.glob("images-*.tar*"):
            stale.unlink()
        unfinished = path.with_suffix(".tar.unfinished")
        with progress.step(f"saving the gateway's images to {path.relative_to(ROOT)}"):
            run_logged(["docker", "save", "--output", str(unfinished), *images.gateway], "archive")
        return unfinished.rename(path)


@cache
def _source(progress: Progress) -> Literal["registry", "built"]:
    wish = os.environ.get(SOURCE_VARIABLE, "")
    if wish == "built":
        return "built"
    if wish == "registry":
        return "registry"
    if wish:
        raise LabError(f"{SOURCE_VARIABLE} is {wish!r}: it can be `built` or `registry`")
    try:
        asking = docker.from_env(timeout=REGISTRY_SECONDS)
        asking.images.get_registry_data(OFFICIAL_ROOTFS)
    except (DockerException, OSError):
        progress.say("no image registry answers: the images are built from packages")
        return "built"
    return "registry"


def _host_recipes(rootfs: str) -> dict[str, Recipe]:
    base = Recipe("base", BASE, {"ROOTFS": rootfs}, parent=rootfs, extra=_certificates())
    bare = Recipe("host", BARE, {"BASE": BASE}, parent=base.digest, target="bare")
    return {"base": base, "bare": bare, "host": replace(bare, tag=HOST, target="engine")}


def _gateway_recipes(base: str) -> dict[str, Recipe]:
    tags = {
        "postgres": f"{PREFIX}/postgres:17",
        "redis": f"{PREFIX}/redis:8",
        "litellm": f"{PREFIX}/litellm:{_locked('litellm')}",
        "llamacpp": f"{PREFIX}/llamacpp:{_locked('llamacpp', 'xllamacpp')}",
    }
    targets = {"llamacpp": "server"}
    return {
        name: Recipe(name, tag, {"BASE": BASE}, parent=base, target=targets.get(name))
        for name, tag in tags.items()
    }


def _models_recipes(base: str) -> dict[str, Recipe]:
    return {"models": Recipe("llamacpp", MODELS, {"BASE": BASE}, parent=base, target="models")}


def _of_newer() -> dict[str, Path]:
    """Give the files of LiteLLM's recipe that the earlier one is made with too."""
    newer = RECIPES / "litellm"
    found = [newer / "slim.py", newer / "prisma", *(newer / "engine").glob("*")]
    return {str(path.relative_to(newer)): path for path in found if path.is_file()}


def _certificates() -> dict[str, Path]:
    """Give the bundle of a machine that trusts more than its distribution does."""
    for variable in ("SSL_CERT_FILE", "PIP_CERT"):
        path = Path(os.environ.get(variable, ""))
        if path.is_file():
            return {"ca-certificates.crt": path}
    return {}


def _locked(recipe: str, package: str = "") -> str:
    """Give the version of the package that the image is made for."""
    lock = RECIPES / recipe / "requirements.txt"
    text = lock.read_text() if lock.exists() else ""
    name = package or recipe
    if found := re.search(rf"^{name}(?:\[.*\])?==([\w.]+)", text, re.MULTILINE):
        return found[1]
    raise LabError(f"expected a line `{name}==VERSION` in {lock}, found none")


def _ensure_rootfs(
    client: docker.DockerClient, progress: Progress, source: Literal["registry", "built"]
) -> str:
    if source == "registry":
        _pull(client, progress, OFFICIAL_ROOTFS)
        return OFFICIAL_ROOTFS
    options = RECIPES / "base" / "dpkg.cfg"
    digest = hashlib.sha256(SUITE.encode() + options.read_bytes()).hexdigest()
    if _recipe_of(client, ROOTFS) == digest:
        return ROOTFS
    install({"mmdebstrap": "mmdebstrap"}, progress)
    BUILD.mkdir(parents=True, exist_ok=True)
    tar = BUILD / "rootfs.tar"
    with progress.step("making a Debian 13 of packages"):
        # Without a mirror argument mmdebstrap takes its own default, and writes it into the guest.
        run_logged(
            ["mmdebstrap", "--variant=minbase", f"--dpkgopt={options}", SUITE, str(tar)], "rootfs"
        )
        label = f"LABEL {LABEL}={OF_IMAGES} {RECIPE}={digest}"
        run_logged(["docker", "import", "--change", label, str(tar), ROOTFS], "rootfs-import")
    tar.unlink()
    return ROOTFS


def _ensure_recipes(
    client: docker.DockerClient, progress: Progress, recipes: dict[str, Recipe]
) -> None:
    stale = [each for each in recipes.values() if _recipe_of(client, each.tag) != each.digest]
    for number, recipe in enumerate(stale, start=1):
        title = recipe.tag.removeprefix(f"{PREFIX}/")
        before = _image(client, recipe.tag)
        with progress.step(f"building the image {title} ({number}/{len(stale)})"):
            _build(recipe)
        if before and before.id != client.images.get(recipe.tag).id:
            with suppress(APIError):  # others are still made from it
                client.images.remove(before.id or "")


def _build(recipe: Recipe) -> None:
    command = ["docker", "build", "--network", "host", "--tag", recipe.tag]
    for label in (f"{LABEL}={OF_IMAGES}", f"{RECIPE}={recipe.digest}"):
        command += ["--label", label]
    for name, value in recipe.arguments.items():
        command += ["--build-arg", f"{name}={value}"]
    if recipe.target:
        command += ["--target", recipe.target]
    # The classic builder: BuildKit is a plugin that Debian 12's Docker does not have.
    run_logged([*command, str(recipe.context())], f"build-{recipe.name}", {"DOCKER_BUILDKIT": "0"})


def _recipe_of(client: docker.DockerClient, reference: str) -> str | None:
    image = _image(client, reference)
    return image.labels.get(RECIPE) if image else None


def _image(client: docker.DockerClient, reference: str) -> Image | None:
    try:
        return client.images.get(reference)
    except ImageNotFound:
        return None


def _pull(client: docker.DockerClient, progress: Progress, reference: str) -> None:
    if _image(client, reference):
        return
    with progress.step(f"pulling {reference}"):
        try:
            client.images.pull(reference)
        except DockerException as error:
            raise LabError(f"cannot pull {reference}: {error}") from error
