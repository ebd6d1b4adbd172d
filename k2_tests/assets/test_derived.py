"""Bars in Dagster: what the schedule asks for, what a run builds and tells, and that a crash in between heals."""

import shutil
from collections.abc import Iterator
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from k2_assets.derived import DERIVED_TAG, JOB, derived_definitions, untold
from k2_assets.partitions import DAILY
from k2_assets.tables import asset_key
from k2_core.contracts import TRADES, Table
from k2_core.derived_tables import BARS, BARS_1D, BARS_1M
from k2_core.receipts import DateRows
from k2_resources.bindings import K2Resource
from k2_resources.lake.catalog import Lake
from k2_resources.lake.derived_reads import day_bars
from k2_resources.settings import Settings, load_feeds
from k2_tests.assets.conftest import QUIET, open_dagster_home
from k2_tests.lakes import DAY, FEED, Batch, collect, new_lake, put, register

FOLLOWING = DAY + timedelta(days=1)


class Home:
    """A lake and Dagster on one home, no servers: bars need none."""

    def __init__(self, path: Path, instance: dg.DagsterInstance) -> None:
        self.settings = Settings(home=path)
        self.instance = instance
        self.lake: Lake = new_lake(path)
        register(self.lake)
        resources = {"k2": K2Resource(home=str(path))}
        own = derived_definitions(self.settings, load_feeds(self.settings))
        spec = dg.AssetSpec(asset_key(TRADES), partitions_def=DAILY)
        self.definitions = dg.Definitions.merge(own, dg.Definitions(assets=[spec], resources=resources))

    def put(self, ids: list[int], **changes: Any) -> None:
        put(self.lake, Batch(ids, **changes))
        collect(self.lake, TRADES)
        self.instance.report_runless_asset_event(dg.AssetMaterialization(asset_key(TRADES), partition=DAY.isoformat()))

    def tick(self) -> Any:
        schedule = self.definitions.resolve_schedule_def(JOB)
        with dg.build_schedule_context(
            self.instance, resources={"k2": K2Resource(home=str(self.settings.home))}
        ) as context:
            return schedule.evaluate_tick(context)

    def run(self, day: date | None = None, *tables: Table, must_succeed: bool = True) -> dg.ExecuteInProcessResult:
        asked: dict[str, Any] = {"run_config": QUIET, "instance": self.instance, "raise_on_error": must_succeed}
        if day is None:
            job = self.definitions.resolve_job_def(JOB)
            return job.execute_in_process(tags={"dagster/schedule_name": JOB}, **asked)
        everything = self.definitions.resolve_implicit_global_asset_job_def()
        wanted = [asset_key(t) for t in tables or BARS]
        return everything.execute_in_process(partition_key=day.isoformat(), asset_selection=wanted, **asked)

    def told(self, table: Table) -> list[tuple[str | None, dict[str, Any]]]:
        records = self.instance.fetch_materializations(asset_key(table), limit=100, ascending=True).records
        events = [r.asset_materialization for r in records if r.asset_materialization]
        return [(e.partition, {name: value.value for name, value in e.metadata.items()}) for e in events]


@pytest.fixture
def home(tmp_path: Path, new_dagster_home: Path) -> Iterator[Home]:
    with open_dagster_home(Path(shutil.copytree(new_dagster_home, tmp_path / "dagster"))) as instance:
        yield Home(tmp_path / "k2", instance)


def test_the_schedule_asks_for_a_run_when_trades_came_and_for_none_afterwards(home: Home) -> None:
    home.run()
    assert home.tick().skip_message == "bars are those of the trades"
    home.put([1, 2, 3])
    (request,) = home.tick().run_requests
    assert request.tags[DERIVED_TAG] == "bars"
    home.run()
    assert home.tick().skip_message == "bars are those of the trades"
    for table in BARS:
        ((partition, facts),) = home.told(table)
        assert (partition, facts["rows"], facts["trade_count"], facts["is_open"]) == (DAY.isoformat(), 1, 3, False)


def test_a_run_for_a_date_builds_it_anew_and_one_without_trades_stores_nothing(home: Home) -> None:
    home.put([1])
    home.run(DAY)
    home.run(DAY)
    home.run(FOLLOWING)
    assert [(p, facts["rows"], facts["build"]) for p, facts in home.told(BARS_1M)] == [
        (DAY.isoformat(), 1, 1),
        (DAY.isoformat(), 1, 2),
        (FOLLOWING.isoformat(), 0, 1),
    ]
    assert [len(home.lake.snapshots(table)) for table in BARS] == [2, 2]


def test_daily_bars_alone_follow_from_the_stored_minute_bars(home: Home) -> None:
    home.put([1])
    assert not home.run(DAY, BARS_1D, must_succeed=False).success
    home.run(DAY, BARS_1M)
    assert len(day_bars(home.lake, BARS_1D, DAY)) == 0
    home.run(DAY, BARS_1D)
    assert len(day_bars(home.lake, BARS_1D, DAY)) == 1


def test_a_build_that_was_not_told_is_told_by_the_next_run(home: Home, another_instance: dg.DagsterInstance) -> None:
    home.put([1])
    home.run()
    assert untold(home.instance, home.lake, BARS_1M, 10) == []
    home.instance = another_instance
    assert [event.partition for event in untold(another_instance, home.lake, BARS_1M, 10)] == [DAY.isoformat()]
    (request,) = home.tick().run_requests
    assert request
    home.run()
    assert [partition for partition, _ in home.told(BARS_1D)] == [DAY.isoformat()]
    assert home.tick().run_requests == []


def test_a_date_that_cannot_be_read_fails_the_run_and_keeps_no_other_from_its_turn(home: Home) -> None:
    home.put([1])
    home.put([2], places={"exchange_date": [FOLLOWING]}, dates=[DateRows(FOLLOWING, FEED.name, 1)])
    broken = next(
        f.path for f in home.lake.files(TRADES, home.lake.state(TRADES).snapshot_id) if f.exchange_date == DAY
    )
    Path(broken).rename(f"{broken}.away")
    home.run(FOLLOWING)
    assert not home.run(must_succeed=False).success
    assert [partition for partition, _ in home.told(BARS_1M)] == [FOLLOWING.isoformat()]
    assert "the last runs failed" in str(home.tick().skip_message)
    Path(f"{broken}.away").rename(broken)
    home.run()
    assert len(day_bars(home.lake, BARS_1M, DAY)) == 1
    assert home.tick().skip_message == "bars are those of the trades"


def test_lineage_names_columns_that_there_are(home: Home) -> None:
    graph = home.definitions.resolve_asset_graph()
    upstream = {asset_key(BARS_1M): TRADES, asset_key(BARS_1D): BARS_1M}
    for table in BARS:
        node = graph.get(asset_key(table))
        lineage = node.metadata["dagster/column_lineage"].deps_by_column
        assert set(lineage) <= set(table.arrow_schema().names)
        for deps in lineage.values():
            assert {d.column_name for d in deps} <= set(upstream[asset_key(table)].arrow_schema().names)
        assert (node.group_name, node.pools) == ("derived", {"bars"})
