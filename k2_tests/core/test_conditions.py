from __future__ import annotations

from datetime import date
from decimal import Decimal

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from k2_core.conditions import ALL, NONE, Conditions, Rule, Update, parse_conditions
from k2_core.contracts import TRADES
from k2_core.quality import Flag
from k2_core.summaries import Summary, summarise
from k2_resources.rule_sets import load_conditions
from k2_resources.settings import Settings
from k2_tests.ticks import asx_trade

DAY = date(2014, 3, 11)
PRICES = Update.OPEN | Update.HIGH | Update.LOW | Update.LAST
MATRIX = Conditions(
    "ASX",
    (
        Rule("3", NONE),
        Rule("SX", Update.VOLUME | Update.COUNT),
        Rule("27", NONE, end=date(2012, 6, 18)),
        Rule("27", PRICES, first=date(2012, 6, 18)),
    ),
    ALL,
)


def trades(*records):
    rows = [{**r, "exchange_date": r.get("exchange_date", DAY), "revision": 0} for r in records]
    names = {"kafka_topic": "t", "kafka_epoch": 0, "kafka_partition": 0, "kafka_offset": 0}
    return pa.Table.from_pylist([{**r, **names} for r in rows], schema=TRADES.arrow_schema())


def with_codes(*codes, **changes):
    return trades(asx_trade("36000", trade_conditions=list(codes), **changes))


@pytest.mark.parametrize(
    ("codes", "updates"),
    [
        ((), ALL),
        (("0",), ALL),
        (("3",), NONE),
        (("27",), PRICES),
        (("0", "SX"), Update.VOLUME | Update.COUNT),
        (("27", "SX"), NONE),
        (("nobody lists it",), ALL),
    ],
)
def test_a_print_updates_what_all_its_codes_allow(codes, updates):
    assert MATRIX.updates(with_codes(*codes)).tolist() == [updates]


def test_a_print_the_vendor_excludes_updates_nothing_whatever_its_code():
    assert MATRIX.updates(with_codes("0", quality_flags=int(Flag.VENDOR_EXCLUDED))).tolist() == [NONE]
    assert MATRIX.updates(with_codes("0", quality_flags=int(Flag.OUT_OF_SESSION))).tolist() == [ALL]


def test_a_rule_holds_from_its_first_date_until_before_its_end():
    days = [date(2012, 6, 17), date(2012, 6, 18)]
    assert [MATRIX.updates(with_codes("27", exchange_date=day)).tolist() for day in days] == [[NONE], [PRICES]]


@given(st.lists(st.tuples(st.lists(st.sampled_from(["0", "3", "27", "SX", ""])), st.dates(), st.booleans())))
def test_the_vectorised_matrix_is_the_one_looked_up_row_by_row(rows):
    flags = [int(Flag.VENDOR_EXCLUDED) * excluded for _, _, excluded in rows]
    table = pa.table(
        {
            "trade_conditions": pa.array([codes for codes, _, _ in rows], pa.list_(pa.string())),
            "exchange_date": pa.array([day for _, day, _ in rows], pa.date32()),
            "quality_flags": pa.array(flags, pa.int32()),
        }
    )
    naive = []
    for codes, day, excluded in rows:
        allowed = NONE if excluded else ALL
        for code in codes:
            allowed &= MATRIX.of(code, day)
        naive.append(allowed)
    assert MATRIX.updates(table).tolist() == naive


def test_the_version_changes_with_a_rule_and_not_with_their_order_or_their_prose():
    rules = MATRIX.rules
    assert Conditions("ASX", rules[::-1], ALL).version == MATRIX.version
    assert Conditions("ASX", (*rules, Rule("9", NONE)), ALL).version != MATRIX.version
    assert Conditions("ASX", rules, NONE).version != MATRIX.version
    told = tuple(Rule(r.code, r.updates, r.first, r.end, "what it means") for r in rules)
    assert Conditions("ASX", told, ALL).version == MATRIX.version


def test_a_summary_follows_the_total_order_and_the_rules():
    prints = trades(
        asx_trade("36001", 1, price="5", trade_conditions=["3"]),
        asx_trade("36002", 4, price="12"),
        asx_trade("36002", 3, price="11"),
        asx_trade("36000", 0, price="9", trade_conditions=["SX"]),
        asx_trade("36001", 2, price="10"),
    )
    average = Decimal("11.00000000")
    whole = Summary(Decimal(10), Decimal(12), Decimal(10), Decimal(12), Decimal(1600), 4, average)
    assert summarise(prints, MATRIX.updates(prints)) == whole


def test_a_summary_of_nothing_has_no_prices():
    nothing = with_codes("3")
    empty = Summary(None, None, None, None, Decimal(0), 0, None)
    assert summarise(nothing, MATRIX.updates(nothing)) == empty
    assert summarise(nothing.slice(0, 0), MATRIX.updates(nothing.slice(0, 0))) == empty


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"rules": []}, "non-empty list"),
        ({"exchange": ""}, "exchange"),
        ({"unlisted": "some"}, "expected all, none"),
        ({"rules": [{"code": 1, "updates": "all"}]}, "quote it"),
        ({"rules": [{"code": "1"}]}, "updates"),
        ({"rules": [{"code": "1", "updates": ["closing"]}]}, "closing"),
        ({"rules": [{"code": "1", "updates": "all", "until": 3}]}, "unknown fields"),
        ({"rules": [{"code": "1", "updates": "all", "from": date(2020, 1, 2), "to": date(2020, 1, 1)}]}, "no range"),
        ({"rules": [{"code": "1", "updates": "all"}, {"code": "1", "updates": "none"}]}, "two rules hold"),
    ],
)
def test_a_matrix_that_is_none_is_refused_with_its_rule(change, complaint):
    whole = {"exchange": "ASX", "unlisted": "all", "rules": [{"code": "1", "updates": "all"}]}
    assert parse_conditions(whole).rules
    with pytest.raises(ValueError, match=complaint):
        parse_conditions({**whole, **change})


def test_the_matrix_of_the_asx_leaves_out_what_the_vendor_does():
    matrix = load_conditions(Settings().config, "asx")
    numeric = {str(n) for n in range(30)}
    left_out = {code for code in numeric if matrix.of(code, DAY) is NONE}
    assert left_out == {"1", "3", "4", "6", "9", "11", "12", "14", "20", "21"}
    assert matrix.of("27", date(2012, 6, 17)) == NONE
    assert [matrix.of(code, DAY) for code in ("XT", "S1")] == [ALL, Update.VOLUME | Update.COUNT]
