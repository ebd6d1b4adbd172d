"""Rows of a feed as records of the original platform's first schema, which the judge lifts again: see k2_core.v1.

V1 knew one exchange, ASX. Its sequence_number carries the occurrence number of a row, which the lift takes it for, so
that a day sent in both schemas is one day.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from decimal import Decimal
from io import BytesIO
from typing import Any

import fastavro

from k2_core.contracts import TICK_TABLES, Table
from k2_core.errors import BadInput
from k2_core.feeds import Feed
from k2_core.identity import SEPARATOR
from k2_core.quality import Flag
from k2_core.v1 import EXCLUDED_VENUE, NAMESPACE, v1_schema
from k2_feeds.asx import Part
from k2_feeds.coverage import COVERAGE_FEED
from k2_feeds.outcomes import Outcome, Outcomes, Refusal, Rejected, Row, Unusable
from k2_resources.registry import Registry

_PRICE_DECIMALS = 6
_US_PER_MS = 1_000
_INT_MAX, _LONG_MAX = 2**31 - 1, 2**63 - 1
_SOURCE = "v1"
"""Stands for the file where a row that V1 cannot hold is set aside: what was a line of a file is a row by then."""


def v1_subject(feed: Feed) -> str:
    """Registry subject of V1's schema on a topic whose own subject holds V2: topic and record together."""
    return f"{feed.topic}-{NAMESPACE}.{feed.table.record}"


def company_ids(parts: Iterable[Part]) -> dict[str, int]:
    """Symbol -> company id of a load. Raises BadInput for a company whose id is no number, as V1 wants it."""
    found: dict[str, int] = {}
    for part in parts:
        if not (part.company.isascii() and part.company.isdecimal()) or int(part.company) > _INT_MAX:
            raise BadInput(
                f"{part.name}: company id is {part.company!r}, V1 has room for a 32-bit number: name the file by it "
                "and give --company-info"
            )
        found |= dict.fromkeys(part.symbols, int(part.company))
    return found


def that_fit_v1(outcomes: Iterable[Outcome], companies: Mapping[str, int]) -> Outcomes:
    """The same outcomes, with a rejection in place of each row that V1 cannot hold exactly. Statements are none."""
    for number, outcome in enumerate(outcomes, start=1):
        if not isinstance(outcome, Row) or outcome.feed == COVERAGE_FEED:
            yield outcome
            continue
        try:
            v1_record(outcome.record, companies)
        except Unusable as problem:
            key = str(outcome.record["message_id"]).encode()
            told = problem.reason, problem.detail, key, outcome.feed, outcome.symbol
            yield Rejected(_SOURCE, number, *told)
        else:
            yield outcome


def v1_encoders(companies: Mapping[str, int]) -> Callable[[Feed, Registry], V1Encoder | None]:
    """How a producer writes trades and quotes in V1. Nothing else had a record there."""

    def encoder_of(feed: Feed, registry: Registry) -> V1Encoder | None:
        if feed.table not in TICK_TABLES:
            return None
        schema_id = registry.register(v1_subject(feed), v1_schema(feed.table))
        return V1Encoder(feed.table, schema_id, companies)

    return encoder_of


class V1Encoder:
    """Writes one row as Confluent Avro of V1. schema_id: what the registry gave to `v1_schema`."""

    def __init__(self, table: Table, schema_id: int, companies: Mapping[str, int]) -> None:
        self._schema = fastavro.parse_schema(v1_schema(table))
        self._prefix = b"\0" + schema_id.to_bytes(4, "big")
        self._companies = companies

    def __call__(self, record: Mapping[str, Any]) -> bytes:
        """Encode one row that fits V1."""
        out = BytesIO()
        out.write(self._prefix)
        fastavro.schemaless_writer(out, self._schema, v1_record(record, self._companies))
        return out.getvalue()


def v1_record(record: Mapping[str, Any], companies: Mapping[str, int]) -> dict[str, Any]:
    """The fields V1 has for a trade or a quote. Raises Unusable when one of them cannot hold what the row says."""
    stated = _trade(record) if "trade_id" in record else _quote(record)
    return {
        "symbol": record["symbol"],
        "company_id": companies[record["symbol"]],
        "exchange": record["exchange"],
        "exchange_timestamp": _milliseconds(record["timestamp"]),
        **stated,
        "ingestion_timestamp": record["ingestion_timestamp"] // _US_PER_MS,
        "sequence_number": int(record["message_id"].rpartition(SEPARATOR)[2]),
    }


def _trade(record: Mapping[str, Any]) -> dict[str, Any]:
    exchange, excluded = EXCLUDED_VENUE
    is_excluded = record["exchange"] == exchange and record["quality_flags"] & Flag.VENDOR_EXCLUDED
    return {
        "price": _price(record["price"]),
        "volume": _volume(record["quantity"]),
        "qualifiers": _qualifier(record["trade_conditions"]),
        "venue": excluded if is_excluded else "",
        "buyer_id": (record["vendor_data"] or {}).get("filtered_price"),
    }


def _quote(record: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "bid_price": _price(record["bid_price"] or Decimal(0)),
        "bid_volume": _volume(record["bid_quantity"] or Decimal(0)),
        "ask_price": _price(record["ask_price"] or Decimal(0)),
        "ask_volume": _volume(record["ask_quantity"] or Decimal(0)),
    }


def _milliseconds(timestamp: int) -> int:
    if timestamp % _US_PER_MS:
        raise Unusable(Refusal.IMPLAUSIBLE_TIME, f"timestamp is {timestamp} µs, V1 has whole milliseconds")
    return timestamp // _US_PER_MS


def _price(value: Decimal) -> bytes:
    """The unscaled value as the shortest two's complement."""
    scaled = value.scaleb(_PRICE_DECIMALS)
    whole = int(scaled)
    if whole != scaled:
        raise Unusable(Refusal.TOO_MANY_DECIMALS, f"price is {value}, V1 has {_PRICE_DECIMALS} decimals")
    return whole.to_bytes(whole.bit_length() // 8 + 1, "big", signed=True)


def _volume(value: Decimal) -> int:
    if value != int(value) or value > _LONG_MAX:
        raise Unusable(Refusal.TOO_MANY_DECIMALS, f"quantity is {value}, V1 has whole numbers")
    return int(value)


def _qualifier(conditions: list[str]) -> int:
    code = conditions[0] if len(conditions) == 1 else ""
    if not code.isdecimal() or str(int(code)) != code or int(code) > _INT_MAX:
        raise Unusable(Refusal.BAD_CONDITION, f"conditions are {conditions}, V1 has room for one number")
    return int(code)
