"""Model files of a megabyte for a workstation's engines, and ways to make their load harder."""

import base64

from gatehouse.lab.common import LABEL, OF_HELPERS
from gatehouse.lab.engine import engine
from gatehouse.lab.images import MODELS
from gatehouse.lab.progress import Progress
from gatehouse.lab.vm import Vm
from gatehouse.lab.workstation import Workstation

FOLDER = "/var/lib/gatehouse/models"
CHAT, EMBED, RERANK = (f"tiny-{kind}.gguf" for kind in ("chat", "embed", "rerank"))
# Read by the lab's llama-server only, beside the model file: tests/images/llamacpp/llama-server.
WISHES = ".lab"


def install(workstation: Workstation | Vm, progress: Progress | None = None) -> dict[str, str]:
    """Put the model files into the workstation's models folder; gives name -> SHA-256.

    The files are those of an image that `gatehouse.lab.images.ensure` makes, root's and 0644.
    """
    client = engine(progress or Progress())
    holder = client.containers.create(
        MODELS, "never-run", network_mode="none", labels={LABEL: OF_HELPERS}
    )
    try:
        chunks, _ = holder.get_archive("/models")
        archive = b"".join(chunks)
    finally:
        holder.remove(force=True)
    # Only what is missing: the deploy decides about the folders that it makes.
    workstation.exec(f"mkdir -p {FOLDER}")
    # By a detour: the archive would bring the folder's own mode with it.
    workstation.exec(
        "cd /root && base64 -d | tar -x --no-same-owner && "
        f"install -m 0644 -t {FOLDER} models/*.gguf && rm -r models",
        text=base64.b64encode(archive).decode(),
    )
    return checksums(workstation)


def checksums(workstation: Workstation | Vm) -> dict[str, str]:
    """Give name -> SHA-256 of the model files that the workstation has."""
    found = workstation.exec(f"cd {FOLDER} && sha256sum -- *.gguf").stdout
    return {name: digest for digest, name in (line.split() for line in found.splitlines())}


def behave(  # noqa: PLR0913 - each is a way to behave, and none is the default
    workstation: Workstation,
    model: str,
    *,
    load_seconds: float = 0,
    fail: bool = False,
    never_ready: bool = False,
    tokens_per_second: float = 0,
) -> None:
    """Say how the engines of a model file behave from their next start on; nothing: as they are.

    `load_seconds`: answer 503 for so long before the load. `fail`: die then. `never_ready`: answer
    503 for ever. `tokens_per_second`: generate no faster. Needs the lab's own llama.cpp image.
    """
    wishes = {
        "LAB_LOAD_SECONDS": load_seconds,
        "LAB_FAIL": int(fail),
        "LAB_NEVER_READY": int(never_ready),
        "LAB_TOKENS_PER_SECOND": tokens_per_second,
    }
    lines = "".join(f"{name}={value}\n" for name, value in wishes.items() if value)
    path = f"{FOLDER}/{model}{WISHES}"
    workstation.exec(f"cat > {path}" if lines else f"rm -f {path}", text=lines)
