"""What may happen in a round: one kill after the other, rivals, zombies, sweeps, rewrites, another broker."""

from __future__ import annotations

import random
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass

from k2_resources import failpoints
from k2_tests.crash.torture.attempts import CHANGED, DONE, FENCED, TRIPPED, UNREACHABLE
from k2_tests.crash.torture.points import ANYWHERE, EXPIRING, POINTS, SNAPSHOTS, SWEEPING, Aim, Deck, Tally
from k2_tests.crash.torture.scene import Scene
from k2_tests.crash.torture.workers import Worker

KILLED = -signal.SIGKILL
EVENTS_MIN, EVENTS_MAX = 12, 18
ROWS = (10, 20, 40)
WAITING_MIN = 10
"""Records that wait before an event: enough for a commit or two, so that an attempt is short and dies soon."""
CODE_VERSIONS = ("0.1.0", "0.1.1", "0.2.0")
MOMENT_SECONDS_MAX = 0.6
ZOMBIE_SECONDS_MAX = 20.0
INGEST_POINTS = tuple(name for name in POINTS if name not in SWEEPING)
PAUSES = tuple(name for name in failpoints.NAMES if name in INGEST_POINTS)


@dataclass
class Play:
    """One round on a scene: events drawn from its own random source, then everything is settled and compared."""

    scene: Scene
    rng: random.Random
    deck: Deck
    tally: Tally

    def round(self) -> None:
        """Play the events of one round. Raises Wrong."""
        self.scene.market.wide = self.rng.random() < 0.5
        for _ in range(self.rng.randint(EVENTS_MIN, EVENTS_MAX)):
            (event,) = self.rng.choices([event for _, event in EVENTS], [weight for weight, _ in EVENTS])
            self._feed()
            self.scene.note(event.__name__)
            event(self)
            self.scene.counted[event.__name__] += 1
        self.scene.settle()

    def kill(self) -> None:
        """One worker dies at a point; whoever comes next finds what it left."""
        self._killed(self._start(self.deck.deal()))

    def kill_anywhere(self) -> None:
        """One worker dies at some moment."""
        worker = self._worker()
        worker.killed_after(self.rng.uniform(0.02, MOMENT_SECONDS_MAX))
        if self.scene.end(worker, (KILLED, DONE)) == KILLED:
            self.tally.hits[ANYWHERE] += 1

    def fail(self) -> None:
        """A call fails in one worker at a point; the process lives to see it."""
        aim = self.deck.deal(PAUSES)
        self.scene.end(self._worker(failpoint=aim.failpoint("raise")), (DONE, TRIPPED))

    def rivals(self) -> None:
        """Two or three workers want the same offsets at the same time, and die in the middle; one may sweep."""
        started = [self._start(self.deck.deal()) for _ in range(self.rng.randint(2, 3))]
        self.scene.market.send(self.rng.randint(5, 30))
        for worker in started:
            self._killed(worker)

    def compact(self) -> None:
        """A compactor races with a writer; either may die."""
        aim = self.deck.deal()
        writer = self._start(aim)
        failpoint = self.rng.choice(("", "committing:1:kill", "metadata_written:1:kill", "committed:1:kill"))
        compactor = self._worker(work="rewrite", failpoint=failpoint)
        self._killed(compactor)
        self._killed(writer)

    def zombie(self) -> None:
        """A writer stands still while another does its work, and then goes on."""
        self._zombie(lambda: None)

    def zombie_swept(self) -> None:
        """While it stands still its files are swept away."""
        self._zombie(lambda: self.scene.end(self._worker(work="sweep"), (DONE,)))

    def zombie_outdated(self) -> None:
        """While it stands still the contract is raised."""
        self._zombie(lambda: self.scene.end(self._worker(work="recontract"), (DONE,)))

    def zombie_compacted(self) -> None:
        """While it stands still the files it has read are rewritten, and old snapshots forgotten."""
        self._zombie(lambda: self.scene.end(self._worker(work="rewrite"), (DONE,)))

    def zombie_adopted(self) -> None:
        """While it stands still its broker dies, and its topics are adopted on another."""
        self._zombie(self._another_broker)

    def another_broker(self) -> None:
        """The broker dies and takes along what was not ingested; another comes, and the feed sends again."""
        self._another_broker()

    def _another_broker(self) -> None:
        self.scene.market.flush()
        # a topic nobody has registered yet has no epoch to follow: its first broker would be unknown to the lake
        self.scene.end(self._worker(work="adopt"), (DONE,))
        self.scene.start_broker()
        if self.rng.random() < 0.5:
            self.scene.market.send(10)
        if self.rng.random() < 0.7:
            aim = Aim(self.rng.choice(("receipt_written", "committing", "metadata_written", "committed")), 1)
            self._killed(self._worker(work="adopt", failpoint=aim.failpoint("kill")))
        self.scene.end(self._worker(work="adopt"), (DONE,))
        self.scene.market.send_again(30)

    def _zombie(self, meanwhile: Callable[[], object]) -> None:
        aim = self.deck.deal(PAUSES)
        zombie = self._worker(failpoint=aim.failpoint("pause"), tries=1, snapshots=aim.snapshots)
        if not zombie.stops():
            self.scene.end(zombie, (DONE, FENCED))
            return
        self.scene.counted["zombies"] += 1
        self.scene.market.send(self.rng.randint(5, 40))
        self._killed(self._start(self.deck.deal(INGEST_POINTS)))
        meanwhile()
        if self.rng.random() < 0.7:
            self._killed(self._start(self.deck.deal(EXPIRING)))
        rival = self._worker() if self.rng.random() < 0.5 else None
        zombie.goes_on()
        code = self.scene.end(zombie, (DONE, FENCED, CHANGED, UNREACHABLE), ZOMBIE_SECONDS_MAX)
        self.scene.counted[f"zombies {('finished', '', '', 'fenced out', 'stopped', 'cut off')[code]}"] += 1
        if rival is not None:
            self.scene.end(rival, (DONE, FENCED))

    def _feed(self) -> None:
        """Keep some records waiting, so that every point is reached."""
        if self.scene.waiting() < WAITING_MIN:
            self.scene.market.send(self.rng.randint(WAITING_MIN, 2 * WAITING_MIN))
        if self.rng.random() < 0.5:
            self.scene.market.flush()

    def _start(self, aim: Aim) -> Worker:
        return self._worker(work=aim.work, failpoint=aim.failpoint("kill"), snapshots=aim.snapshots)

    def _worker(self, **attempt: object) -> Worker:
        """A worker as some deployment of some day would run it."""
        given = {
            "rows_per_commit": self.rng.choice(ROWS),
            "code_version": self.rng.choice(CODE_VERSIONS),
            "snapshots": SNAPSHOTS,
            **attempt,
        }
        return self.scene.work(**given)

    def _killed(self, worker: Worker) -> None:
        """Wait for the end of a worker that should die, and count it where it did."""
        before = time.monotonic()
        if self.scene.end(worker, (KILLED, DONE, FENCED)) == KILLED:
            self.tally.hits[worker.attempt.failpoint.partition(":")[0]] += 1
        else:
            self.scene.counted["survived"] += 1
        self.scene.seconds["workers"] += time.monotonic() - before


EVENTS: tuple[tuple[float, Callable[[Play], None]], ...] = (
    (12.0, Play.kill),
    (3.0, Play.rivals),
    (1.0, Play.kill_anywhere),
    (0.7, Play.fail),
    (1.0, Play.compact),
    (0.8, Play.zombie),
    (0.8, Play.zombie_swept),
    (0.3, Play.zombie_outdated),
    (0.4, Play.zombie_compacted),
    (0.15, Play.zombie_adopted),
    (0.15, Play.another_broker),
)
"""Weight and event of a round."""
