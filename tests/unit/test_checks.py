"""Checks: each is one statement with a fix, asked in valid shell and judged without a host."""

import itertools
import shlex
import subprocess

import pytest

from gatehouse.checks import Check, every
from gatehouse.checks.check import equals, silent
from gatehouse.render.tree import COMPONENTS
from tests.given import settings

CHECKS = every(settings())


@pytest.fixture(params=CHECKS, ids=lambda check: check.name)
def check(request: pytest.FixtureRequest) -> Check:
    """Give each check in turn."""
    found: Check = request.param
    return found


def test_names_are_unique() -> None:
    """A name means one check."""
    assert len({check.name for check in CHECKS}) == len(CHECKS)


def test_every_service_is_checked() -> None:
    """Each service of the stack is asked whether it is healthy."""
    assert {f"{name}: healthy" for name in COMPONENTS} <= {check.name for check in CHECKS}


def test_check_is_complete(check: Check) -> None:
    """Each check belongs to a component and says what it expects and what to do."""
    assert check.name.startswith(f"{check.component}: ")
    assert check.expected
    assert len(check.fix) > 10


def test_command_is_valid_shell(check: Check) -> None:
    """Any POSIX shell can read the command."""
    done = subprocess.run(
        ["sh", "-n"], input=check.command, text=True, capture_output=True, check=False
    )
    assert not done.stderr


def test_python_in_a_command_is_valid(check: Check) -> None:
    """Where a command hands a program to Python, Python can read it."""
    words = shlex.split(check.command)
    for before, program in itertools.pairwise(words):
        if before == "-c" and "import" in program:
            compile(program, check.name, "exec")


def test_check_fails_when_nothing_can_be_asked(check: Check) -> None:
    """No check holds because its command could not run."""
    assert not check.judge(127, "sh: 1: docker: not found").holds


@pytest.mark.parametrize(
    ("code", "output", "holds", "found"),
    [
        (0, "yes\n", True, "yes"),
        (0, "yes and no\n", False, "yes and no"),
        (1, "yes\n", False, "yes"),
        (1, "", False, "nothing (exit code 1)"),
    ],
)
def test_equals_wants_success_and_the_words(
    code: int, output: str, found: str, *, holds: bool
) -> None:
    """The right words with an error are not right."""
    result = equals("yes")(code, output)
    assert (result.holds, result.found) == (holds, found)


@pytest.mark.parametrize(
    ("code", "output", "holds", "found"),
    [
        (0, "\n", True, "nothing wrong"),
        (0, "/opt/x\n", False, "/opt/x"),
        (2, "", False, "exit code 2"),
    ],
)
def test_silent_wants_success_and_no_words(
    code: int, output: str, found: str, *, holds: bool
) -> None:
    """A look that failed has not found nothing."""
    result = silent(code, output)
    assert (result.holds, result.found) == (holds, found)
