"""The ledger of gaps as an asset: what is open is counted, what is explained is not."""

from k2_assets.ledgers import gap_metadata
from k2_assets.tables import asset_key
from k2_core.contracts import GAPS, TRADES
from k2_tests.assets.conftest import QUIET, DagsterHome
from k2_tests.ticks import trade


def count(home: DagsterHome) -> dict[str, object]:
    job = home.definitions.resolve_job_def("count_gaps")
    assert job.execute_in_process(instance=home.instance, run_config=QUIET).success
    event = home.instance.get_latest_materialization_event(asset_key(GAPS))
    assert event is not None
    assert event.asset_materialization is not None
    return {name: value.value for name, value in event.asset_materialization.metadata.items()}


def test_gaps_are_counted_until_their_ids_have_come(home: DagsterHome) -> None:
    assert (count(home)["open_gaps"], count(home)["largest"]) == (0, "none")
    home.send(home.binance, *(trade(number) for number in (1, 2, 5, 9)))
    home.run(TRADES)
    told = count(home)
    assert (told["open_gaps"], told["missing_ids"], told["states"]) == (2, 5, {"open": 2})
    first = told["largest"].records[0].data
    assert (first["gap_id"], first["size"]) == ("binance-trades:BTCUSDT:0:6-8", 3)
    home.send(home.binance, *(trade(number) for number in (3, 4, 6, 7, 8)))
    home.run(TRADES)
    assert (count(home)["open_gaps"], count(home)["states"]) == (0, {})


def test_what_nobody_has_to_see_to_is_not_open() -> None:
    states = ("open", "accepted", "absent_at_source", "unrecoverable")
    told = gap_metadata([{"gap_id": "g", "size": n, "state": state} for n, state in enumerate(states, start=1)])
    assert (told["open_gaps"], told["missing_ids"], told["settled_gaps"]) == (2, 1 + 4, 2)
