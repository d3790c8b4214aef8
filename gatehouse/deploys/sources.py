"""Package repositories of others, each trusted by one key of its own."""

import shlex
from dataclasses import dataclass
from io import StringIO
from pathlib import Path

from pyinfra import host
from pyinfra.api import FileUploadCommand, StringCommand, operation

from gatehouse.deploys import Commands
from gatehouse.deploys.facts import Run, Text
from gatehouse.deploys.packages import install

# The primary keys in a file, one a line. Another key beside the right one would be trusted too.
_PRIMARY = 'awk -F: \'$1 == "pub" { k = 1 } $1 == "fpr" && k { print $10; k = 0 }\''


@dataclass(frozen=True)
class Source:
    """One repository. `mend` says which settings help when its key is not the expected one."""

    name: str
    uri: str
    suite: str
    component: str
    key_url: str
    fingerprint: str
    mend: str

    @property
    def path(self) -> str:
        """Where apt reads of it."""
        return f"/etc/apt/sources.list.d/gatehouse-{self.name}.sources"

    @property
    def key(self) -> str:
        """Where its key is."""
        return f"/etc/apt/keyrings/{self.name}.asc"

    @property
    def text(self) -> str:
        """What apt reads."""
        component = f"Components: {self.component}\n" if self.component else ""
        return (
            f"Types: deb\nURIs: {self.uri}\nSuites: {self.suite}\n{component}"
            f"Signed-By: {self.key}\n"
        )


def others(source: Source, folder: str = "/etc/apt") -> str:
    """Give a command that prints the operator's own files in which apt reads of the repository.

    A line that is commented out, or a file that says `Enabled: no`, does not count: an upgrade of
    the system leaves such ones behind.
    """
    prefix = shlex.quote(source.uri.split("$", 1)[0].rstrip("/"))
    return (
        f"grep -rsF -- {prefix} {folder}/sources.list {folder}/sources.list.d | "
        "grep -vE '^[^:]*:[[:space:]]*#' | cut -d : -f 1 | sort -u | "
        f"grep -E '[.](list|sources)$' | grep -vF {source.path} | "
        "xargs -r grep -LiE '^Enabled:[[:space:]]*no' || true"
    )


def keyring(source: Source, key: str) -> str:
    """Give the command that puts the repository's key there, if it is the expected one alone."""
    # -f: an error page is no key.
    fetch = f"curl -fsSL {shlex.quote(source.key_url)}"
    if source.key_url.startswith("file://"):
        fetch = f"cat {shlex.quote(source.key_url.removeprefix('file://'))}"
    sorry = shlex.quote(
        f"no key with the fingerprint {source.fingerprint} at {source.key_url}, or more than that "
        f"one: {source.mend}"
    )
    return (
        f"install -d -m 755 {Path(key).parent} && {fetch} >{key}.new && "
        f'[ "$(gpg --show-keys --with-colons {key}.new | {_PRIMARY})" = {source.fingerprint} ] && '
        f"chmod 644 {key}.new && mv {key}.new {key} || "
        f"{{ rm -f {key}.new; echo {sorry} >&2; exit 1; }}"
    )


@operation()
def known(source: Source) -> Commands:
    """Ensure that apt knows the repository, with a key of the expected fingerprint.

    Where the operator's own entry names it already, that one stays alone: two entries with
    different keys keep apt from reading any list at all.
    """
    if host.get_fact(Text, path=source.path) == source.text:
        host.noop("the repository is known")
        return
    theirs = host.get_fact(Run, command=others(source))["out"]
    if theirs:
        host.noop(f"the repository is known by {' '.join(theirs.split())}")
        return
    yield install(["ca-certificates", "curl", "gpg"])
    yield StringCommand(keyring(source, source.key))
    yield FileUploadCommand(StringIO(source.text), f"{source.path}.new")
    yield StringCommand(f"chmod 644 {source.path}.new && mv {source.path}.new {source.path}")
