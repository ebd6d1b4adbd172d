"""Update rules: which prints move which statistic, by condition code and date, as data.

A print is eligible for a statistic when the matrix says so of all its codes and the vendor has not excluded it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import date
from enum import IntFlag
from functools import cached_property
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from k2_core.quality import Flag
from k2_core.scopes import dense


class Update(IntFlag):
    """The statistics a print may update, one bit each."""

    OPEN = 1 << 0
    HIGH = 1 << 1
    LOW = 1 << 2
    LAST = 1 << 3
    VOLUME = 1 << 4
    COUNT = 1 << 5
    VWAP = 1 << 6


NONE, ALL = Update(0), Update((1 << len(Update)) - 1)
Updates = npt.NDArray[np.uint8]
"""Bits of `Update`, per print."""

_WORDS = {"all": ALL, "none": NONE}
_FIELDS = {"code", "from", "to", "updates", "meaning"}


@dataclass(frozen=True)
class Rule:
    """What a print with this code updates on exchange dates in [first, end)."""

    code: str
    updates: Update
    first: date = date.min
    end: date = date.max
    meaning: str = ""


@dataclass(frozen=True)
class Conditions:
    """The condition matrix of one exchange. unlisted: what a code without a rule on the day updates."""

    exchange: str
    rules: tuple[Rule, ...]
    unlisted: Update

    @cached_property
    def version(self) -> str:
        """SHA-256 over the rules, the version of every answer computed by them. What a code means is no part of it."""
        rules = sorted([r.code, r.first.isoformat(), r.end.isoformat(), int(r.updates)] for r in self.rules)
        stated = {"exchange": self.exchange, "unlisted": int(self.unlisted), "rules": rules}
        return hashlib.sha256(json.dumps(stated, sort_keys=True).encode()).hexdigest()

    def of(self, code: str, day: date) -> Update:
        """What a print with one code updates on one exchange date."""
        return next((r.updates for r in self.rules if r.code == code and r.first <= day < r.end), self.unlisted)

    def updates(self, trades: pa.Table) -> Updates:
        """What each print updates. trades: trade_conditions, exchange_date and quality_flags, any order."""
        found = np.full(len(trades), int(ALL), np.uint8)
        lists = pa.chunked_array(trades["trade_conditions"]).combine_chunks()
        codes = lists.flatten().dictionary_encode()
        at = np.repeat(np.arange(len(trades)), pc.list_value_length(lists).to_numpy())
        days, which = dense(pa.chunked_array(trades["exchange_date"]).combine_chunks().view(pa.int32()).to_numpy())
        dates = days.astype("datetime64[D]").tolist()
        matrix = np.array([[int(self.of(c, d)) for d in dates] for c in codes.dictionary.to_pylist()], np.uint8)
        if len(at):
            np.bitwise_and.at(found, at, matrix[codes.indices.to_numpy(), which[at]])
        found[trades["quality_flags"].to_numpy() & int(Flag.VENDOR_EXCLUDED) != 0] = int(NONE)
        return found


def parse_conditions(document: Mapping[str, Any]) -> Conditions:
    """Read the content of a file of config/conditions. Raises ValueError naming the rule that is wrong."""
    entries = document.get("rules")
    if not isinstance(entries, list) or not entries or not document.get("exchange"):
        raise ValueError("expected an exchange and a non-empty list of rules")
    rules = tuple(_rule(entry) for entry in entries)
    _refuse_overlaps(rules)
    return Conditions(str(document["exchange"]), rules, _updates(document.get("unlisted")))


def _rule(entry: Any) -> Rule:
    try:
        if unknown := sorted(set(entry) - _FIELDS):
            raise ValueError(f"unknown fields {unknown}, expected {sorted(_FIELDS)}")
        if not isinstance(entry["code"], str) or not entry["code"]:
            raise ValueError(f"code is {entry['code']!r}, expected text: quote it")
        first, end = entry.get("from", date.min), entry.get("to", date.max)
        if not (isinstance(first, date) and isinstance(end, date) and first < end):
            raise ValueError(f"from {first} to {end} is no range of dates")
        return Rule(entry["code"], _updates(entry["updates"]), first, end, str(entry.get("meaning", "")))
    except (TypeError, KeyError, ValueError) as error:
        raise ValueError(f"rule {entry!r}: {error}") from error


def _updates(stated: Any) -> Update:
    if isinstance(stated, str) and stated in _WORDS:
        return _WORDS[stated]
    names = {update.name.lower(): update for update in Update if update.name}
    if not isinstance(stated, list) or not stated or not set(stated) <= names.keys():
        raise ValueError(f"updates is {stated!r}, expected all, none, or a list of {', '.join(names)}")
    return Update(sum(names[name] for name in set(stated)))


def _refuse_overlaps(rules: Iterable[Rule]) -> None:
    for one, other in pairwise(sorted(rules, key=lambda rule: (rule.code, rule.first))):
        if one.code == other.code and other.first < one.end:
            raise ValueError(f"code {one.code}: two rules hold on {other.first}")
