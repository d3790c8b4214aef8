"""Findings: what follows from something else is hushed, and the graph of needs is sound."""

import shlex

import pytest

from gatehouse.checks import Check, commands, every, findings, ordered
from gatehouse.checks.check import equals
from gatehouse.deploys.facts import RunAll
from tests.given import settings

ALL = [
    every(settings()),
    every(settings(gpu_mode="nvidia", litellm_store_prompts=True, litellm_spend_log_days=None)),
    every(settings(models_enable=["chat-hermes-3-llama-3.1-8b"])),
]


def check(name: str, *needs: str, severity: str = "failure") -> Check:
    """Give a check that holds when its command, which is its name, answers yes."""
    return Check(
        f"x: {name}",
        "x",
        "yes",
        name,
        equals("yes"),
        "do something",
        "warning" if severity == "warning" else "failure",
        tuple(f"x: {need}" for need in needs),
    )


def states(checks: list[Check], *wrong: str) -> dict[str, str]:
    """Give name → state where the commands `wrong` answer no."""
    answers = {each.command: (0, "no" if each.command in wrong else "yes") for each in checks}
    return {each.check.command: each.state for each in findings(checks, answers)}


CHAIN = [check("a"), check("b", "a"), check("c", "b"), check("d")]


@pytest.mark.parametrize(
    ("wrong", "expected"),
    [
        ([], ["ok", "ok", "ok", "ok"]),
        (["a"], ["failure", "ok", "ok", "ok"]),
        (["a", "b", "c"], ["failure", "hushed", "hushed", "ok"]),
        (["a", "c"], ["failure", "ok", "hushed", "ok"]),
        (["b", "c", "d"], ["ok", "failure", "hushed", "failure"]),
    ],
)
def test_what_follows_is_hushed(wrong: list[str], expected: list[str]) -> None:
    """A check is hushed by what it needs, also over one that holds; nothing else is."""
    assert list(states(CHAIN, *wrong).values()) == expected


def test_hushed_check_names_its_first_causes() -> None:
    """The cause is what fails by itself, not what lies between."""
    answers = {"a": (0, "no"), "b": (0, "no"), "c": (0, "no"), "d": (0, "yes")}
    found = {each.check.command: each.because for each in findings(CHAIN, answers)}
    assert found == {"a": (), "b": ("x: a",), "c": ("x: a",), "d": ()}


def test_warning_hushes_too_and_stays_a_warning() -> None:
    """The severity of the cause does not matter to what follows from it."""
    checks = [check("a", severity="warning"), check("b", "a")]
    assert states(checks, "a", "b") == {"a": "warning", "b": "hushed"}


def test_command_without_an_answer_does_not_hold() -> None:
    """A host that says nothing has proven nothing."""
    (found,) = findings([check("a")], {})
    assert found.state == "failure"
    assert "no answer" in found.result.found


def test_command_is_run_once_for_all_that_share_it() -> None:
    """Equal commands are asked once, in the order of the checks."""
    assert commands([*CHAIN, check("a"), check("b")]) == ["a", "b", "c", "d"]


def test_order_puts_needs_first() -> None:
    """Whatever the order of the list, a check comes after what it needs; a cycle ends."""
    assert [each.command for each in ordered(CHAIN[::-1])] == ["d", "a", "b", "c"]
    assert len(ordered([check("a", "b"), check("b", "a")])) == 2


@pytest.mark.parametrize("checks", ALL, ids=["default", "card", "engine"])
def test_needs_name_checks_and_have_no_cycle(checks: list[Check]) -> None:
    """Each name exists, and no check needs itself, however far back."""
    by_name = {each.name: each for each in checks}
    assert {need for each in checks for need in each.needs} <= by_name.keys()

    def walk(name: str, above: tuple[str, ...]) -> None:
        assert name not in above, " → ".join([*above, name])
        for need in by_name[name].needs:
            walk(need, (*above, name))

    for name in by_name:
        walk(name, ())


@pytest.mark.parametrize("checks", ALL, ids=["default", "card", "engine"])
def test_all_commands_fit_one_word_of_a_command_line(checks: list[Check]) -> None:
    """A deploy sends them as one script; Linux takes no word of more than 128 KiB."""
    script = RunAll().command(commands(checks))
    # The connection quotes it once, and sudo once more.
    assert len(shlex.quote(shlex.quote(script))) < 100_000
