from __future__ import annotations

import gzip
import json

import pytest
from click.testing import CliRunner

from k2_cli.feed import feed, repeat_options
from k2_core.errors import BadInput, Misconfigured
from k2_feeds.simulator import Simulation
from k2_resources.embedded_broker import embedded_broker
from k2_tests.feeds.homes import TOPICS, home_on

SEVERAL = frozenset({"--trades", "--quotes"})


@pytest.fixture(scope="module")
def own_broker():
    """A log only these tests write to: nobody ingests it, so it must not fill up."""
    with embedded_broker(TOPICS) as bootstrap:
        yield bootstrap


@pytest.fixture
def home(tmp_path, own_broker, registry_url):
    return home_on(tmp_path / "a home", own_broker, registry_url).home


@pytest.fixture
def files(tmp_path):
    """A small market on disk."""
    folder = tmp_path / "files"
    Simulation(days=1, rows_per_day=20, pairs=("SIMUSDT",), equities=("ASIM", "BSIM")).write(folder)
    return folder


def run(*args):
    return CliRunner().invoke(feed, [str(arg) for arg in args])


def report(result):
    return json.loads(result.stdout.splitlines()[-1])


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        ("--trades a b --quotes c", "--trades a --trades b --quotes c"),
        ("--trades a --trades b", "--trades a --trades b"),
        ("--trades=a b --json --quotes c d", "--trades=a --trades b --json --quotes c --quotes d"),
        ("--home h x --trades a", "--home h x --trades a"),
        ("--trades a -- b c", "--trades a -- b c"),
        ("--trades", "--trades"),
    ],
)
def test_a_row_of_values_repeats_its_option(given, meant):
    assert repeat_options(given.split(), SEVERAL) == meant.split()


def test_a_capture_is_sent_whole(home, files):
    result = run("binance-capture", files / "capture.txt", "--home", home, "--json")
    assert result.exit_code == 0, result.output
    assert (report(result)["sent"], report(result)["acknowledged"], report(result)["complete"]) == (60, 60, True)


def test_asx_files_are_taken_as_a_shell_expands_them(home, files):
    trades, quotes = sorted((files / "trades").iterdir()), sorted((files / "quotes").iterdir())
    result = run("asx", "--trades", *trades, "--quotes", *quotes, "--company-info", files / "company_info.csv",
                 "--home", home, "--json")  # fmt: skip
    assert result.exit_code == 0, result.output
    assert {(s["feed"], s["symbol"]) for s in report(result)["scopes"]} == {
        (feed_name, symbol) for feed_name in ("asx-trades", "asx-quotes") for symbol in ("ASIM", "BSIM")
    }


def test_rejected_lines_are_said_and_do_not_fail_the_feed(home, files):
    with (files / "capture.txt").open("ab") as file:
        file.write(b"no frame\n")
    result = run("binance-capture", files / "capture.txt", "--home", home)
    assert result.exit_code == 0
    assert "1 lines rejected" in result.stdout
    (folder,) = (home / "rejected").iterdir()
    assert str(folder) in result.stderr
    assert sorted(path.name for path in folder.iterdir()) == ["capture.txt.rejected", "report.json"]


def test_a_truncated_capture_fails_after_sending_what_it_holds(home, files, tmp_path):
    cut = tmp_path / "cut.gz"
    cut.write_bytes(gzip.compress((files / "capture.txt").read_bytes())[:-400])
    result = run("binance-capture", cut, "--home", home, "--json")
    assert result.exit_code == 1
    assert 0 < report(result)["acknowledged"] < 60
    assert "truncated" in report(result)["damaged"][0]


def test_a_simulation_says_what_must_come_out(home):
    result = run("simulate", "--rows", 20, "--symbols", "SIMAUSDT", "SIMBUSDT", "--hole", 3, "--home", home, "--json")
    assert result.exit_code == 0, result.output
    truth = {(t["feed"], t["symbol"]): t["rows"] for t in report(result)["truth"]}
    assert truth["binance-trades", "SIMAUSDT"] == 37
    assert {(s["feed"], s["symbol"]): s["rows"] for s in report(result)["scopes"]} == truth


def test_a_simulation_can_be_written_instead(tmp_path):
    result = run("simulate", "--rows", 5, "--days", 1, "--to-files", tmp_path / "out")
    assert result.exit_code == 0, result.output
    assert all((tmp_path / "out" / name).exists() for name in ("capture.txt", "company_info.csv", "trades", "quotes"))


def test_a_simulation_of_the_future_is_refused():
    result = run("simulate", "--start", "2199-01-01")
    assert isinstance(result.exception, BadInput)


def test_a_file_that_is_not_there_is_refused_by_name(home, tmp_path):
    result = run("binance-capture", tmp_path / "absent.gz", "--home", home)
    assert result.exit_code == 2
    assert "absent.gz" in result.stderr


def test_without_a_stack_nothing_is_sent_and_the_way_to_start_one_is_said(files, tmp_path, monkeypatch):
    monkeypatch.delenv("K2_KAFKA_BOOTSTRAP", raising=False)
    result = run("binance-capture", files / "capture.txt", "--home", tmp_path / "nobody")
    assert isinstance(result.exception, Misconfigured)
    assert "k2 up" in str(result.exception)


def test_a_simulation_in_the_first_schema_sends_the_asx_alone(home):
    result = run("simulate", "--rows", 20, "--days", 1, "--schema", "v1", "--auctions", "--home", home, "--json")
    assert result.exit_code == 0, result.output
    truth = {(t["feed"], t["symbol"]): t["rows"] for t in report(result)["truth"]}
    assert {feed_name for feed_name, _ in truth} == {"asx-trades", "asx-quotes"}
    assert {(s["feed"], s["symbol"]): s["rows"] for s in report(result)["scopes"]} == truth


def test_the_first_schema_wants_files_named_by_company_ids(home, files):
    (path, *_) = sorted((files / "trades").iterdir())
    named = path.rename(path.with_name("ASIM.csv"))
    result = run("asx", "--trades", named, "--schema", "v1", "--home", home)
    assert isinstance(result.exception, BadInput)
    assert "--company-info" in str(result.exception)
