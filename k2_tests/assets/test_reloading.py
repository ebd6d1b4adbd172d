"""A source day launched from the UI: through the topic, converging, and said where nothing is to be had."""

from datetime import date

from k2_core.contracts import QUOTES, TRADES
from k2_resources.lake.verify import verify
from k2_tests.assets.conftest import DagsterHome
from k2_tests.feeds.dumps import lines, write_dump

DAY = date(2025, 1, 2)
ROWS = 40


def dump(home: DagsterHome, rows: int = ROWS) -> None:
    record = home.binance.source_of_record
    assert record is not None
    write_dump(home.stack.settings.home / record.place, f"AGAINUSDT-trades-{DAY}", lines(1, rows, DAY))


def told(home: DagsterHome) -> dict[str, object]:
    metadata = home.materializations(TRADES)[-1].metadata
    return {name: metadata[name].value for name in ("dagster/partition_row_count", "rows_sent_again")}


def test_a_day_is_sent_again_and_converges(home: DagsterHome) -> None:
    dump(home)
    assert home.run(TRADES, day=DAY).success
    assert told(home) == {"dagster/partition_row_count": ROWS, "rows_sent_again": ROWS}
    assert home.run(TRADES, day=DAY).success
    assert told(home) == {"dagster/partition_row_count": ROWS, "rows_sent_again": ROWS}
    proof = verify(home.engine.lake, TRADES)
    assert (proof.findings, proof.written, proof.duplicates) == ((), ROWS, ROWS)
    assert home.days(TRADES) == [DAY.isoformat()]


def test_a_day_that_cannot_be_had_again_is_said_and_what_is_stored_of_it_told(home: DagsterHome) -> None:
    assert home.run(TRADES, day=DAY).success
    (event,) = home.materializations(TRADES)
    sources = {record.data["feed"]: str(record.data["absent"]) for record in event.metadata["sources"].value.records}
    assert sorted(sources) == ["asx-trades", "binance-trades"]
    assert all(absent.startswith(str(home.stack.settings.home)[:40]) for absent in sources.values())
    assert home.run(QUOTES, day=DAY).success
    assert home.days(QUOTES) == [DAY.isoformat()]
