"""Upkeep as people run it: the job in Dagster, and `k2 maintain` without it."""

import json
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import dagster as dg
import pytest
from click.testing import CliRunner

from k2_assets.maintenance import maintenance_definitions, upkeep_key
from k2_assets.upkeep import DUTIES, Upkeep, attend
from k2_cli.maintain import DUTIES as COMMANDED
from k2_cli.maintain import maintain
from k2_core.contracts import QUOTES, TRADES
from k2_core.errors import Damaged, FencedOut
from k2_resources import clock
from k2_resources.bindings import K2Resource
from k2_resources.lake.catalog import Lake
from k2_resources.lake.compaction import stored_files
from k2_resources.lake.verify import verify
from k2_resources.settings import Settings, load_feeds
from k2_tests.lakes import full_lake


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    return full_lake(tmp_path / "home")


@pytest.fixture
def definitions(tmp_path: Path) -> dg.Definitions:
    settings = Settings(home=tmp_path / "home")
    resources = dg.Definitions(resources={"k2": K2Resource(home=str(settings.home))})
    return dg.Definitions.merge(maintenance_definitions(settings, load_feeds(settings)), resources)


@pytest.fixture
def instance(tmp_path: Path) -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.ephemeral(tempdir=str(tmp_path)) as instance:
        yield instance


def test_the_job_does_every_duty_in_order_and_says_of_each_table_what_was_done(
    lake: Lake, definitions: dg.Definitions, instance: dg.DagsterInstance
) -> None:
    ran = definitions.resolve_job_def("maintain").execute_in_process(instance=instance)
    events = [event.materialization for event in ran.get_asset_materialization_events()]
    assert [event.asset_key for event in events] == [upkeep_key(duty) for duty in DUTIES]
    compaction, expiry = events[0].metadata, events[1].metadata
    assert (compaction["files_in"].value, compaction["files_out"].value, compaction["rows"].value) == (2, 1, 5)
    records = {record.data["table"]: record.data for record in compaction["tables"].records}
    assert records[TRADES.name]["commits"] == 1
    assert records[QUOTES.name]["commits"] == 0
    assert expiry["forgotten"].value == 0
    assert [f.is_sorted for f in stored_files(lake.head(TRADES))] == [True]
    assert verify(lake, TRADES).findings == ()


def test_the_schedule_runs_by_itself_and_every_duty_says_what_it_is(definitions: dg.Definitions) -> None:
    schedule = definitions.resolve_schedule_def("maintain")
    assert schedule.default_status == dg.DefaultScheduleStatus.RUNNING
    specs = {spec.key: spec for spec in definitions.resolve_all_asset_specs()}
    assert {spec.group_name for spec in specs.values()} == {"upkeep"}
    assert all(spec.owners and spec.kinds and spec.description for spec in specs.values())
    parents = [[dep.asset_key for dep in specs[upkeep_key(duty)].deps] for duty in DUTIES]
    assert parents == [[], *([upkeep_key(duty)] for duty in list(DUTIES)[:-1])]


def test_the_command_does_the_same_without_dagster_and_only_what_it_is_asked(lake: Lake, tmp_path: Path) -> None:
    assert tuple(DUTIES) == COMMANDED
    home = ["--home", str(tmp_path / "home")]
    asked = CliRunner().invoke(maintain, [*home, "--table", "trades", "--duty", "compaction", "--json"])
    assert asked.exit_code == 0, asked.output
    (done,) = json.loads(asked.stdout)
    assert (done["duty"], done["table"], done["files_in"], done["rows"]) == ("compaction", TRADES.name, 2, 5)
    shown = CliRunner().invoke(maintain, home)
    assert "orphan_sweep  market_data.trades" in shown.stdout
    assert verify(lake, TRADES).findings == ()


def test_a_rival_is_no_failure_and_damage_is_told_once_the_other_tables_are_done(
    lake: Lake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    upkeep = Upkeep(Settings(home=tmp_path / "home"), lake, clock.now() + timedelta(days=1), "run")
    told = {TRADES.name: Damaged("altered"), QUOTES.name: FencedOut("a rival")}

    def failing(_: Upkeep, table: object) -> dict[str, int]:
        if (error := told.get(table.name)) is not None:
            raise error
        return {"done": 1}

    monkeypatch.setitem(DUTIES, "expiry", failing)
    attended: dict[str, object] = {}
    attending = attend(upkeep, "expiry")
    with pytest.raises(Damaged, match="altered"):
        while True:
            table, counts = next(attending)
            attended[table.name] = counts
    assert attended.pop(QUOTES.name) == {"outpaced": 1}
    assert TRADES.name not in attended
    assert set(map(str, attended.values())) == {"{'done': 1}"}
