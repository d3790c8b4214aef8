"""The benchmark of a real card: what it says of figures, and that it ends without a card."""

import pytest

from gatehouse.bench.card import HELD, RESERVE_MIB, compare, main
from gatehouse.bench.cuda import CardError, holding
from gatehouse.engines.errors import EngineError
from gatehouse.engines.ledger import Claim, Ledger
from gatehouse.engines.nvml import NvmlMeter


def ledger(**changes: int) -> Ledger:
    """Give what a ledger shows of 24000 MiB: 500 by others before, then 1000 held and 2000 foreign."""
    values = {"total_mib": 24000, "used_mib": 4100, "held": 1300} | changes
    claim = Claim(HELD, "awake", 1000, values["held"])
    return Ledger(values["total_mib"], values["used_mib"], RESERVE_MIB, (claim,))


def test_bench_holds_when_all_agree() -> None:
    """What CUDA takes for each process on top is no mistake of the ledger's."""
    statements = compare(ledger(), total=24000, used=4100, mib=1000, before=500)
    assert all(statement.holds for statement in statements)


@pytest.mark.parametrize(
    ("changes", "what"),
    [
        ({"total_mib": 23000}, "total, by nvidia-smi"),
        ({"used_mib": 4200}, "in use, by nvidia-smi"),
        ({"held": 900}, "held by the engine"),
        ({"held": 2100}, "held by others"),
    ],
)
def test_bench_tells_a_ledger_that_is_wrong(changes: dict[str, int], what: str) -> None:
    """A figure that is not what was allocated fails the benchmark."""
    statements = compare(ledger(**changes), total=24000, used=4100, mib=1000, before=500)
    assert what in {statement.what for statement in statements if not statement.holds}


def test_bench_says_that_there_is_no_card(monkeypatch: pytest.MonkeyPatch) -> None:
    """Exit code 2: nothing was measured."""

    def none(meter: NvmlMeter, gpu_index: int) -> None:
        raise EngineError(f"no card {gpu_index} for {meter}")

    monkeypatch.setattr(NvmlMeter, "read", none)
    assert main([]) == 2


def test_process_that_cannot_hold_memory_ends_the_bench(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without CUDA's library nothing can be held, and that is said instead of waited for."""
    monkeypatch.setattr("sys.executable", "/bin/false")
    with pytest.raises(CardError, match="5 MiB could not be allocated"), holding(0, 5):
        pytest.fail("it holds what it could not allocate")
