"""Who holds what of a memory, and what that means for one more engine: arithmetic, nothing else."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import combinations

from gatehouse.engines.state import AWAKE, LEAVING

# More foreign processes than these only make the sentence long.
_NAMED = 3


@dataclass(frozen=True)
class Claim:
    """What one engine holds of a memory or has been promised."""

    name: str
    state: str
    need_mib: int
    used_mib: int
    connections: int = 0
    always: bool = False
    last_use: float = 0.0

    @property
    def mib(self) -> int:
        """What cannot be given to another: a loading engine has not taken all it was promised."""
        return max(self.need_mib, self.used_mib)

    @property
    def evictable(self) -> bool:
        """Whether it may be stopped for another: loaded, and nobody is connected."""
        return self.state == AWAKE and not self.connections and not self.always

    @property
    def doing(self) -> str:
        """What it is doing, in words."""
        if self.state != AWAKE:
            return self.state
        if self.connections:
            return f"busy, {self.connections} connection{'s' * (self.connections > 1)}"
        return "kept, boot = always" if self.always else "idle"


@dataclass(frozen=True)
class Process:
    """A process of somebody else and what it holds."""

    pid: int
    name: str
    mib: int


@dataclass(frozen=True)
class Ledger:
    """A memory and all claims on it."""

    total_mib: int
    used_mib: int
    reserve_mib: int
    claims: tuple[Claim, ...] = ()
    others: tuple[Process, ...] = ()

    @property
    def foreign_mib(self) -> int:
        """What is in use by anybody but our engines."""
        return max(0, self.used_mib - sum(claim.used_mib for claim in self.claims))

    @property
    def free_mib(self) -> int:
        """What can still be promised; what leaving engines hold is on its way back already."""
        return self.free_now_mib + sum(claim.mib for claim in self.leaving)

    @property
    def free_now_mib(self) -> int:
        """What can be taken at this moment; below zero when too much was promised."""
        held = sum(claim.mib for claim in self.claims)
        return self.total_mib - self.reserve_mib - self.foreign_mib - held

    @property
    def leaving(self) -> tuple[Claim, ...]:
        """The engines that were told to go."""
        return tuple(claim for claim in self.claims if claim.state == LEAVING)


@dataclass(frozen=True)
class Admit:
    """It may start, as soon as these are gone."""

    after: tuple[str, ...] = ()


@dataclass(frozen=True)
class Evict:
    """It may start once these are stopped; all idle ones that could be are `candidates`."""

    stop: tuple[str, ...]
    candidates: tuple[str, ...]


@dataclass(frozen=True)
class Refuse:
    """It cannot start; `hopeless` when waiting for engines would not help either."""

    reason: str
    hopeless: bool


Decision = Admit | Evict | Refuse


def decide(ledger: Ledger, need_mib: int) -> Decision:
    """Say whether an engine that needs so much may start, and who has to go for it."""
    missing = need_mib - ledger.free_mib
    if missing <= 0:
        waits = need_mib > ledger.free_now_mib
        return Admit(tuple(claim.name for claim in ledger.leaving) if waits else ())
    idle = sorted(
        (claim for claim in ledger.claims if claim.evictable), key=lambda claim: claim.last_use
    )
    for chosen in _fewest(idle, missing):
        names = tuple(claim.name for claim in idle)
        return Evict(tuple(claim.name for claim in chosen), names)
    kept = sum(claim.mib for claim in ledger.claims if claim.always)
    most = ledger.total_mib - ledger.reserve_mib - ledger.foreign_mib - kept
    return Refuse(explain(ledger, need_mib), hopeless=need_mib > most)


def explain(ledger: Ledger, need_mib: int) -> str:
    """Say who holds what, for an engine that does not fit."""
    holders = [f"{claim.name} {claim.mib} ({claim.doing})" for claim in ledger.claims]
    if ledger.foreign_mib:
        named = ", ".join(f"pid {one.pid} {one.name} {one.mib}" for one in ledger.others[:_NAMED])
        holders.append(f"other programs {ledger.foreign_mib}" + (f" ({named})" if named else ""))
    if ledger.reserve_mib:
        holders.append(f"kept free {ledger.reserve_mib} (gpu_reserve_mib)")
    return (
        f"needs {need_mib} MiB, {max(0, ledger.free_mib)} MiB free of {ledger.total_mib}"
        f"{': ' if holders else ''}{', '.join(holders)}"
    )


def _fewest(idle: list[Claim], missing: int) -> Iterator[tuple[Claim, ...]]:
    """Give the smallest sets that are large enough, those with the longest unused ones first."""
    largest = sorted((claim.mib for claim in idle), reverse=True)
    for count in range(1, len(idle) + 1):
        if sum(largest[:count]) >= missing:
            for chosen in combinations(idle, count):
                if sum(claim.mib for claim in chosen) >= missing:
                    yield chosen
            return
