"""Who holds what of a memory, and who has to go."""

import random
from itertools import combinations

import pytest

from gatehouse.engines.ledger import Admit, Claim, Evict, Ledger, Process, Refuse, decide, explain


def claim(name: str, mib: int, state: str = "awake", **more: int) -> Claim:
    """Give an engine that holds exactly what it was promised."""
    return Claim(name, state, mib, more.pop("used", mib), **more)  # type: ignore[arg-type]


def ledger(*claims: Claim, total: int = 10000, foreign: int = 0, reserve: int = 0) -> Ledger:
    """Give a memory with these engines in it."""
    used = foreign + sum(each.used_mib for each in claims)
    return Ledger(total, used, reserve, claims)


def test_an_engine_that_fits_is_admitted_to_the_last_mib() -> None:
    """All that is free can be promised, and not one MiB more."""
    book = ledger(claim("a", 4000), foreign=1000, reserve=500)
    assert book.free_mib == 4500
    assert decide(book, 4500) == Admit()
    assert isinstance(decide(ledger(claim("a", 4000, connections=1), reserve=500), 5501), Refuse)


def test_a_loading_engine_counts_with_all_it_was_promised() -> None:
    """What an engine has not taken yet is not free, and what it has taken is no stranger's."""
    book = ledger(claim("a", 6000, "loading", used=1500))
    assert (book.foreign_mib, book.free_mib) == (0, 4000)
    assert isinstance(decide(book, 4001), Refuse)


def test_an_engine_counts_with_what_it_uses_when_that_is_more() -> None:
    """An engine that grew over its promise holds what it holds."""
    assert ledger(claim("a", 2000, used=3000)).free_mib == 7000


def test_the_least_recently_used_idle_engine_goes() -> None:
    """Where one is enough, it is the one that was not used for the longest time."""
    book = ledger(claim("new", 5000, last_use=20), claim("old", 5000, last_use=10))
    assert decide(book, 3000) == Evict(("old",), ("old", "new"))


def test_as_few_as_suffice_go() -> None:
    """One large engine goes rather than two small ones that were used longer ago."""
    book = ledger(
        claim("small-1", 2000, last_use=1),
        claim("small-2", 2000, last_use=2),
        claim("large", 6000, last_use=3),
    )
    found = decide(book, 4000)
    assert isinstance(found, Evict)
    assert found.stop == ("large",)


@pytest.mark.parametrize(
    "kept",
    [
        claim("a", 8000, connections=1),
        claim("a", 8000, "loading"),
        claim("a", 8000, always=1),
    ],
)
def test_busy_loading_and_kept_engines_never_go(kept: Claim) -> None:
    """Only an idle engine makes room."""
    assert isinstance(decide(ledger(kept), 4000), Refuse)


def test_leaving_engines_count_as_gone_and_are_waited_for() -> None:
    """Memory that is on its way back can be promised, to be taken when it is there."""
    book = ledger(claim("going", 6000, "leaving"), claim("a", 3000))
    assert decide(book, 1000) == Admit()
    assert decide(book, 7000) == Admit(after=("going",))


def test_a_refusal_says_who_holds_what() -> None:
    """The reason names the need, what is free, every holder and what it is doing."""
    book = Ledger(
        10000,
        7400,
        512,
        (claim("chat-a", 5000, connections=2),),
        (Process(1234, "python", 2400),),
    )
    found = decide(book, 6000)
    assert isinstance(found, Refuse)
    assert found.reason == (
        "needs 6000 MiB, 2088 MiB free of 10000: chat-a 5000 (busy, 2 connections), other programs "
        "2400 (pid 1234 python 2400), kept free 512 (gpu_reserve_mib)"
    )


def test_more_than_the_card_is_hopeless_and_a_busy_engine_is_not() -> None:
    """Waiting helps against our own engines, not against strangers or a card that is too small."""
    busy = ledger(claim("a", 8000, connections=1))
    assert decide(busy, 9000) == Refuse(explain(busy, 9000), hopeless=False)
    strangers = ledger(foreign=3000)
    assert decide(strangers, 9000) == Refuse(explain(strangers, 9000), hopeless=True)


def test_decisions_hold_for_any_host() -> None:
    """Over random hosts: who is admitted fits, who evicts takes the fewest, who is refused must be."""
    chance = random.Random(3)  # noqa: S311 - not a secret
    seen = {Admit: 0, Evict: 0, Refuse: 0}
    for _ in range(3000):
        book = ledger(
            *(
                claim(
                    f"e{index}",
                    chance.randrange(0, 4000),
                    chance.choice(("awake", "awake", "awake", "loading", "leaving")),
                    used=chance.randrange(0, 4000),
                    connections=chance.choice((0, 0, 1)),
                    always=chance.random() < 0.1,
                    last_use=chance.randrange(100),
                )
                for index in range(chance.randrange(7))
            ),
            foreign=chance.randrange(3000),
            reserve=chance.choice((0, 512)),
        )
        need = chance.randrange(12000)
        found = decide(book, need)
        seen[type(found)] += 1
        by_name = {each.name: each for each in book.claims}
        idle = [each for each in book.claims if each.evictable]
        rest = sum(each.mib for each in book.claims if each.state != "leaving")
        free = book.total_mib - book.reserve_mib - book.foreign_mib - rest
        if isinstance(found, Admit):
            assert need <= free
            assert bool(found.after) == (need > book.free_now_mib)
        elif isinstance(found, Evict):
            gone = sum(by_name[name].mib for name in found.stop)
            assert free < need <= free + gone
            assert all(by_name[name].evictable for name in found.stop)
            for fewer in combinations(idle, len(found.stop) - 1):
                assert free + sum(each.mib for each in fewer) < need
        else:
            assert need > free + sum(each.mib for each in idle)
    assert all(count > 300 for count in seen.values()), seen
