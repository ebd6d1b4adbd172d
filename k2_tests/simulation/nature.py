"""What nobody in K2 decides: producers, retention, topics made anew or widened, power cuts."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from k2_core.errors import IncarnationChanged
from k2_tests.simulation.cluster import Token
from k2_tests.simulation.scheduler import Actor
from k2_tests.simulation.world import World

KEYS_AGAIN = 0.25
"""Share of records that repeat a key: half of them as they were, half with new content."""
BAD, UNKNOWN, HOLES = 0.08, 0.03, 0.1
"""Shares of records that die, whose schema is not known yet, and of offsets without a record."""
PARTITIONS_MAX = 3


@dataclass
class Nature:
    """Producers, retention, topics made anew or widened, power cuts: what nobody in K2 decides."""

    world: World
    odds: dict[str, float]
    keys: int = 0

    def live(self, events: int) -> Callable[[Actor], None]:
        """Let so many things happen."""

        def body(actor: Actor) -> None:
            for _ in range(events):
                self.world.scheduler.nap(int(self.world.rng.random() * 30))
                self.happen()

        return body

    def happen(self) -> None:
        """One event: mostly records, now and then something worse."""
        if not self.world.cluster.topics:
            return
        drawn = self.world.rng.random()
        for name, odds in self.odds.items():
            if drawn < odds:
                self._count(name)
                getattr(self, name)()
                return
            drawn -= odds
        self.produce(1 + int(self.world.rng.random() * 4))

    def produce(self, records: int) -> None:
        """Append records to one topic; a producer that missed an acknowledgement sends twice."""
        rng, cluster = self.world.rng, self.world.cluster
        name = self._any_topic()
        for _ in range(records):
            partitions = cluster.topics[name].partitions
            p = int(rng.random() * len(partitions))
            if rng.random() < HOLES:
                partitions[p].entries.append(None)
            token = self._token(name)
            if rng.random() < 0.1:
                cluster.produce(name, p, token, acknowledge=False)
                self._count("sent_twice")
            cluster.produce(name, p, token, acknowledge=rng.random() < 0.95)

    def poison(self) -> None:
        """Records of a broken producer."""
        name = self._any_topic()
        for _ in range(4):
            self.world.cluster.produce(name, 0, Token(0, 0, "bad"), acknowledge=True)

    def retention(self) -> None:
        """The oldest records of a partition go, read or not."""
        partitions = self.world.cluster.topics[self._any_topic()].partitions
        partition = partitions[int(self.world.rng.random() * len(partitions))]
        partition.low += int(self.world.rng.random() * (partition.high - partition.low + 1))

    def recreate(self, away_steps_max: int = 20) -> None:
        """A topic is deleted and made anew, not in one moment."""
        name, cluster = self._any_topic(), self.world.cluster
        cluster.delete(name)
        self.world.scheduler.tell(f"{name} is deleted")
        if away_steps_max:
            self.world.scheduler.nap(int(self.world.rng.random() * away_steps_max))
        cluster.create(name, 1 + int(self.world.rng.random() * PARTITIONS_MAX))
        self.produce(1 + int(self.world.rng.random() * 10))
        if self.world.rng.random() < 0.5:  # who made it anew tells the operator
            self.world.complaints.append(IncarnationChanged(f"{name} was made anew"))

    def widen(self) -> None:
        """A topic gets one more partition."""
        partitions = self.world.cluster.topics[self._any_topic()].partitions
        if len(partitions) < PARTITIONS_MAX:
            partitions.append(type(partitions[0])())

    def power_cut(self) -> None:
        """Every process dies, and what was not synced is gone."""
        self.world.scheduler.kill_all()
        if self.world.disk.lose():
            self._count("unsynced_lost")

    def schemas(self) -> None:
        """The registry learns, or forgets, the schema of unknown records."""
        self.world.knows_schemas = not self.world.knows_schemas

    def _token(self, name: str) -> Token:
        rng = self.world.rng
        drawn = rng.random()
        if drawn < BAD:
            return Token(0, 0, "bad")
        kind = "unknown" if drawn < BAD + UNKNOWN else "good"
        if self.keys and rng.random() < KEYS_AGAIN:
            return Token(1 + int(rng.random() * self.keys), int(rng.random() * 2), kind)
        self.keys += 1
        return Token(self.keys, 0, kind)

    def _any_topic(self) -> str:
        names: Iterable[str] = self.world.cluster.topics
        names = sorted(names)
        return names[int(self.world.rng.random() * len(names))]

    def _count(self, event: str) -> None:
        self.world.scheduler.tell(event)
        struck = self.world.weather.struck
        struck[event] = struck.get(event, 0) + 1
