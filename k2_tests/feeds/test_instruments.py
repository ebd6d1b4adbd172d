from __future__ import annotations

import gzip
import json
from datetime import date, datetime
from decimal import Decimal

import pytest

from k2_core.errors import BadInput
from k2_core.quality import Flag
from k2_feeds.asx_instruments import read_company_file
from k2_feeds.binance_instruments import read_exchange_info, told_by
from k2_feeds.outcomes import PassedOver, Refusal, Rejected, Row
from k2_tests.feeds.sample import real

RECEIVED_US = 1_790_000_000_000_000
HEADER = "company_id,symbol,company_name,ISIN,start_date,end_date"
BHP = "7078,BHP,BHP BILLITON LTD,AU000000BHP4,05/07/2008,03/31/2014"
SERVER_MS = 1_633_219_200_123


def company_file(tmp_path, *lines):
    path = tmp_path / "company_info.csv"
    path.write_bytes(b"\n".join(line.encode() if isinstance(line, str) else line for line in lines))
    return list(read_company_file(path, lambda: RECEIVED_US))


def rows(found):
    return [outcome.record for outcome in found if isinstance(outcome, Row)]


def refusals(found):
    return {outcome.line: outcome.reason for outcome in found if isinstance(outcome, Rejected)}


def pair(symbol="BTCUSDT", base="BTC", quote="USDT", **changes):
    return {
        "symbol": symbol,
        "status": "TRADING",
        "baseAsset": base,
        "baseAssetPrecision": 8,
        "quoteAsset": quote,
        "filters": [
            {"filterType": "PRICE_FILTER", "minPrice": "0.01000000", "maxPrice": "1000000.0", "tickSize": "0.01000000"},
            {"filterType": "LOT_SIZE", "minQty": "0.00001", "maxQty": "46116860414.0", "stepSize": "0.00001000"},
        ],
        "permissions": ["SPOT"],
        **changes,
    }


def info(*symbols, **changes):
    return {"timezone": "UTC", "serverTime": SERVER_MS, "rateLimits": [], "symbols": list(symbols), **changes}


def told(document):
    return list(told_by(json.loads(json.dumps(document)), "exchangeInfo.json", RECEIVED_US))


def test_a_listing_holds_from_its_start_to_the_day_after_its_end(tmp_path):
    header, row = company_file(tmp_path, HEADER, BHP)
    assert header == PassedOver("header")
    record = row.record
    assert (row.feed, row.symbol) == ("asx-instruments", "BHP")
    assert record["message_id"] == "ASX:BHP:instrument:2008-05-07:7078"
    assert (record["valid_from"], record["valid_to"]) == (date(2008, 5, 7), date(2014, 4, 1))
    assert (record["name"], record["isin"], record["instrument_id"]) == ("BHP BILLITON LTD", "AU000000BHP4", "ASX-7078")
    assert (record["timestamp"], record["quality_flags"]) == (RECEIVED_US, Flag.RECEIVE_TIME_AS_EVENT_TIME)


def test_columns_are_taken_by_name_and_unknown_ones_are_kept(tmp_path):
    found = company_file(tmp_path, "symbol,company_id,end_date,start_date,sector", "ABC,1,,01/02/2003,mines")
    (record,) = rows(found)
    assert (record["valid_to"], record["name"], record["vendor_data"]) == (None, None, {"sector": "mines"})


def test_names_may_hold_commas_and_quotes(tmp_path):
    (record,) = rows(company_file(tmp_path, HEADER, '1,ABC,"SMITH, ""BOB"" LTD",,01/02/2003,'))
    assert (record["name"], record["isin"]) == ('SMITH, "BOB" LTD', None)


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        ("1,ABC,X,,,03/31/2014", Refusal.MISSING_VALUE),
        ("1,ABC,X,,13/01/2014,", Refusal.IMPLAUSIBLE_TIME),
        ("1,ABC,X,,01/02/1803,", Refusal.IMPLAUSIBLE_TIME),
        ("1,ABC,X,,01/02/2014,01/01/2013", Refusal.IMPLAUSIBLE_TIME),
        ("1,A:C,X,,01/02/2003,", Refusal.IMPLAUSIBLE_TIME),
        (",ABC,X,,01/02/2003,", Refusal.BAD_ID),
        ("1:2,ABC,X,,01/02/2003,", Refusal.BAD_ID),
        ("1,ABC,X,,01/02/2003", Refusal.WRONG_COLUMNS),
        ("1,ABC,X,,01/02/2003,,", Refusal.WRONG_COLUMNS),
        ('1,ABC,"X,,01/02/2003,', Refusal.WRONG_COLUMNS),
        (f"1,ABC,{'X' * 501},,01/02/2003,", Refusal.WRONG_TYPE),
        ("1,ABC,a\x07b,,01/02/2003,", Refusal.WRONG_TYPE),
        (b"1,ABC,\xff,,01/02/2003,", Refusal.NOT_UTF8),
    ],
)
def test_a_line_that_is_no_listing_is_refused_and_its_neighbours_land(tmp_path, bad, reason):
    found = company_file(tmp_path, HEADER, BHP, bad, BHP)
    assert refusals(found) == {3: reason}
    assert len(rows(found)) == 2


