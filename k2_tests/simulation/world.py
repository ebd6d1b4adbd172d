"""Everything outside of the protocol, in one seed, and how a process meets the protocol in it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random
from typing import Any

from k2_core.errors import (
    Damaged,
    Halted,
    K2Error,
)
from k2_core.feeds import Feed
from k2_core.protocol.ingestion import Ingestion
from k2_tests.simulation.catalog import Catalog
from k2_tests.simulation.cluster import Cluster, SimulatedLog
from k2_tests.simulation.desk import SimulatedDesk
from k2_tests.simulation.disk import Disk
from k2_tests.simulation.ledger import SimulatedLedger
from k2_tests.simulation.scheduler import Scheduler
from k2_tests.simulation.truth import Truth
from k2_tests.simulation.weather import Weather


@dataclass
class World:
    """Everything outside of the protocol, in one seed."""

    rng: Random
    scheduler: Scheduler
    weather: Weather
    disk: Disk
    cluster: Cluster
    catalog: Catalog
    ledger: SimulatedLedger
    log: SimulatedLog
    truth: Truth
    feeds: tuple[Feed, ...]
    engine: Callable[..., Ingestion] = Ingestion
    intrusions: tuple[Callable[[World, str], None], ...] = ()
    knows_schemas: bool = False
    complaints: list[Halted] = field(default_factory=list)
    ended: dict[str, int] = field(default_factory=dict)

    def ingestion(self, run_id: str, rows_per_commit: int = 0) -> Ingestion:
        """The protocol of one process: its code and its size of a batch may differ from those of the others."""
        ahead = int(self.rng.random() * 2)
        desk = SimulatedDesk(self.disk, self.scheduler, lambda: self.knows_schemas, ahead, run_id)
        rows = rows_per_commit or 1 + int(self.rng.random() * 4)
        return self.engine(self.ledger, self.log, desk, self.feeds, self.scheduler.reach, run_id, rows)

    def attempt(self, what: Callable[[], Any]) -> Any:
        """Do something that may fail as the protocol may; what halts is left to the operator."""
        try:
            return what()
        except Halted as error:
            self.complaints.append(error)
            self._end(error)
        except Damaged as error:  # nothing ever is: who says so raises a false alarm
            self.truth.violate("alarmed", str(error))
        except (K2Error, OSError) as error:
            self._end(error)
        return None

    def _end(self, error: Exception) -> None:
        name = type(error).__name__
        self.ended[name] = self.ended.get(name, 0) + 1
        self.scheduler.tell(f"{name}: {error}")
