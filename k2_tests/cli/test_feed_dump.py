from __future__ import annotations

import json
import threading
from datetime import date
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest
from click.testing import CliRunner

from k2_cli.feed import feed
from k2_core.errors import BadInput, Misconfigured, NotFound
from k2_resources.embedded_broker import embedded_broker
from k2_tests.feeds.dumps import lines, write_dump, write_zip
from k2_tests.feeds.homes import TOPICS, home_on

DAY = date(2025, 1, 1)
INFO = {"serverTime": 1_735_700_000_000, "symbols": [{"symbol": "AUSDT", "quoteAsset": "USDT", "status": "TRADING"}]}


@pytest.fixture(scope="module")
def own_broker():
    """A log only these tests write to: nobody ingests it, so it must not fill up."""
    with embedded_broker(TOPICS) as bootstrap:
        yield bootstrap


@pytest.fixture
def home(tmp_path, own_broker, registry_url):
    return home_on(tmp_path / "a home", own_broker, registry_url).home


def run(*args):
    return CliRunner().invoke(feed, [str(arg) for arg in args])


def report(result):
    return json.loads(result.stdout.splitlines()[-1])


def test_files_and_folders_of_dumps_are_sent_whole(home, tmp_path):
    single = write_dump(tmp_path, f"AUSDT-trades-{DAY}", lines(1, 3, DAY))
    write_dump(tmp_path / "all" / "daily", f"BUSDT-trades-{DAY}", lines(1, 4, DAY, unit="ms"))
    write_zip(tmp_path / "all" / "BUSDT-klines-1m-2025-01-01.zip", {"a": b""})
    result = run("binance-dump", single, tmp_path / "all", "--home", home, "--json")
    assert result.exit_code == 0, result.output
    told = report(result)
    assert (told["sent"], told["acknowledged"], told["complete"]) == (7, 7, True)
    assert told["passed_over"] == {"zip that is no dump of trades": 1}
    assert {(s["symbol"], s["first_id"], s["last_id"]) for s in told["scopes"]} == {("AUSDT", 1, 3), ("BUSDT", 1, 4)}


def test_a_damaged_archive_fails_by_name_and_its_neighbours_are_sent(home, tmp_path):
    write_dump(tmp_path / "all", f"AUSDT-trades-{DAY}", lines(1, 3, DAY))
    bad = write_dump(tmp_path / "all", f"BUSDT-trades-{DAY}", lines(1, 3, DAY))
    bad.write_bytes(bad.read_bytes()[:-30])
    result = run("binance-dump", tmp_path / "all", "--home", home, "--json")
    assert result.exit_code == 1
    told = report(result)
    assert (told["sent"], told["acknowledged"]) == (3, 3)
    assert [bad.name in damage and "SHA-256" in damage for damage in told["damaged"]] == [True]


def test_without_a_checksum_nothing_is_sent_unless_it_is_said(home, tmp_path):
    path = write_dump(tmp_path, f"AUSDT-trades-{DAY}", lines(1, 3, DAY), checksum=False)
    assert isinstance(run("binance-dump", path, "--home", home).exception, BadInput)
    assert run("binance-dump", path, "--without-checksum", "--home", home).exit_code == 0


def test_companies_are_sent(home, tmp_path):
    path = tmp_path / "company_info.csv"
    path.write_text("company_id,symbol,start_date,end_date\n1,ABC,01/02/2003,\n2,DEF,,\n")
    result = run("asx-instruments", path, "--home", home, "--json")
    assert (result.exit_code, report(result)["sent"], report(result)["rejected"]) == (0, 1, 1)


def test_what_the_exchange_lists_is_sent_from_a_file(home, tmp_path):
    path = tmp_path / "exchangeInfo.json"
    path.write_text(json.dumps(INFO))
    result = run("binance-instruments", path, "--home", home, "--json")
    assert (result.exit_code, report(result)["sent"]) == (0, 1), result.output


class _Exchange(BaseHTTPRequestHandler):
    def do_GET(self):
        self.server.asked.append(self.path)
        self.send_response(200)
        self.end_headers()
        self.wfile.write(json.dumps(INFO).encode())

    def log_message(self, *_):
        pass


@pytest.fixture
def exchange():
    """Something that answers every question with the same list."""
    server = HTTPServer(("127.0.0.1", 0), _Exchange)
    server.asked = []
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def test_what_the_exchange_lists_is_asked_for(home, exchange):
    url = f"http://127.0.0.1:{exchange.server_port}"
    result = run("binance-instruments", "--url", url, "--symbol", "AUSDT", "--home", home, "--json")
    assert (result.exit_code, report(result)["sent"], report(result)["source"]) == (0, 1, url), result.output
    assert exchange.asked == ["/api/v3/exchangeInfo?symbols=%5B%22AUSDT%22%5D"]


@pytest.mark.parametrize("args", [(), ("x.json", "--url", "http://127.0.0.1:1"), ("x.json", "--symbol", "A")])
def test_one_source_is_said(tmp_path, monkeypatch, args):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "x.json").write_text("{}")
    assert run("binance-instruments", *args).exit_code == 2


def test_a_day_is_sent_again_from_its_source_of_record(home):
    write_dump(home / "records" / "binance" / "trades", f"CUSDT-trades-{DAY}", lines(1, 3, DAY))
    result = run("reload", "binance-trades", DAY, "--home", home, "--json")
    assert (result.exit_code, report(result)["sent"]) == (0, 3), result.output


@pytest.mark.parametrize(
    ("name", "error"), [("binance-quotes", Misconfigured), ("binance-trades", NotFound), ("nobody", NotFound)]
)
def test_a_day_nobody_has_is_refused(home, name, error):
    assert isinstance(run("reload", name, DAY, "--home", home).exception, error)
