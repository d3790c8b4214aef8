"""The host's command: how it is packed, installed and called."""

import re
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest
from click.testing import CliRunner

from gatehouse import wheels
from gatehouse.deploys import venv
from gatehouse.render.template import ROOT
from gatehouse.tool.__main__ import COMMANDS, main
from tests.unit.test_structure import imported

# What the host has: the standard library, what requirements-host.lock pins, and this package.
NOT_ON_THE_HOST = {"pyinfra", "pyinfra_cli", "docker", "paramiko", "yaml", "packaging"}
OF_THE_OPERATOR = ("deploys", "render", "lab", "commands", "bench", "faults", "wheels", "providers")
# Both sides share these, so they need no more than the host has.
SHARED = ("settings", "checks")
HERE = wheels.Target("3.13", "x86_64")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Keep what is built out of the checkout; the downloads of it are used as they are."""
    for wheel in wheels.FOLDER.glob("*.whl"):
        (tmp_path / wheel.name).write_bytes(wheel.read_bytes())
    monkeypatch.setattr(wheels, "FOLDER", tmp_path)
    monkeypatch.setattr(wheels, "OWN", tmp_path / "own")
    return tmp_path


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have no package index answer."""
    monkeypatch.setattr(wheels, "_download", lambda _: "no index answers")


def test_identity_follows_what_is_installed() -> None:
    """The same sources give the same id; it is short enough for a path that people read."""
    assert wheels.identity() == wheels.identity()
    assert re.fullmatch("[0-9a-f]{12}", wheels.identity())


def test_wheel_is_the_same_bytes_twice(folder: Path) -> None:
    """A build says nothing about when and where it was made."""
    first = wheels.build("one").read_bytes()
    assert wheels.build("two").read_bytes() == first


def test_built_wheel_is_not_built_again(folder: Path) -> None:
    """One state of the sources is built once, however many hosts there are."""
    before = wheels.build("one").stat()
    after = wheels.build("one").stat()
    assert (before.st_ino, before.st_mtime_ns) == (after.st_ino, after.st_mtime_ns)


