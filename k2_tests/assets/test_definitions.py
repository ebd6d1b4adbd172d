"""What Dagster is given, seen whole: a change of this picture is meant, or it is a mistake."""

import json
import subprocess
import sys
from pathlib import Path

import dagster as dg

from k2_assets.definitions import build_definitions
from k2_assets.tables import asset_key, column_schema
from k2_assets.topics import OWNER
from k2_core.contracts import INGESTED, TRADES
from k2_resources.settings import Settings
from k2_tests.assets.picture import FILE, picture


def test_the_picture_is_as_drawn() -> None:
    """`python -m k2_tests.assets.picture` draws it anew; its diff is what a change means."""
    assert picture(build_definitions()) == json.loads(FILE.read_text())


def test_everything_says_what_it_is_whose_it_is_and_what_its_columns_are() -> None:
    graph = build_definitions().resolve_asset_graph()
    for key in graph.get_all_asset_keys():
        node = graph.get(key)
        assert node.description, key
        assert (node.group_name or "default") != "default", key
        assert node.kinds, key
        assert node.owners == [OWNER], key
        if "dagster/table_name" in node.metadata:
            assert "dagster/column_schema" in node.metadata, key


def test_checks_are_daily_where_their_asset_is_and_only_day_close_blocks() -> None:
    graph = build_definitions().resolve_asset_graph()
    for key in graph.asset_check_keys:
        assert graph.get(key).partitions_def == graph.get(key.asset_key).partitions_def is not None
        assert not graph.get(key).blocking


def test_each_table_has_a_job_without_checks_and_a_running_sensor() -> None:
    definitions = build_definitions()
    for table in INGESTED:
        job = definitions.resolve_job_def(f"ingest_{table.short_name}")
        sensor = definitions.resolve_sensor_def(f"{table.short_name}_sensor")
        assert job.asset_layer.executable_asset_keys == {asset_key(table)}
        assert not job.asset_layer.asset_graph.asset_check_keys
        assert [target.job_name for target in sensor.targets] == [job.name]
        assert (sensor.default_status, sensor.minimum_interval_seconds) == (dg.DefaultSensorStatus.RUNNING, 4)


def test_every_definition_loads() -> None:
    dg.Definitions.validate_loadable(build_definitions())


def test_columns_are_shown_as_the_contract_states_them() -> None:
    shown = {column.name: column for column in column_schema(TRADES).columns}
    assert list(shown) == [column.name for column in TRADES.columns]
    assert (shown["price"].type, shown["price"].constraints.nullable) == ("decimal128(18, 8)", False)
    assert shown["source_sequence"].constraints.nullable


def test_loading_touches_neither_home_nor_servers(tmp_path: Path) -> None:
    home = tmp_path / "absent"
    code = "import k2_assets.definitions"
    environment = {"K2_HOME": str(home), "K2_KAFKA_BOOTSTRAP": "127.0.0.1:1", "K2_REGISTRY_URL": "http://127.0.0.1:1"}
    subprocess.run(
        [sys.executable, "-W", "error", "-c", code], env=environment, check=True, cwd=Path(__file__).parents[2]
    )
    assert not home.exists()


def test_assets_work_on_the_home_they_were_built_for(tmp_path: Path) -> None:
    resource = build_definitions(Settings(home=tmp_path)).resources["k2"]
    assert resource.settings().home == tmp_path
