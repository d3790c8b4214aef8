"""Package repositories of others: what apt reads of them, and whose entry counts."""

import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from gatehouse.deploys.sources import _PRIMARY, Source, keyring, others

SOURCE = Source(
    name="somebody",
    uri="https://packages.example/stable/deb/$(ARCH)",
    suite="/",
    component="",
    key_url="https://packages.example/key",
    fingerprint="0123456789" * 4,
    mend="mend it",
)
LINE = "deb [signed-by=/k.gpg] https://packages.example/stable/deb/$(ARCH) /\n"
STANZA = "Types: deb\nURIs: https://packages.example/stable/deb/amd64\nSuites: /\n"
# What gpg prints of a primary key, its subkey, and another primary key.
FIRST = "pub:-:255:22:A:1:::-:\nfpr:::::::::AAAA:\nuid:-::::1::B::me:\nsub:-:255:18:C:1::::\nfpr:::::::::CCCC:\n"
SECOND = "pub:-:255:22:D:1:::-:\nfpr:::::::::DDDD:\n"


def shell(script: str, text: str = "") -> str:
    """Give what a script prints."""
    return subprocess.run(
        ["sh", "-c", script], input=text, capture_output=True, text=True, check=True
    ).stdout


@pytest.mark.parametrize(
    ("name", "text", "counts"),
    [
        ("theirs.list", LINE, True),
        ("theirs.sources", STANZA, True),
        ("theirs.list", f"# {LINE}", False),
        ("theirs.sources", f"Enabled: no\n{STANZA}", False),
        ("theirs.list.save", LINE, False),
        ("gatehouse-somebody.sources", SOURCE.text, False),
        ("other.list", LINE.replace("packages.example", "other.example"), False),
    ],
    ids=["line", "stanza", "commented out", "disabled", "not apt's", "our own", "another"],
)
def test_entry_of_the_operator_is_found(
    tmp_path: Path, name: str, text: str, *, counts: bool
) -> None:
    """Only an entry that apt would read beside ours is in the way."""
    folder = tmp_path / "etc/apt"
    (folder / "sources.list.d").mkdir(parents=True)
    (folder / "sources.list.d" / name).write_text(text)
    found = shell(others(SOURCE, str(folder)))
    assert found == (f"{folder}/sources.list.d/{name}\n" if counts else "")


def test_file_of_old_is_looked_at_too(tmp_path: Path) -> None:
    """Some keep everything in sources.list."""
    (tmp_path / "sources.list").write_text(LINE)
    assert shell(others(SOURCE, str(tmp_path))) == f"{tmp_path}/sources.list\n"


@pytest.mark.parametrize(
    ("keys", "primary"), [(FIRST, "AAAA\n"), (FIRST + SECOND, "AAAA\nDDDD\n"), ("", "")]
)
def test_only_primary_keys_are_compared(keys: str, primary: str) -> None:
    """A subkey does not count, and a second key in the file shows: it would be trusted too."""
    assert shell(_PRIMARY, keys) == primary


@pytest.fixture(scope="module")
def repository() -> Iterator[tuple[Path, list[str]]]:
    """Give a folder with `one` key, with `two`, and with an error page; and the fingerprints."""
    if not shutil.which("gpg"):
        pytest.skip("needs gpg on this machine")
    # The agent's socket lies in it, whose path must be short.
    with TemporaryDirectory() as home:
        folder, gpg = Path(home), ["gpg", "--homedir", home, "--batch", "--quiet"]
        try:
            for name in ("one", "two"):
                make = [
                    "--passphrase",
                    "",
                    "--quick-generate-key",
                    name,
                    "ed25519",
                    "sign",
                    "never",
                ]
                subprocess.run([*gpg, *make], check=True, capture_output=True)
                export = subprocess.run(
                    [*gpg, "--armor", "--export"], check=True, capture_output=True
                )
                (folder / name).write_bytes(export.stdout)
            (folder / "page").write_text("<html>no</html>")
            yield folder, shell(f"gpg --show-keys --with-colons {folder}/two | {_PRIMARY}").split()
        finally:
            subprocess.run(["gpgconf", "--homedir", home, "--kill", "all"], check=False)


@pytest.mark.parametrize(
    ("file", "number", "taken"),
    [
        ("one", 0, True),
        ("one", 1, False),
        ("two", 0, False),
        ("two", 1, False),
        ("page", 0, False),
        ("none", 0, False),
    ],
)
def test_key_is_taken_if_it_is_alone(
    repository: tuple[Path, list[str]], tmp_path: Path, file: str, number: int, *, taken: bool
) -> None:
    """Apt trusts every key of the file; what is refused leaves nothing, and the one from before."""
    folder, fingerprints = repository
    mine = replace(SOURCE, key_url=f"file://{folder}/{file}", fingerprint=fingerprints[number])
    key = tmp_path / "keyrings" / "somebody.asc"
    done = subprocess.run(
        ["sh", "-c", keyring(mine, str(key))], capture_output=True, text=True, check=False
    )
    assert done.returncode == int(not taken)
    assert [path.name for path in key.parent.iterdir()] == (["somebody.asc"] if taken else [])
    refusal = f"no key with the fingerprint {fingerprints[number]} at {mine.key_url}"
    assert (refusal in done.stderr and "mend it" in done.stderr) is not taken
    if taken:
        assert key.read_bytes() == (folder / file).read_bytes()


def test_text_names_its_own_key() -> None:
    """Apt trusts the repository by its own key only; one without components has no such line."""
    assert SOURCE.text == (
        "Types: deb\nURIs: https://packages.example/stable/deb/$(ARCH)\nSuites: /\n"
        "Signed-By: /etc/apt/keyrings/somebody.asc\n"
    )
