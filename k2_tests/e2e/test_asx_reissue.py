"""A day of ASX files in the first schema, again in the second, and re-issued without one of its lines."""

from __future__ import annotations

import gzip
import json
from datetime import date, timedelta

import pytest
from click.testing import CliRunner

from k2_assets.engine import ingest_until_caught_up, open_engine
from k2_cli.feed import feed
from k2_core.contracts import QUOTES, TRADES
from k2_feeds.simulator import Simulation
from k2_resources.embedded_broker import embedded_broker
from k2_resources.lake.issues import day_differences
from k2_resources.lake.verify import verify
from k2_resources.settings import Settings
from k2_tests.feeds.homes import FEEDS, TOPICS, home_on

DAY = date(2025, 3, 11)
SYMBOL = "ASIM"


REAL_DAYS = Settings().sample_data / "asx"
REAL_DAY = date(2014, 3, 11)


def send(home, folder, *options):
    kinds = [kind for kind in ("trades", "quotes") if (folder / kind).exists()]
    files = [str(path) for kind in kinds for path in (f"--{kind}", *sorted((folder / kind).iterdir()))]
    named = ["asx", *files, "--company-info", str(folder / "company_info.csv"), "--home", str(home), *options]
    result = CliRunner().invoke(feed, [*named, "--json"])
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout.splitlines()[-1])


def counts(engine):
    """Rows, duplicates and revisions of trades and quotes together."""
    ingest_until_caught_up(engine)
    proofs = [verify(engine.lake, table) for table in (TRADES, QUOTES)]
    assert all(proof.findings == () for proof in proofs)
    return tuple(sum(getattr(proof, name) for proof in proofs) for name in ("written", "duplicates", "revisions"))


def withdraw(path):
    """Take a line nobody repeats out of a file; returns it."""
    lines = path.read_bytes().splitlines(keepends=True)
    line = next(line for line in lines[20:] if lines.count(line) == 1)
    path.write_bytes(b"".join(other for other in lines if other != line))
    return line.decode()


def test_a_withdrawn_line_adds_nothing_and_is_named_by_the_statement_of_the_latest_load(tmp_path, registry_url):
    Simulation(days=1, rows_per_day=60).write(tmp_path / "files")
    with embedded_broker(TOPICS) as bootstrap:
        settings = home_on(tmp_path / "home", bootstrap, registry_url)
        with open_engine(settings) as engine:
            sent = send(settings.home, tmp_path / "files", "--schema", "v1")["acknowledged"]
            assert counts(engine) == (sent, 0, 0)
            assert send(settings.home, tmp_path / "files")["acknowledged"] == sent
            assert counts(engine) == (sent, sent, 0)
            (path,) = (p for p in (tmp_path / "files" / "trades").iterdir() if p.stem == "9001")
            gone = withdraw(path)
            assert send(settings.home, tmp_path / "files")["acknowledged"] == sent - 1
            assert counts(engine) == (sent, 2 * sent - 1, 0)
            told = {name: day_differences(engine.lake, FEEDS[name], DAY) for name in ("asx-trades", "asx-quotes")}
            assert day_differences(engine.lake, FEEDS["asx-trades"], DAY + timedelta(days=1)) == {}
    assert [list(of_feed) for of_feed in told.values()] == [["ASIM", "NSIM"]] * 2
    found = told["asx-trades"].pop(SYMBOL)
    assert all(not other.withdrawn and other.is_whole for of_feed in told.values() for other in of_feed.values())
    (withdrawn,) = found.withdrawn
    fields = gone.split(",")
    assert withdrawn.startswith(f"ASX:{SYMBOL}:trade:2025-03-11:")
    assert withdrawn.endswith(f":{float(fields[2]):g}:{fields[3]}:{fields[4]}:0")
    assert (found.stored - found.issued, found.missing, found.is_whole) == (1, 0, True)


@pytest.mark.skipif(not REAL_DAYS.is_dir(), reason="no real captures; K2_SAMPLE_DATA may point elsewhere")
def test_a_print_withdrawn_from_a_real_day_is_the_one_row_named(tmp_path, registry_url):
    """An ordinal of the line as a key would have corrected every later print of the day."""
    files = tmp_path / "files"
    (files / "trades").mkdir(parents=True)
    (files / "company_info.csv").write_bytes((REAL_DAYS / "company_info.csv").read_bytes())
    lines = gzip.decompress((REAL_DAYS / "trades" / "7078.csv.gz").read_bytes()).splitlines(keepends=True)
    of_day = [line for line in lines if line.startswith(f"{REAL_DAY:%m/%d/%Y},".encode())]
    (files / "trades" / "7078.csv").write_bytes(b"".join(of_day))
    with embedded_broker(TOPICS) as bootstrap:
        settings = home_on(tmp_path / "home", bootstrap, registry_url)
        with open_engine(settings) as engine:
            sent = send(settings.home, files)["acknowledged"]
            assert counts(engine) == (len(of_day), 0, 0)
            gone = withdraw(files / "trades" / "7078.csv")
            assert send(settings.home, files)["acknowledged"] == sent - 1
            assert counts(engine) == (sent, sent - 1, 0)
            found = day_differences(engine.lake, FEEDS["asx-trades"], REAL_DAY)["BHP"]
    (withdrawn,) = found.withdrawn
    assert (found.stored - found.issued, found.missing) == (1, 0)
    fields = gone.split(",")
    assert withdrawn.startswith(f"ASX:BHP:trade:{REAL_DAY}:")
    assert withdrawn.endswith(f":{float(fields[2]):g}:{fields[3]}:{fields[4]}:0")
