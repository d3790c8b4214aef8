"""The host as the programs for engines see it: all that they read and all that they can do."""

import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property

from gatehouse.engines import connections, measured, processes
from gatehouse.engines.config import Config, Engine, load
from gatehouse.engines.docker import Docker
from gatehouse.engines.errors import EngineError
from gatehouse.engines.ledger import Claim, Ledger, Process
from gatehouse.engines.meter import Meter, meter_for
from gatehouse.engines.paths import Paths
from gatehouse.engines.state import LIVE, State, States
from gatehouse.engines.units import Systemd, Unit, Units

_NAMED = 5
# A process with less is not worth a name in a sentence.
_WORTH_MIB = 16


@dataclass
class Host:
    """Paths, configuration, states, systemd and Docker of a host."""

    paths: Paths = field(default_factory=Paths.of_host)
    units: Units = field(default_factory=Systemd)

    @cached_property
    def config(self) -> Config:
        """The engines as the deploy wrote them down."""
        return load(self.paths.config)

    @cached_property
    def states(self) -> States:
        """What every engine is doing."""
        return States(self.paths.run)

    @cached_property
    def docker(self) -> Docker:
        """The Docker engine."""
        return Docker(self.paths.docker)

    def meter(self, engine: Engine) -> Meter:
        """Give the meter of the memory that an engine takes from."""
        return meter_for(engine, self.config, self.paths.run)

    def connections(self) -> Mapping[int, int]:
        """Count the open connections per port."""
        return connections.by_port()

    def live(self, pool: str, but: str | None = None) -> dict[Engine, State]:
        """Give the engines that hold something of a memory, with what they are doing.

        A state whose unit is dead is left over from something that was killed: nobody holds it.
        """
        found = {
            engine: state
            for engine in self.config.engines
            if engine.pool == pool
            and engine.name != but
            and (state := self.states.get(engine.name))
            and state.state in LIVE
        }
        units = self.units.show(engine.server for engine in found)
        unknown = Unit("inactive", 0)
        return {
            engine: state
            for engine, state in found.items()
            if not units.get(engine.server, unknown).dead
        }

    def ledger(self, engine: Engine) -> Ledger:
        """Read who holds what of the memory that an engine takes from, itself left out."""
        return self.ledger_of(engine, but=engine.name)

    def ledger_of(self, sample: Engine, but: str | None = None) -> Ledger:
        """Read who holds what of the memory that this engine takes from."""
        live = self.live(sample.pool, but)
        # Processes first: one that ends in between is then no foreign one.
        meter = self.meter(sample)
        family = processes.children() if live else {}
        pids = {
            engine: meter.pids(engine, self.pids(engine, state, family))
            for engine, state in live.items()
        }
        card = meter.read(sample.gpu_index)
        counts = self.connections()
        claims = tuple(
            Claim(
                name=engine.name,
                state=state.state,
                need_mib=state.need_mib,
                used_mib=sum(card.by_pid.get(pid, 0) for pid in pids[engine]),
                connections=counts.get(engine.port, 0),
                always=engine.boot == "always",
                last_use=state.since,
            )
            for engine, state in live.items()
        )
        ours = frozenset().union(*pids.values())
        others = sorted(
            ((mib, pid) for pid, mib in card.by_pid.items() if pid not in ours), reverse=True
        )[:_NAMED]
        return Ledger(
            total_mib=card.total_mib,
            used_mib=card.used_mib,
            reserve_mib=self.config.reserve_mib,
            claims=claims,
            others=tuple(
                Process(pid, processes.name(pid), mib) for mib, pid in others if mib >= _WORTH_MIB
            ),
        )

    def with_last_use(self, ledger: Ledger) -> Ledger:
        """Add when each idle engine was last used.

        systemd's proxy keeps no such time, but engines write a line for every request, so the time
        of the last line in the journal is the time of the last use, without a process that counts.
        """
        return replace(
            ledger,
            claims=tuple(
                replace(
                    claim,
                    last_use=self.units.last_line(self.config.engine(claim.name).server)
                    or claim.last_use,
                )
                if claim.evictable
                else claim
                for claim in ledger.claims
            ),
        )

    def pids(
        self, engine: Engine, state: State | None, family: dict[int, list[int]] | None = None
    ) -> frozenset[int]:
        """Give all processes of an engine; none when it has none, or when we may not ask."""
        root = (state.pid if state else None) or self.root_pid(engine)
        return processes.tree(root, family) if root else frozenset()

    def root_pid(self, engine: Engine) -> int:
        """Give the first process of an engine: its container's, or its unit's without one."""
        if engine.container is None:
            unit = self.units.show([engine.server]).get(engine.server)
            return unit.pid if unit else 0
        try:
            container = self.docker.container(engine.container)
        except (OSError, EngineError):
            return 0
        return container.pid if container and container.running else 0

    def need(self, engine: Engine, config: str | None = None) -> int | None:
        """Give the memory to set aside for an engine; None when nobody can know it yet."""
        seen = measured.read(self.paths.measured, engine.name)
        return measured.need(engine, seen, self.config.models_dir, config)

    def now(self) -> float:
        """Give the time as the states have it."""
        return time.time()
