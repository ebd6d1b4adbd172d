"""A key that comes twice in one map: the last value holds, at the place of the first, as in a Python dict."""

from __future__ import annotations

from dataclasses import replace
from itertools import combinations, pairwise

import numpy as np

from k2_core.frames import Longs
from k2_core.lockstep.columns import Lists, Values
from k2_core.lockstep.lanes import Block, Words

_WORD_BYTES = 8
_BITS_OF = np.array([(1 << 8 * n) - 1 for n in range(_WORD_BYTES)] + [(1 << 64) - 1], np.uint64)
"""Mask over the first n bytes of a word."""
_ODD = np.uint64(0x9E3779B97F4A7C15)
_ROUNDS_MAX = 8
"""Maps with more entries are compared by sorting: pairs of rounds grow with the square of their number."""


def suspects(owners: list[Longs], keys: list[Values], block: Block) -> Longs:
    """Maps in which two keys may be equal: those of one length, one beginning and one end.

    owners, keys: of each round of entries; a round usually holds the first lanes of the one before.
    """
    if len(owners) < 2:
        return np.empty(0, np.int64)
    if len(owners) > _ROUNDS_MAX or not all(_begins(a, b) for a, b in pairwise(owners)):
        return _by_sorting(np.concatenate(owners), keys, block)
    found: list[Longs] = []
    for i, j in combinations(range(len(owners)), 2):
        n = len(owners[j])
        alike = np.flatnonzero(keys[i].parts[1][:n] == keys[j].parts[1])
        if len(alike):
            found.append(owners[j][_alike_at_both_ends(keys[i], keys[j], block, alike)])
    return np.unique(np.concatenate(found)) if any(map(len, found)) else np.empty(0, np.int64)


def last_of_each(lists: Lists, doubtful: Longs, block: Block) -> Lists:
    """The maps with those that are doubtful compared by their bytes."""
    assert lists.keys is not None
    assert lists.items is not None
    every_key, every_item = lists.keys.settled(), lists.items.settled()
    starts, lengths = every_key.parts
    bounds = np.append(0, np.cumsum(lists.counts))
    takes = np.arange(len(starts))
    kept = np.ones(len(starts), np.bool_)
    for owner in doubtful.tolist():
        first_at: dict[bytes, int] = {}
        for at in range(int(bounds[owner]), int(bounds[owner + 1])):
            start = int(starts[at])
            first = first_at.setdefault(bytes(block.view[start : start + int(lengths[at])]), at)
            takes[first] = at
            kept[at] = first == at
    counts = lists.counts - _dropped_of(np.flatnonzero(~kept), bounds)
    keys, items = every_key.taken(np.flatnonzero(kept)), every_item.taken(takes[kept])
    return replace(lists, counts=counts, keys=keys, items=items)


def _dropped_of(places: Longs, bounds: Longs) -> Longs:
    """How many of some entries lie in each map."""
    owners = np.searchsorted(bounds, places, side="right") - 1
    dropped: Longs = np.bincount(owners, minlength=len(bounds) - 1)
    return dropped


def _begins(longer: Longs, shorter: Longs) -> bool:
    return len(shorter) <= len(longer) and np.array_equal(longer[: len(shorter)], shorter)


def _by_sorting(owners: Longs, keys: list[Values], block: Block) -> Longs:
    marks = np.concatenate([_marks(of_round, block, np.arange(len(of_round))) for of_round in keys])
    order = np.lexsort((marks, owners))
    owners, marks = owners[order], marks[order]
    found: Longs = np.unique(owners[1:][(marks[1:] == marks[:-1]) & (owners[1:] == owners[:-1])])
    return found


def _alike_at_both_ends(some: Values, others: Values, block: Block, index: Longs) -> Longs:
    """Those of some places of two rounds, their keys of one length, where keys begin and end with the same bytes."""
    lengths = some.parts[1][index]
    ones, twos = some.parts[0][index], others.parts[0][index]
    differ = _words(ones, block)
    differ ^= _words(twos, block)
    differ &= _BITS_OF.take(lengths, mode="clip")
    left = np.flatnonzero(differ == 0)
    ends = lengths[left] - _WORD_BYTES
    same = (ends <= 0) | (_words(ones[left] + ends, block) == _words(twos[left] + ends, block))
    alike: Longs = index[left[same]]
    return alike


def _words(at: Longs, block: Block) -> Words:
    return block.words[np.clip(at, 0, block.word_last)]


def _marks(keys: Values, block: Block, index: Longs) -> Words:
    """A number for each key, equal for equal keys, and rarely for others."""
    starts, lengths = (part[index] for part in keys.parts)
    marks = _words(starts, block)
    marks &= _BITS_OF.take(lengths, mode="clip")
    ends = _words(starts + lengths - _WORD_BYTES, block)
    marks ^= np.where(lengths > _WORD_BYTES, ends * _ODD, np.uint64(0))
    marks += lengths.view(np.uint64) * _ODD
    return marks
