from __future__ import annotations

import pytest

from k2_core.errors import BadInput
from k2_feeds.exchange import ExchangeSettings
from k2_feeds.exchange.faults import Fault, Faults, Hit, Kind, parse_fault, read_fault

S = "SIMBTCUSDT"


def test_a_fault_hits_as_many_as_it_says_and_is_spent():
    faults = Faults()
    faults.inject("drop", count=2)
    assert [bool(faults.of_trade(S, i)) for i in range(4)] == [True, True, False, False]
    assert faults.hits() == [Hit(Kind.DROP, S, 0), Hit(Kind.DROP, S, 1)]
    assert faults.active() == []


def test_one_in_n_is_every_nth():
    faults = Faults()
    faults.inject("drop", count=2, one_in=3)
    assert [i for i in range(1, 12) if faults.of_trade(S, i)] == [3, 6]


def test_a_fault_without_end_lasts_until_it_is_cleared():
    faults = Faults()
    faults.inject("duplicate", count=0)
    assert all(faults.of_trade(S, i) for i in range(100))
    faults.clear(Kind.DROP)
    assert faults.of_trade(S, 100)
    faults.clear()
    assert faults.of_trade(S, 101) is None


def test_a_fault_of_one_symbol_leaves_the_others_alone():
    faults = Faults()
    faults.inject("absent", symbol=S)
    assert faults.of_trade("OTHER", 1) is None
    assert faults.of_trade(S, 1).kind is Kind.ABSENT


def test_a_trade_suffers_one_fault_only():
    faults = Faults()
    faults.inject("duplicate")
    faults.inject("drop")
    assert faults.of_trade(S, 1).kind is Kind.DROP
    assert faults.of_trade(S, 2).kind is Kind.DUPLICATE
    assert faults.of_trade(S, 3) is None


def test_skews_add_up():
    faults = Faults()
    assert faults.skew_us() == 0
    faults.inject("clock_skew", seconds=2.5)
    faults.inject("clock_skew", seconds=-1)
    assert faults.skew_us() == 1_500_000


@pytest.mark.parametrize(
    ("said", "meant"),
    [
        ("drop", Fault(Kind.DROP)),
        ("delay,symbol=X,count=3,seconds=0.25", Fault(Kind.DELAY, "X", 3, seconds=0.25)),
        ("id_reset,first_id=7", Fault(Kind.ID_RESET, first_id=7)),
        ("drop,count=0,one_in=100", Fault(Kind.DROP, count=0, one_in=100)),
    ],
)
def test_a_fault_can_be_said_on_a_command_line(said, meant):
    assert parse_fault(said) == meant


@pytest.mark.parametrize(
    "said", ["", "explode", "drop,count=-1", "drop,count=x", "drop,colour=red", "clock_skew", "drop,one_in=0"]
)
def test_a_fault_that_cannot_be_is_refused(said):
    with pytest.raises(BadInput):
        parse_fault(said)


def test_a_fault_of_wrong_types_is_refused():
    with pytest.raises(BadInput):
        read_fault({"kind": "drop", "count": []})


@pytest.mark.parametrize(
    "wrong", [{"symbols": ()}, {"symbols": ("A", "A")}, {"symbols": ("A:B",)}, {"speed": 0.0}, {"speed": float("nan")},
              {"trades_per_second": 0.0}]
)  # fmt: skip
def test_settings_that_make_no_market_are_refused(wrong):
    with pytest.raises(BadInput):
        ExchangeSettings(**wrong)
