"""One commit: files first, each durable, then one fenced swap; an unknown outcome is looked up, never guessed."""

from __future__ import annotations

from k2_core.errors import FencedOut, K2Error, Unreachable, Unwritable
from k2_core.keys import CONTRACT_KEY, SWEPT_KEY, paused_key, state_key, topic_key
from k2_core.protocol.ports import Change, Expected, Head, Landed, Ledger, Outpaced, Staged
from k2_core.receipts import Receipt

ATTEMPTS_MAX = 10
"""Times a commit that lost to maintenance is tried again before the run gives up."""
LOST_ANSWERS_MAX = 3
"""Times a commit fails for another reason, and is proven not to have happened, before the run gives up."""


def commit(ledger: Ledger, at: Head, change: Change) -> Landed:
    """Commit once: rows, next offsets, state and receipt together.

    Raises FencedOut when another writer changed what the batch relied on; then nothing of it is in the table.
    """
    staged = ledger.stage(at, change)
    expected = expectations(at, staged)
    lost = 0
    for _ in range(ATTEMPTS_MAX):
        try:
            return ledger.swap(at, staged, expected)
        except FencedOut:
            # pyiceberg tries again by itself: the fence may have been moved by our own first try, its answer lost
            if (mine := ledger.landed(ledger.head(at.table), staged)) is not None:
                return mine
            raise
        except Outpaced:
            at = ledger.head(at.table)
        except Exception as unknown:  # a lost answer, a lost lock: only the history knows what happened
            at = _look(ledger, at, unknown)
            if (mine := ledger.landed(at, staged)) is not None:
                return mine
            _expect_at_start(at, expected, unknown)
            # a file that could not be written was needed before anybody is asked: trying again only litters the disk
            if (lost := lost + 1) == LOST_ANSWERS_MAX or isinstance(unknown, Unwritable):
                raise _named(at, unknown) from unknown
    raise FencedOut(f"{at.table.name}: {ATTEMPTS_MAX} attempts lost to other commits; plan again")


def _look(ledger: Ledger, at: Head, unknown: Exception) -> Head:
    try:
        return ledger.head(at.table)
    except K2Error as error:
        raise Unreachable(
            f"{at.table.name}: the outcome of a commit is unknown ({unknown}), and the catalog does not say: {error}. "
            "Nothing is lost: the next run goes on from what is true then."
        ) from unknown


def _named(at: Head, unknown: Exception) -> K2Error:
    if isinstance(unknown, K2Error):
        return unknown
    told = f"{unknown.__class__.__name__}: {unknown}"
    return Unreachable(f"{at.table.name}: {LOST_ANSWERS_MAX} commits in a row failed, nothing of them is there: {told}")


def _expect_at_start(at: Head, expected: Expected, unknown: Exception) -> None:
    """Offsets at the start: nothing landed, commit again. Elsewhere: somebody else did, and we are done."""
    moved = sorted(key for key, value in expected.items() if at.property(key) != value)
    if moved:
        raise FencedOut(f"{at.table.name}: another writer moved {', '.join(moved)}; plan again") from unknown


def expectations(at: Head, staged: Staged) -> Expected:
    """Every `k2.*` key a commit sets or relied on, with the value of plan time: what the fence compares."""
    return {key: at.property(key) for key in {*staged.properties, *_relied_on(staged.receipt)}}


def _relied_on(receipt: Receipt) -> set[str]:
    topics = {r.topic for r in receipt.ranges}
    paused = {paused_key(r.topic, r.kafka_partition) for r in receipt.ranges}
    return {*map(topic_key, topics), *map(state_key, topics), *paused, CONTRACT_KEY, SWEPT_KEY}
