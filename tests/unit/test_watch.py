"""The watchdog: what it takes for a lost card, and what it does about it."""

import json
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from gatehouse.checks.gpu import SPECIFICATION
from gatehouse.engines.watch import Answer, outdated, run, watch

DRIVER = (
    "NVRM version: NVIDIA UNIX x86_64 Kernel Module  570.133.20  Thu May\nGCC version:  gcc 12.2\n"
)
LIBRARY = "/usr/lib/x86_64-linux-gnu/libcuda.so"


def engine(name: str, **changes: object) -> dict[str, Any]:
    """Give one entry of engines.json."""
    return {
        "name": name,
        "kind": "llamacpp",
        "port": 8084,
        "backend": "172.30.42.10:8080",
        "health": "/health",
        "container": f"gatehouse-{name}-1",
        "device": "gpu",
        "gpu_index": 0,
        "memory_mib": 1000,
        "file": None,
        "idle_seconds": 60,
        "load_seconds": 60,
        "drain_seconds": 0,
        "retry_seconds": 30,
        "boot": "never",
        "sources": [],
        "models": [name],
    } | changes


def tree(root: Path, *engines: dict[str, Any], spec: str = "", used: str = "nvidia") -> Path:
    """Make a host's files: these engines, all awake, and a driver."""
    release = root / "opt/gatehouse/releases/r1"
    run_ = root / "run/gatehouse/engines"
    for folder in (release / "engines", run_, root / "proc/driver/nvidia", root / "run/cdi"):
        folder.mkdir(parents=True)
    (release.parent.parent / "current").symlink_to("releases/r1")
    config = {
        "version": 1,
        "bridge": "172.30.40.1",
        "card": used,
        "reserve_mib": 512,
        "health_interval_seconds": 0.05,
        "models_dir": "/m",
        "engines": list(engines),
    }
    (release / "engines/engines.json").write_text(json.dumps(config))
    (root / "proc/driver/nvidia/version").write_text(DRIVER)
    if spec:
        (root / "run/cdi/nvidia.yaml").write_text(spec)
    for each in engines:
        (run_ / f"{each['name']}.awake").touch()
    return root


class Commands:
    """Answers commands by their words and remembers them; what is not told succeeds."""

    def __init__(self, **answers: Answer) -> None:
        """Take a word of the command → the answer."""
        self.answers = {"inspect": Answer(0, "true")} | answers
        self.given: list[str] = []

    def __call__(self, command: Sequence[str], seconds: float) -> Answer:
        """Answer."""
        assert seconds > 0
        self.given.append(" ".join(command))
        return next(
            (self.answers[word] for word in self.answers if word in command), Answer(0, "GPU 0")
        )


LOST = Answer(255, "Failed to initialize NVML: Unknown Error")


def lost_file(root: Path) -> dict[str, Any]:
    """Give what is lost and not mended."""
    path = root / "run/gatehouse/gpu-lost.json"
    return dict(json.loads(path.read_text())["lost"]) if path.exists() else {}


def test_watchdog_leaves_working_engines_alone(tmp_path: Path) -> None:
    """A container whose nvidia-smi answers is only asked."""
    ask = Commands()
    assert watch(tree(tmp_path, engine("chat-a-b")), ask) == 0
    assert ask.given == ["nvidia-smi -L", "docker exec gatehouse-chat-a-b-1 nvidia-smi -L"]