def test_bundle_holds_all_that_is_installed(
    folder: Path, offline: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The archive holds the lock, every locked wheel and ours, and is made from wheels at hand."""
    made = folder / "thing-1.0-py3-none-any.whl"
    made.write_bytes(b"thing")
    lock = folder / "requirements-host.lock"
    # What `printf thing | sha256sum` gives.
    digest = subprocess.run(["sha256sum"], input=b"thing", capture_output=True, check=True)
    lock.write_text(f"thing==1.0 \\\n    --hash=sha256:{digest.stdout.split()[0].decode()}\n")
    monkeypatch.setattr(wheels, "LOCK", lock)
    wheels.build("one")
    with tarfile.open(wheels.bundle("one", HERE)) as archive:
        names = archive.getnames()
    own = [name for name in names if name.startswith("gatehouse-")]
    assert len(own) == 1
    assert set(names) == {made.name, lock.name, *own}


def test_wheel_of_another_content_is_not_taken(
    folder: Path, offline: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A carried file that is not the locked one counts as missing; the message says what to do."""
    for path in folder.glob("*.whl"):
        path.write_bytes(b"something else")
    with pytest.raises(wheels.Unavailable, match="make wheels") as raised:
        wheels.fetch(HERE)
    assert "no index answers" in str(raised.value)
    assert str(folder) in str(raised.value)


@pytest.mark.parametrize(
    ("python", "machine", "name", "fits"),
    [
        ("3.13", "x86_64", "thing-1.0-cp313-cp313-manylinux_2_17_x86_64.whl", True),
        ("3.13", "x86_64", "thing-1.0-cp313-cp313-manylinux_2_17_aarch64.whl", False),
        ("3.13", "aarch64", "thing-1.0-cp313-cp313-manylinux2014_aarch64.whl", True),
        ("3.11", "x86_64", "thing-1.0-cp313-cp313-manylinux_2_17_x86_64.whl", False),
        ("3.13", "x86_64", "thing-1.0-cp313-cp313-manylinux_2_39_x86_64.whl", False),
        ("3.13", "x86_64", "thing-1.0-cp313-cp313-musllinux_1_2_x86_64.whl", False),
        ("3.11", "aarch64", "thing-1.0-py3-none-any.whl", True),
        ("3.13", "x86_64", "thing.whl", False),
    ],
)
def test_host_gets_the_wheel_that_fits(  # noqa: PLR0913 - two fixtures and four values
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    python: str,
    machine: str,
    name: str,
    *,
    fits: bool,
) -> None:
    """A wheel for another Python, processor or C library is not carried to a host."""
    for path in folder.glob("*.whl"):
        path.unlink()
    (folder / name).write_bytes(b"thing")
    lock = folder / "requirements-host.lock"
    digest = subprocess.run(["sha256sum"], input=b"thing", capture_output=True, check=True)
    lock.write_text(f"thing==1.0 \\\n    --hash=sha256:{digest.stdout.split()[0].decode()}\n")
    monkeypatch.setattr(wheels, "LOCK", lock)
    monkeypatch.setattr(wheels, "_download", lambda _: "no index answers")
    target = wheels.Target(python, machine)
    if fits:
        assert [path.name for path in wheels.fetch(target)] == [name]
    else:
        with pytest.raises(wheels.Unavailable, match=f"Python {python} on {machine}.*thing"):
            wheels.fetch(target)


def test_lock_names_no_index_and_only_hashes() -> None:
    """Every line of the lock is a version or a hash."""
    lines = wheels.LOCK.read_text().splitlines()
    assert lines
    for line in lines:
        assert re.fullmatch(
            r"[a-z0-9-]+==\S+( ; [^:]+)? \\|    --hash=sha256:[0-9a-f]{64}( \\)?", line
        )


def test_host_gets_the_versions_that_are_tested() -> None:
    """Both locks pin the same version of what both name."""
    pin = re.compile(r"^([a-z0-9-]+)==(\S+)", re.MULTILINE)
    ours = dict(pin.findall((ROOT / "requirements.lock").read_text()))
    for name, version in pin.findall(wheels.LOCK.read_text()):
        assert ours[name] == version, name


@pytest.mark.parametrize("folder_name", ["tool", "engines", "health", *SHARED])
def test_host_code_needs_only_what_is_there(folder_name: str) -> None:
    """What runs on the host imports neither the operator's packages nor the operator's code."""
    for path in (ROOT / "gatehouse" / folder_name).glob("*.py"):
        assert not NOT_ON_THE_HOST & imported(path.relative_to(ROOT)), path
        found = re.findall(r"(?:from|import) gatehouse\.(\w+)", path.read_text())
        assert not set(OF_THE_OPERATOR) & set(found), path


def test_installation_ends_with_its_marker() -> None:
    """What says that an environment is whole is written when it is, and nothing follows but tidying."""
    lines = venv.script("id").splitlines()
    assert lines[0].startswith("set -e")
    assert lines[-2] == "touch /opt/gatehouse/venvs/id/complete"
    assert "test -f /opt/gatehouse/venvs/id/complete" in venv.complete("id")


def test_help_shows_examples_and_imports_nothing() -> None:
    """`gatehouse --help` names every command, and imports none of them."""
    code = (
        "import sys\nfrom gatehouse.tool.__main__ import main\n"
        "main(['--help'], standalone_mode=False)\n"
        "print([name for name in sys.modules if name.startswith(('rich', 'gatehouse.tool.'))])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT
    )
    *shown, modules = done.stdout.splitlines()
    assert modules == "['gatehouse.tool.__main__']"
    for name, (_, line) in COMMANDS.items():
        assert any(re.match(rf"\s+{name}\s+{re.escape(line[:20])}", text) for text in shown)


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_can_be_called(name: str) -> None:
    """What the table names is there and explains itself."""
    result = CliRunner().invoke(main, [name, "--help"])
    assert result.exit_code == 0, result.output


def test_wrong_command_is_wrong_usage() -> None:
    """A command that is not there is exit code 2."""
    assert CliRunner().invoke(main, ["nothing"]).exit_code == 2