@pytest.mark.parametrize("header", [BHP, "symbol,start_date", HEADER + ",symbol"])
def test_a_file_without_its_header_is_refused_whole(tmp_path, header):
    (rejected,) = company_file(tmp_path, header, BHP)
    assert (rejected.reason, rejected.damaged) == (Refusal.HEADER, True)


def test_lines_may_end_and_begin_as_they_like(tmp_path):
    found = company_file(tmp_path, "", "\ufeff" + HEADER + "\r", "", BHP + "\r", "  ")
    assert len(rows(found)) == 1
    assert refusals(found) == {}


def test_the_real_company_file_is_four_listings():
    (path,) = real("asx/company_info.csv")
    assert [record["symbol"] for record in rows(read_company_file(path, lambda: RECEIVED_US))] == [
        "MWR",
        "BHP",
        "DVN",
        "RIO",
    ]


def test_a_pair_is_described_from_the_date_of_the_answer_on():
    (row,) = told(info(pair()))
    record = row.record
    assert (row.feed, row.symbol) == ("binance-instruments", "BTCUSDT")
    assert record["message_id"] == "BINANCE:BTCUSDT:instrument:2021-10-03:BTCUSDT"
    assert (record["valid_from"], record["valid_to"]) == (date(2021, 10, 3), None)
    assert record["timestamp"] == SERVER_MS * 1_000
    assert (record["base_asset"], record["currency"], record["status"]) == ("BTC", "USDT", "TRADING")
    assert (record["price_increment"], record["quantity_increment"]) == (Decimal("0.01"), Decimal("0.00001"))
    assert record["vendor_data"]["permissions"] == '["SPOT"]'
    assert "46116860414" in record["vendor_data"]["filters"]


def test_the_quote_asset_is_told_and_not_guessed():
    (record,) = rows(told(info(pair("BTCNEWCOIN", quote="NEWCOIN"))))
    assert record["currency"] == "NEWCOIN"


@pytest.mark.parametrize("filters", [[], [{"filterType": "PRICE_FILTER", "tickSize": "0.00000000"}], ["x", 1, None]])
def test_a_pair_without_a_step_has_none(filters):
    (record,) = rows(told(info(pair(filters=filters))))
    assert (record["price_increment"], record["quantity_increment"]) == (None, None)


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        ("BTCUSDT", Refusal.WRONG_TYPE),
        (pair(symbol=None), Refusal.WRONG_TYPE),
        (pair(symbol="A:B"), Refusal.BAD_SYMBOL),
        (pair(symbol="../x\n"), Refusal.BAD_SYMBOL),
        (pair(quoteAsset=None), Refusal.MISSING_VALUE),
        (pair(status=5), Refusal.WRONG_TYPE),
        (pair(filters={}), Refusal.WRONG_TYPE),
        (pair(filters=[{"filterType": "LOT_SIZE", "stepSize": "-1"}]), Refusal.NOT_POSITIVE),
        (pair(filters=[{"filterType": "LOT_SIZE", "stepSize": 0.5}]), Refusal.WRONG_TYPE),
        (pair(filters=[{"filterType": "LOT_SIZE", "stepSize": "99999999999"}]), Refusal.DECIMAL_OVERFLOW),
    ],
)  # fmt: skip
def test_a_pair_that_cannot_be_told_is_refused_by_its_place_and_its_neighbours_land(bad, reason):
    found = told(info(pair("AUSDT"), bad, pair("ZUSDT")))
    assert refusals(found) == {2: reason}
    assert [record["symbol"] for record in rows(found)] == ["AUSDT", "ZUSDT"]


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"[]", b"{}", b'{"serverTime":1633219200123}', b'{"serverTime":"x","symbols":[{}]}', b"[" * 100_000,
     b'{"serverTime":1e400,"symbols":[{}]}', b'{"serverTime":1633219200123,"symbols":[]}', b"\xff\xfe\x00"],
)  # fmt: skip
def test_a_document_that_is_no_exchange_info_is_refused_whole(tmp_path, content):
    path = tmp_path / "info.json"
    path.write_bytes(content)
    (rejected,) = read_exchange_info(path, lambda: RECEIVED_US)
    assert rejected.damaged


def test_a_file_may_be_packed_and_printed_on_many_lines(tmp_path):
    path = tmp_path / "info.json.gz"
    path.write_bytes(gzip.compress(json.dumps(info(pair(), pair("ETHUSDT", "ETH")), indent=2).encode()))
    assert len(rows(read_exchange_info(path, lambda: RECEIVED_US))) == 2
    path.write_bytes(path.read_bytes()[:-20])
    (rejected,) = read_exchange_info(path, lambda: RECEIVED_US)
    assert (rejected.reason, rejected.damaged) == (Refusal.DAMAGED_FILE, True)


def test_a_file_that_is_not_there_is_bad_input(tmp_path):
    with pytest.raises(BadInput):
        list(read_exchange_info(tmp_path / "absent", lambda: RECEIVED_US))
    with pytest.raises(BadInput):
        list(read_company_file(tmp_path / "absent", lambda: RECEIVED_US))


def test_the_date_of_an_answer_is_that_of_utc():
    midnight = int(datetime.fromisoformat("2021-10-04T00:00:00+00:00").timestamp() * 1_000)
    days = [rows(told(info(pair(), serverTime=ms)))[0]["valid_from"] for ms in (midnight - 1, midnight)]
    assert days == [date(2021, 10, 3), date(2021, 10, 4)]
