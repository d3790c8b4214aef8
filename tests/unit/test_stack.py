"""What is asked of Docker: what ends something has as long as the settings give it."""

import os
from pathlib import Path

import annotated_types
import pytest

from gatehouse.settings import Settings
from gatehouse.tool import stack
from gatehouse.tool.errors import ProblemError


@pytest.fixture
def docker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Have a `docker` that a test writes."""
    program = tmp_path / "docker"
    program.touch(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    return program


def test_stop_may_take_as_long_as_the_settings_give_it() -> None:
    """The longest grace of every service, one after the other, and time to start them again."""
    longest = [
        bound.le
        for name, field in Settings.model_fields.items()
        if name.endswith("_stop_grace_seconds")
        for bound in field.metadata
        if isinstance(bound, annotated_types.Le)
    ]
    assert len(longest) > 3
    assert sum(map(float, map(str, longest))) < stack._ENDING_SECONDS  # noqa: SLF001


def test_only_what_ends_something_is_waited_for(
    docker: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A question that nobody answers is given up; a stop is not cut off in the middle."""
    docker.write_text("#!/bin/sh\nexec sleep 1\n")
    monkeypatch.setattr(stack, "_DOCKER_SECONDS", 0.1)
    stack.docker("stop", "gatehouse-litellm-1")
    stack.docker("compose", "-p", "gatehouse", "up")
    with pytest.raises(ProblemError, match=r"longer than 0\.1 s"):
        stack.docker("inspect", "gatehouse-litellm-1")


def test_service_that_is_not_there_is_stopped(docker: Path) -> None:
    """But one that may still run is not taken for stopped."""
    docker.write_text("#!/bin/sh\necho 'Error response: No such container: x' >&2; exit 1\n")
    stack.stop("litellm")
    docker.write_text("#!/bin/sh\necho 'cannot stop container: permission denied' >&2; exit 1\n")
    with pytest.raises(ProblemError, match="permission denied"):
        stack.stop("litellm")
