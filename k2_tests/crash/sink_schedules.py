"""The schedules that lost or doubled rows in Iceberg's Kafka Connect sink, played against K2 with real processes.

That sink has workers, which write files and announce them in a control topic together with their source offsets, and
a coordinator, which turns announcements into a commit and then moves a consumer group's offset in the control topic.
What was committed lives in three places: the group of the workers, the group of the coordinator, the snapshot summary.
K2 has one: the table's own properties, compared and set in the commit that adds the files.

Each function takes a stack on any broker and leaves it with every record in the table once; the caller proves it.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from k2_assets.engine import Engine
from k2_core.contracts import TRADES
from k2_core.protocol.ingestion import HINT_GROUP
from k2_tests.crash.writers import CAUGHT_UP, FENCED_OUT, Writer
from k2_tests.kafka_server import LedgerStack, RealStack

Schedule = Callable[[LedgerStack], None]
STEPS = ("planned", "read", "judged", "data_written", "committing")
"""Steps of a commit after which a process holds something it may still bring about."""
_FILE_SECONDS_MAX = 60.0


def zombie_that_outlives_its_successor(here: LedgerStack) -> None:
    """Issue 17551, data loss with default configs.

    The sink: coordinator A is replaced by B but never exits. With no partition assigned it goes on writing its old
    control-topic offset, taking turns with B's. Retention removes the record at that offset; B dies; A writes the old
    offset once more, and last; the next coordinator finds it out of range, starts at `latest` (the default), and every
    file announced between is never committed.
    K2: a writer stopped in the middle of its commit wakes after its successor committed further and died, and after
    the log lost everything already stored. It is fenced out and moves nothing; the next writer starts where the table
    says, whatever the consumer group says.
    """
    here.send(here.trades(120))
    here.ingest()
    here.send(here.trades(120))
    with Writer(here.settings, "committing:1:pause") as zombie:
        zombie.paused()
        here.ingest()
        here.send([*here.trades(120), b"junk"])
        with Writer(here.settings, "committed:1:kill") as successor:
            successor.killed()
        if isinstance(here, RealStack):
            _trim_what_is_stored(here)
        assert zombie.wake() == FENCED_OUT
    _rewind_group(here)
    here.send(here.trades(60))
    assert _finish(here) == CAUGHT_UP


def restarts_in_the_middle_of_a_commit_cycle(here: LedgerStack) -> None:
    """Issue 17340, duplicate files after a restart: 149 files in the table twice, 111,927 rows doubled, six incidents.

    The sink: tasks restarted in the middle of a cycle make the coordinator read the control topic again from its last
    group offset. The position it remembers is whatever it read last, so it goes backwards, into the group and into the
    snapshot summary; announcements already committed pass the filter, and the next commit adds the same files again.
    K2: six writers die between the commit and everything that follows it, and each time the consumer group is set back
    to the start. Nothing is read twice: the offsets are in the commit itself, and a position never goes back.
    """
    here.send(here.trades(40))
    here.ingest()
    for step in ("committed", "collecting_receipts", "collected_receipts", "committed", "hinted", "committed"):
        here.send([*here.trades(60), b"junk"])
        with Writer(here.settings, f"{step}:1:kill") as writer:
            writer.killed()
        _rewind_group(here)
    assert _finish(here) == CAUGHT_UP


def file_announced_once_and_committed_by_two(here: LedgerStack) -> None:
    """Issue 16282, the same data file registered in two snapshots.

    The sink: coordinator C1 commits file X; its connection breaks before it can move its control-topic offset; C2
    reads the announcement of X again and commits X again. An append does not look whether a path is there already.
    K2: one writer dies just after its commit, another executes the very plan the first had, twice. And a writer that
    has files written and is about to add them finds that another committed those offsets: it is refused, and its files
    stay out of the table.
    """
    here.send(here.trades(30))
    engine = here.ingest()
    here.send(here.trades(200))
    plan = engine.plan(TRADES)
    with Writer(here.settings, "committed:1:kill") as first:
        first.killed()
    again = here.engine()
    assert sum(c.receipt.rows_stored for c in again.execute(TRADES, plan.ranges, "again")) < 200
    assert list(again.execute(TRADES, plan.ranges, "and again")) == []
    here.send(here.trades(80))
    with Writer(here.settings, "committing:1:pause") as late:
        late.paused()
        here.ingest()
        assert late.wake() == FENCED_OUT
    assert here.engine().plan(TRADES).ranges == ()


def two_coordinators_after_a_rebalance(here: LedgerStack) -> None:
    """Issue 17637, two coordinators alive after one rebalance.

    The sink: a closing task asks the consumer group, in the middle of its rebalance, whether it was the leader, hears
    nothing, and leaves its coordinator running beside the new one. Both keep a commit timer and start commits that
    workers cannot tell apart.
    K2: there is nobody to elect. Two writers take turns in stopping each other in the middle of a commit, then both
    race for the same records. Whoever comes second is refused and plans again.
    """
    here.send(here.trades(20))
    here.ingest()
    for _ in range(3):
        here.send(here.trades(50))
        with Writer(here.settings, "committing:1:pause") as one, Writer(here.settings, "data_written:1:pause") as other:
            one.paused()
            other.paused()
            assert other.wake() == CAUGHT_UP
            assert one.wake() == FENCED_OUT
    with Writer(here.settings, patient=True) as one, Writer(here.settings, patient=True) as other:
        for _ in range(5):
            here.send(here.trades(150))
        assert (one.ended(), other.ended()) == (CAUGHT_UP, CAUGHT_UP)
    assert _finish(here) == CAUGHT_UP


def replacement_before_the_first_checkpoint(here: LedgerStack) -> None:
    """Pull request 18006, the replacement that skips what was announced before the first checkpoint.

    The sink: a worker announces file Y in one transaction with its source offsets. Before the first commit the leader
    changes. The new coordinator's group has no offset, so it starts at `latest`, behind the announcement of Y; the
    source offsets are past Y's records, so nobody reads them again. One kill -9 there lost 1,747,603 of 2,000,000.
    K2: the first writer a table ever had dies at each step of its registration and of its first batch, with the
    consumer group at the end of the log. Its replacement reads from the registered start.
    """
    here.send(here.trades(150))
    registration = ("planned:1:kill", "committing:1:kill", "committed:1:kill")
    batch = ("decoded:1:kill", "data_written:2:kill", "committing:2:kill")
    for number, failpoint in enumerate([*registration, *batch]):
        anew = here.elsewhere(home=here.settings.home.parent / f"lake-{number}")
        with Writer(anew.settings, failpoint) as first:
            first.killed()
        assert _rows(anew.engine()) == 0
        _group_to_the_end(anew)
        assert _finish(anew) == CAUGHT_UP
        anew.prove()
    assert _finish(here) == CAUGHT_UP


def kill_before_the_first_snapshot(here: LedgerStack) -> None:
    """The measured run behind notes on the peers: one kill -9 from outside, 14 s after the start, no snapshot yet.

    The sink: 1,747,603 of 2,000,000 rows never arrived, and no error was logged.
    K2: three times the first writer of a new table is killed from outside as soon as a data file is seen on disk.
    """
    here.send(here.trades(4_000))
    for number in range(3):
        anew = here.elsewhere(home=here.settings.home.parent / f"new-{number}", rows_per_commit=1_000)
        with Writer(anew.settings):
            _await_file(anew.settings.home)
        assert _rows(anew.engine()) < 4_000
        _group_to_the_end(anew)
        assert _finish(anew) == CAUGHT_UP
        anew.prove()
    assert _finish(here.elsewhere(rows_per_commit=1_000)) == CAUGHT_UP


def zombie_woken_at_each_step(here: LedgerStack) -> None:
    """Issue 18038 and pull requests 17376 and 18039, which fence stale coordinators.

    The sink: every coordinator makes a new transactional id, so no broker can tell an old one from a new one, and a
    stale one still commits.
    K2: a writer stopped at each step of a commit wakes up after another committed the same records and more arrived.
    It commits nothing of what it had; woken before it read, it may start anew from the head.
    """
    here.send(here.trades(20))
    here.ingest()
    for step in STEPS:
        here.send([*here.trades(30), b"junk"])
        with Writer(here.settings, f"{step}:1:pause") as zombie:
            zombie.paused()
            here.ingest()
            here.send(here.trades(20))
            outcome = zombie.wake()
        assert outcome in ((CAUGHT_UP, FENCED_OUT) if step == "planned" else (FENCED_OUT,)), step
    assert _finish(here) == CAUGHT_UP


SCHEDULES: tuple[Schedule, ...] = (
    zombie_that_outlives_its_successor,
    restarts_in_the_middle_of_a_commit_cycle,
    file_announced_once_and_committed_by_two,
    two_coordinators_after_a_rebalance,
    replacement_before_the_first_checkpoint,
    kill_before_the_first_snapshot,
    zombie_woken_at_each_step,
)


def _finish(here: LedgerStack) -> str:
    """What one more writer, in a process of its own, ends with."""
    with Writer(here.settings) as writer:
        return writer.ended()


def _rows(engine: Engine) -> int:
    rows: int = engine.lake.load(TRADES).scan().count()
    return rows


def _rewind_group(here: LedgerStack) -> None:
    """Set the consumer group back to the start of the log, as a stale coordinator does."""
    marks = here.engine().kafka.watermarks([here.topic])
    here.engine().kafka.commit_hint(HINT_GROUP, {at: m.low for at, m in marks.items()})


def _group_to_the_end(here: LedgerStack) -> None:
    """Set the consumer group to the end of the log, as workers do that announced all they read."""
    marks = here.engine().kafka.watermarks([here.topic])
    here.engine().kafka.commit_hint(HINT_GROUP, {at: m.high for at, m in marks.items()})


def _trim_what_is_stored(here: RealStack) -> None:
    """Let retention take every record that is in the table."""
    properties = here.engine().lake.load(TRADES).properties
    for partition in here.watermarks():
        stored = properties.get(f"k2.offset.{here.topic}.{partition}", "0:0")
        here.delete_records(partition, int(stored.rpartition(":")[2]))


def _await_file(home: Path) -> None:
    """Wait until the first data file of trades is on disk."""
    deadline = time.monotonic() + _FILE_SECONDS_MAX
    while not any("trades" in str(path) and "/data/" in str(path) for path in home.rglob("*.parquet")):
        assert time.monotonic() < deadline, "no data file appeared"
