"""Files on the host, written whole: the old content stays until the new one is complete."""

from io import StringIO

from pyinfra import host
from pyinfra.api import FileUploadCommand, StringCommand, operation

from gatehouse.deploys import Commands
from gatehouse.deploys.facts import Paths
from gatehouse.render import File


@operation()
def put(files: dict[str, File]) -> Commands:
    """Ensure that each path holds the file's content with its owner and mode.

    Not for secrets: what is uploaded passes through a directory that others can read.
    """
    found = host.get_fact(Paths, paths=list(files))
    right = True
    for path, file in files.items():
        stat = found.get(path)
        if stat and (stat.sha256, stat.mode, stat.owner, stat.group) == (
            file.sha256,
            file.mode,
            file.owner,
            file.group,
        ):
            continue
        right = False
        new = f"{path}.new"
        yield FileUploadCommand(StringIO(file.content), new)
        yield StringCommand(
            f"chown {file.owner}:{file.group} {new} && chmod {file.mode} {new} && mv {new} {path}"
        )
    if right:
        host.noop(f"{len(files)} files are as they should be")
