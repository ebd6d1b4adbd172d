"""Dead letters as the API tells them: how each stands follows from statements and receipts, never from the clock.

The lake alone is asked: a replay whose statement no run has ingested yet is not known here; `k2 dead-letters` asks the
log for those. Receipts count as far as letters are collected, so that no letter still to come looks resolved.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from k2_api.ledger_models import LettersQuestion
from k2_api.ledgers import Ledgers, LedgerState, Row
from k2_core.contracts import COVERAGE, DEAD_LETTERS, RECEIPTS, table_named
from k2_core.letters import REPLAYED, Delivery, Fate, Place, Standing, deliveries_in, standings
from k2_core.windows import FIRST_US, to_us


@dataclass(frozen=True)
class Letters:
    """Dead letters at one look. known: how those stand that do not stand open. sent: where replays of each went."""

    pinned: tuple[LedgerState, ...]
    known: Mapping[Place, Standing]
    sent: Mapping[Place, Collection[Place]]


async def letters_now(ledgers: Ledgers) -> Letters:
    """Look at the letters, and work out how those stand that were sent again."""
    at = await ledgers.pin(DEAD_LETTERS)  # first: receipts are collected before letters
    coverage, receipts = await ledgers.pin(COVERAGE), await ledgers.pin(RECEIPTS)

    async def made() -> Letters:
        return await _letters(ledgers, at, coverage, receipts)

    return await ledgers.once("letters", (at, coverage, receipts), made)


async def _letters(ledgers: Ledgers, at: LedgerState, coverage: LedgerState, receipts: LedgerState) -> Letters:
    deliveries = deliveries_in(await ledgers.rows(coverage, "replayed", {"event": REPLAYED}))
    sent: dict[Place, set[Place]] = defaultdict(set)
    for delivery in deliveries:
        sent[delivery.letter].add(delivery.delivered)
    known = await _known(ledgers, at, receipts, deliveries) if deliveries else {}
    return Letters((at, coverage, receipts), known, sent)


async def letter_rows(
    ledgers: Ledgers, letters: Letters, question: LettersQuestion, after: tuple[int | str, ...] | None
) -> list[Row]:
    """The letters of a question after a key, newest first, one more than its limit at most."""
    place = ("after_us", "after_topic", "after_epoch", "after_partition", "after_offset")
    values = {
        "table": question.table and table_named(question.table).name,
        "topic": question.topic,
        "reason": question.reason and question.reason.value,
        "status": question.status and question.status.value,
        "start": question.start_time,
        "end": question.end_time,
        "with_bytes": question.with_bytes,
        "open": Standing.OPEN.value,
        "earliest_us": FIRST_US,
        **dict(zip(place, after or (None,) * len(place), strict=True)),
        **_columns(letters.known, prefix="standing_"),
        "standing_words": [standing.value for standing in letters.known.values()],
        "limit": question.limit + 1,
    }
    rows = await ledgers.rows(letters.pinned[0], "letters", values)
    return [{**row, "delivered": [str(p) for p in sorted(letters.sent.get(_place(row), ()))]} for row in rows]


def letter_key(row: Mapping[str, Any]) -> tuple[int | str, ...]:
    """Where a letter stands in the list."""
    at, time = _place(row), row["kafka_timestamp"]
    return FIRST_US if time is None else to_us(time), at.topic, at.epoch, at.kafka_partition, at.offset


async def _known(
    ledgers: Ledgers, at: LedgerState, receipts: LedgerState, deliveries: Iterable[Delivery]
) -> dict[Place, Standing]:
    """How letters stand that were sent again, and those they became."""
    named = sorted({place for d in deliveries for place in (d.letter, d.delivered)})
    found = {_place(row) for row in await ledgers.rows(at, "letters_at", _columns(named))}
    collected = await asyncio.to_thread(ledgers.collected, at)
    told = await ledgers.rows(receipts, "letter_fates", {**_columns(named), **collected})
    fates = {Place(r["topic"], r["epoch"], r["kafka_partition"], r["kafka_offset"]): _fate(r) for r in told}
    stand = standings(found, deliveries, lambda place: fates.get(place, "ahead"))
    return {place: standing for place, standing in stand.items() if standing is not Standing.OPEN}


def _fate(row: Row) -> Fate:
    if row["is_ahead"]:
        return "ahead"
    return "read" if row["is_read"] else "lost"


def _columns(places: Iterable[Place], prefix: str = "") -> dict[str, list[Any]]:
    """Places as the parameters of a statement: lists of one length."""
    listed = list(places)
    return {
        f"{prefix}topics": [p.topic for p in listed],
        f"{prefix}epochs": [p.epoch for p in listed],
        f"{prefix}kafka_partitions": [p.kafka_partition for p in listed],
        f"{prefix}offsets": [p.offset for p in listed],
    }


def _place(row: Mapping[str, Any]) -> Place:
    return Place(row["kafka_topic"], row["kafka_epoch"], row["kafka_partition"], row["kafka_offset"])