def test_watchdog_gives_a_lost_engine_a_new_container(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The engine is stopped, its container made anew by the release's real path, and said so."""
    ask = Commands(exec=LOST)
    assert watch(tree(tmp_path, engine("chat-a-b")), ask) == 0
    stop, create = ask.given[-2:]
    assert stop == (
        "systemctl stop gatehouse-engine-chat-a-b.service gatehouse-server-chat-a-b.service"
    )
    assert "releases/r1/compose.yaml" in create
    assert create.endswith("--force-recreate chat-a-b")
    assert lost_file(tmp_path) == {}
    assert "<3>chat-a-b lost its card: Failed to initialize NVML" in capsys.readouterr().err


def test_watchdog_starts_what_is_always_on_again(tmp_path: Path) -> None:
    """Nobody would ask for an engine that is to be there all the time."""
    ask = Commands(exec=LOST)
    watch(tree(tmp_path, engine("chat-a-b", boot="always")), ask)
    assert ask.given[-1] == "systemctl start --no-block gatehouse-engine-chat-a-b.service"


def test_watchdog_remembers_what_it_could_not_mend(tmp_path: Path) -> None:
    """What fails is in the file that the check reads, and is tried again although it sleeps now."""
    root = tree(tmp_path, engine("chat-a-b"))
    assert watch(root, Commands(exec=LOST, compose=Answer(1, "no space left"))) == 1
    assert lost_file(root)["chat-a-b"]["said"] == LOST.said
    (root / "run/gatehouse/engines/chat-a-b.awake").unlink()
    ask = Commands()
    assert watch(root, ask) == 0
    assert any("--force-recreate chat-a-b" in command for command in ask.given)
    assert lost_file(root) == {}


@pytest.mark.parametrize(
    "answers",
    [
        {"exec": Answer(127, "no such program")},
        {"exec": Answer(1, "is not running"), "inspect": Answer(0, "false")},
        {"exec": Answer(1, "cannot connect"), "inspect": Answer(1, "cannot connect")},
    ],
    ids=["no nvidia-smi in it", "just stopped", "Docker is away"],
)
def test_watchdog_does_not_take_other_trouble_for_a_lost_card(
    tmp_path: Path, answers: dict[str, Answer]
) -> None:
    """Nothing is stopped unless nvidia-smi itself failed in a running container."""
    ask = Commands(**answers)
    assert watch(tree(tmp_path, engine("chat-a-b")), ask) == 0
    assert not [command for command in ask.given if command.startswith("systemctl")]


def test_watchdog_leaves_engines_alone_when_the_host_lost_its_driver(tmp_path: Path) -> None:
    """A new container would not have a card either."""
    root = tree(tmp_path, engine("chat-a-b"))
    asked = []

    def ask(command: Sequence[str], seconds: float) -> Answer:
        asked.append(" ".join(command))
        return LOST

    assert watch(root, ask) == 1
    assert asked == ["nvidia-smi -L"]


def test_watchdog_asks_only_what_is_awake_on_a_card(tmp_path: Path) -> None:
    """Sleeping engines are not started by being asked; those on the CPU have nothing to lose."""
    root = tree(
        tmp_path,
        engine("chat-a-b"),
        engine("chat-c-d", device="cpu"),
        engine("chat-e-f", container=None),
    )
    (root / "run/gatehouse/engines/chat-a-b.awake").unlink()
    ask = Commands()
    assert watch(root, ask) == 0
    assert ask.given == ["nvidia-smi -L"]


def test_watchdog_has_nothing_to_do_without_a_card(tmp_path: Path) -> None:
    """Where engines run on the CPU it asks nobody."""
    ask = Commands()
    assert watch(tree(tmp_path, engine("chat-a-b"), used="none"), ask) == 0
    assert ask.given == []


@pytest.mark.parametrize(
    ("toolkit_unit", "unit"), [(True, "nvidia-cdi-refresh"), (False, "gatehouse-cdi")]
)
def test_watchdog_has_an_outdated_specification_written_anew(
    tmp_path: Path, *, toolkit_unit: bool, unit: str
) -> None:
    """By the toolkit's own unit, or by ours where it has none."""
    root = tree(tmp_path, spec=f"kind: nvidia.com/gpu\n{LIBRARY}.550.54.14\n")
    if toolkit_unit:
        path = root / "usr/lib/systemd/system/nvidia-cdi-refresh.service"
        path.parent.mkdir(parents=True)
        path.touch()
    ask = Commands()
    assert watch(root, ask) == 0
    assert f"systemctl restart {unit}.service" in ask.given


def test_command_that_hangs_is_given_up() -> None:
    """A driver in trouble may never answer."""
    assert run(["sleep", "60"], 0.1) == Answer(124, "no answer in 0 s")
    assert run(["no-such-program-here"], 1).code == 127


@pytest.mark.parametrize(
    ("spec", "wrong"),
    [
        (f"kind: nvidia.com/gpu\nhostPath: {LIBRARY}.570.133.20\n", ""),
        (f'{{"kind": "nvidia.com/gpu", "hostPath": "{LIBRARY}.570.133.20"}}', ""),
        (f"kind: nvidia.com/gpu\nhostPath: {LIBRARY}.1\n", ""),
        (f"kind: nvidia.com/gpu\nhostPath: {LIBRARY}.550.54.14\n", "the driver is 570.133.20"),
        (f"kind: nvidia.com/gpu\nhostPath: {LIBRARY}.570.133.2\n", "the driver is 570.133.20"),
        (f"kind: nvidia.com/gpu\nhostPath: {LIBRARY}.570.133.201\n", "the driver is 570.133.20"),
        ("kind: other.org/device\n", "no CDI specification of nvidia.com/gpu"),
    ],
    ids=["right", "right, JSON", "no version", "older", "begins alike", "goes on", "none"],
)
def test_specification_must_fit_the_driver(tmp_path: Path, spec: str, wrong: str) -> None:
    """The check and the watchdog tell a specification of another driver alike."""
    tree(tmp_path, spec=spec)
    script = SPECIFICATION.replace("/proc/", f"{tmp_path}/proc/").replace(
        "/etc/cdi/*", f"{tmp_path}/etc/cdi/*"
    )
    script = script.replace(" /var/run/cdi/*)", f" {tmp_path}/run/cdi/*)")
    done = subprocess.run(["sh", "-c", script], capture_output=True, text=True, check=False)
    assert wrong in done.stdout
    assert bool(wrong) == bool(done.stdout)
    if not wrong.startswith("no"):
        assert wrong in outdated(tmp_path)
        assert bool(wrong) == bool(outdated(tmp_path))
