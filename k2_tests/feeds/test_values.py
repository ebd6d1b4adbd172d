from __future__ import annotations

from decimal import Decimal

import pytest

from k2_feeds.outcomes import Refusal, Unusable
from k2_feeds.values import identifier, number, positive, side, unscaled, whole


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("61837.63000000", "61837.63"),
        ("0.000000010000", "0.00000001"),
        ("9999999999.99999999", "9999999999.99999999"),
        ("1e-8", "0.00000001"),
        (".5", "0.5"),
        (Decimal("12.5"), "12.5"),
        (7, "7"),
    ],
)
def test_a_number_keeps_every_digit(given, expected):
    assert positive(given, "price") == Decimal(expected)


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        ("NaN", Refusal.NOT_A_NUMBER),
        ("Infinity", Refusal.NOT_A_NUMBER),
        ("", Refusal.NOT_A_NUMBER),
        ("1_000", Refusal.NOT_A_NUMBER),
        (" 1", Refusal.NOT_A_NUMBER),
        ("1\n", Refusal.NOT_A_NUMBER),
        ("١٢", Refusal.NOT_A_NUMBER),
        ("0x10", Refusal.NOT_A_NUMBER),
        ("1," + "0", Refusal.NOT_A_NUMBER),
        ("1" * 65, Refusal.NOT_A_NUMBER),
        ("1e9999", Refusal.NOT_A_NUMBER),
        (Decimal("NaN"), Refusal.NOT_A_NUMBER),
        ("0", Refusal.NOT_POSITIVE),
        ("0.00000000", Refusal.NOT_POSITIVE),
        ("-1", Refusal.NOT_POSITIVE),
        ("10000000000", Refusal.DECIMAL_OVERFLOW),
        ("46116860414.00000000", Refusal.DECIMAL_OVERFLOW),
        ("1e999", Refusal.DECIMAL_OVERFLOW),
        (Decimal("1E+999999999"), Refusal.DECIMAL_OVERFLOW),
        (10**4000, Refusal.DECIMAL_OVERFLOW),
        ("0.000000001", Refusal.TOO_MANY_DECIMALS),
        ("1.00000000000000000000000000000000000001", Refusal.TOO_MANY_DECIMALS),
        (Decimal("1E-999999"), Refusal.TOO_MANY_DECIMALS),
        (1.5, Refusal.WRONG_TYPE),
        (True, Refusal.WRONG_TYPE),
        (None, Refusal.WRONG_TYPE),
        (["1"], Refusal.WRONG_TYPE),
    ],
)
def test_what_is_not_a_price_is_refused_by_its_reason(given, reason):
    with pytest.raises(Unusable) as refused:
        positive(given, "price")
    assert refused.value.reason is reason
    assert len(refused.value.detail) < 300


def test_a_pair_of_zeros_is_a_side_with_nobody():
    assert side("0.00000000", "0", "bid") == (None, None)


@pytest.mark.parametrize(("price", "size"), [("0", "5"), ("5", "0.0")])
def test_half_a_side_is_refused(price, size):
    with pytest.raises(Unusable) as refused:
        side(price, size, "ask")
    assert refused.value.reason is Refusal.HALF_A_SIDE


def test_a_negative_side_is_refused():
    with pytest.raises(Unusable) as refused:
        side("-1", "1", "ask")
    assert refused.value.reason is Refusal.NOT_POSITIVE


@pytest.mark.parametrize("given", [-1, 2**63, 10**4000])
def test_an_id_outside_int64_is_refused(given):
    with pytest.raises(Unusable) as refused:
        identifier(given, "id")
    assert refused.value.reason is Refusal.BAD_ID


def test_the_edges_of_int64_are_ids():
    assert [identifier(i, "id") for i in (0, 2**63 - 1)] == [0, 2**63 - 1]


@pytest.mark.parametrize("given", [True, "5", 5.0, None])
def test_what_is_not_an_integer_is_refused(given):
    with pytest.raises(Unusable) as refused:
        whole(given, "id")
    assert refused.value.reason is Refusal.WRONG_TYPE


def test_the_stored_integer_is_exact_at_both_edges():
    assert unscaled(number("9999999999.99999999", "price")) == 10**18 - 1
    assert unscaled(number("0.00000001", "price")) == 1
