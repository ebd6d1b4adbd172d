from __future__ import annotations

import gzip

import pytest

from k2_core.errors import BadInput
from k2_feeds.asx_files import company_of, plan_load
from k2_feeds.companies import read_companies

HEADER = b"company_id,symbol,company_name,ISIN,start_date,end_date\n"
INFO = HEADER + b"7078,BHP,BHP BILLITON LTD,AU000000BHP4,05/07/2008,03/31/2014\n"


def line(day, clock="10:00:00"):
    return f"03/{day}/2014,{clock},1,1,0,,\n".encode()


def write(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def test_the_name_of_a_file_is_its_company(tmp_path):
    assert [company_of(tmp_path / n) for n in ("7078.csv", "7078.csv.gz", "7078")] == ["7078"] * 3


def test_without_a_company_file_the_name_is_the_symbol_in_upper_case(tmp_path):
    (part,) = plan_load([write(tmp_path / "bhp.csv", line(10))], [], None)
    assert part.symbols == {"BHP"}


def test_parts_come_in_the_order_of_their_rows_however_they_are_given(tmp_path):
    late = write(tmp_path / "a" / "BHP.csv", line(12))
    early = write(tmp_path / "b" / "BHP.csv", b"\n" + line(11))
    empty = write(tmp_path / "c" / "BHP.csv", b"")
    orders = [[late, early, empty], [early, empty, late]]
    assert [[p.name for p in plan_load(order, [], None)] for order in orders] == [
        [str(empty), str(early), str(late)]
    ] * 2


def test_one_file_given_twice_is_refused_also_when_one_is_packed(tmp_path):
    plain = write(tmp_path / "a" / "BHP.csv", line(11))
    packed = write(tmp_path / "b" / "BHP.csv.gz", gzip.compress(line(11)))
    with pytest.raises(BadInput, match="same rows"):
        plan_load([plain, packed], [], None)


def test_two_companies_may_have_equal_files(tmp_path):
    files = [write(tmp_path / name, line(11)) for name in ("BHP.csv", "RIO.csv")]
    assert len(plan_load(files, [], None)) == 2


def test_a_company_the_company_file_does_not_list_is_refused(tmp_path):
    companies = read_companies(write(tmp_path / "info.csv", INFO))
    with pytest.raises(BadInput, match="does not list '9999'"):
        plan_load([write(tmp_path / "9999.csv", line(11))], [], companies)


def test_a_file_name_that_is_no_symbol_is_refused(tmp_path):
    with pytest.raises(BadInput, match="without --company-info"):
        plan_load([write(tmp_path / "a:b.csv", line(11))], [], None)


def test_no_file_at_all_is_refused():
    with pytest.raises(BadInput, match="no file given"):
        plan_load([], [], None)


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (b"", "missing from the header"),
        (b"company_id,symbol\n7078,BHP\n", "end_date"),
        (HEADER + b"7078,B:HP,x,y,05/07/2008,03/31/2014\n", "line 2"),
        (HEADER + b"7078,BHP,x,y,2008-05-07,03/31/2014\n", "line 2"),
        (HEADER + b"7078,BHP\n", "line 2"),
        (HEADER + b"7078,\xff,x,y,,\n", "utf-8"),
    ],
)
def test_a_company_file_that_is_none_is_refused_with_its_line(tmp_path, content, complaint):
    with pytest.raises(BadInput, match=complaint):
        read_companies(write(tmp_path / "info.csv", content))


def test_a_listing_without_dates_holds_on_every_day(tmp_path):
    companies = read_companies(write(tmp_path / "info.csv", HEADER + b"1,ABC,x,y,,\n"))
    assert companies.symbols("1") == {"ABC"}
