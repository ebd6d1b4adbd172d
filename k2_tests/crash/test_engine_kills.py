"""kill -9 of a bare engine, no Dagster around it, in the middle of a run: nothing lost, nothing twice."""

from __future__ import annotations

import multiprocessing
import os
from decimal import Decimal

import pytest

from k2_assets.engine import ingest_until_caught_up, open_engine
from k2_core.contracts import TRADES
from k2_resources.lake.scans import dead_letters, open_gaps, receipt_rows
from k2_resources.lake.verify import verify
from k2_resources.settings import Settings
from k2_tests.stacks import stack
from k2_tests.ticks import FEEDS, encoded, trade

FEED = FEEDS["binance-trades"]
LATER = ("data_written", "committing", "committed", "collecting_receipts")
"""Steps killed in the second batch of a run, where the first is already in; each first one is in test_run_kills."""


def ingest(home: str, bootstrap: str, registry_url: str, failpoint: str) -> None:
    # the fork server has the environment of whichever test started it
    for name in [name for name in os.environ if name.startswith("K2_")]:
        del os.environ[name]
    settings = Settings(
        home=home, kafka_bootstrap=bootstrap, registry_url=registry_url, failpoint=failpoint, rows_per_commit=34
    )
    ingest_until_caught_up(open_engine(settings))
    os._exit(0)


@pytest.mark.timeout(240)
def test_a_writer_killed_in_a_later_batch_is_finished_by_the_next_without_loss_or_double(tmp_path, registry_url):
    """One broker and one lake for all steps: each kill meets what the kills before it left behind."""
    forks = multiprocessing.get_context("forkserver")
    forks.set_forkserver_preload([__name__])
    with stack(tmp_path / "home", registry_url) as here:
        numbers, dead, schema_id = [], 0, here.register(FEED)
        for round_, step in enumerate(LATER):
            first = 1_000 * round_
            thirds = [range(first, first + 30), range(first + 35, first + 65), range(first + 70, first + 100)]
            for third in thirds:  # one batch each: thirty new rows, an old one, and three dead letters
                some = [trade(n) for n in (*third, third[0])]
                bad = [encoded(trade(first + 200, price=Decimal(0)), schema_id=schema_id), b"junk", None]
                here.send_bytes(FEED, [*(encoded(r, schema_id=schema_id) for r in some), *bad])
            numbers += [n for third in thirds for n in third]
            dead += 9
            args = (str(here.settings.home), here.settings.bootstrap(), registry_url, f"{step}:2:kill")
            child = forks.Process(target=ingest, args=args)
            child.start()
            child.join(60)
            assert child.exitcode == -9, f"{step} was not reached"
            engine = here.engine()
            ingest_until_caught_up(engine)
            letters = dead_letters(engine.lake, TRADES)
            stored = engine.lake.load(TRADES).scan(selected_fields=("source_sequence",)).to_arrow()
            assert sorted(stored["source_sequence"].to_pylist()) == numbers, step
            assert len(letters) == dead, step
        assert verify(engine.lake, TRADES).findings == ()
        assert len(open_gaps(engine.lake)) == 4 * len(LATER) - 2
        assert sorted(set(letters["reason"].to_pylist())) == ["bad_magic", "not_positive", "null_value"]
        collected = receipt_rows(engine.lake, TRADES)
        assert collected["sequence_number"].to_pylist() == sorted(set(collected["sequence_number"].to_pylist()))
