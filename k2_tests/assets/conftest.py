"""A K2 home with servers of its own, and Dagster on it, driven without its daemon."""

import json
import shutil
import uuid
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
import yaml

from k2_assets.definitions import build_definitions
from k2_assets.engine import Engine
from k2_assets.runs import TABLE_TAG
from k2_assets.tables import asset_key
from k2_core.contracts import Table
from k2_core.feeds import Feed
from k2_resources.bindings import K2Resource
from k2_resources.settings import Settings
from k2_tests.stacks import Stack

QUIET = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}


@dataclass
class DagsterHome:
    """What the daemon would do, one step at a time. `instance` may be replaced by that of another Dagster home."""

    stack: Stack
    engine: Engine
    definitions: dg.Definitions
    instance: dg.DagsterInstance

    def feed(self, name: str) -> Feed:
        """A feed of this home, whose topic is its own."""
        return next(feed for feed in self.engine.feeds if feed.name == name)

    @property
    def binance(self) -> Feed:
        return self.feed("binance-trades")

    @property
    def asx(self) -> Feed:
        return self.feed("asx-trades")

    def send(self, feed: Feed, *records: Mapping[str, Any]) -> None:
        """Produce records as a feed would."""
        self.stack.send(feed, records)

    def run(
        self, table: Table, request: dg.RunRequest | None = None, *, day: date | None = None, must_succeed: bool = True
    ) -> dg.ExecuteInProcessResult:
        """Run the job of one table as asked; without a request it plans for itself."""
        return self.definitions.resolve_job_def(f"ingest_{table.short_name}").execute_in_process(
            run_config={**(request.run_config if request else {}), **QUIET},
            tags={TABLE_TAG: table.name, **(request.tags if request else {})},
            partition_key=day.isoformat() if day else None,
            instance=self.instance,
            raise_on_error=must_succeed,
        )

    def tick(self, table: Table, cursor: str | None = None) -> Any:
        """Evaluate the sensor of one table once."""
        sensor = self.definitions.resolve_sensor_def(f"{table.short_name}_sensor")
        resources = {"k2": K2Resource(home=str(self.stack.settings.home))}
        with dg.build_sensor_context(instance=self.instance, cursor=cursor, resources=resources) as context:
            return sensor.evaluate_tick(context)

    def days(self, table: Table) -> list[str]:
        """Partitions Dagster shows as materialized."""
        return sorted(self.instance.get_materialized_partitions(asset_key(table)))

    def materializations(self, table: Table) -> list[dg.AssetMaterialization]:
        """All of them, oldest first."""
        records = self.instance.fetch_materializations(asset_key(table), limit=1_000, ascending=True).records
        return [record.asset_materialization for record in records if record.asset_materialization]

    def evaluations(self, table: Table) -> list[dg.AssetCheckEvaluation]:
        """Check evaluations of all runs, oldest first."""
        found = []
        for run in reversed(self.instance.get_runs()):
            logged = self.instance.all_logs(run.run_id, of_type=dg.DagsterEventType.ASSET_CHECK_EVALUATION)
            found += [entry.dagster_event.asset_check_evaluation_data for entry in logged if entry.dagster_event]
        return [e for e in found if e.asset_key == asset_key(table)]


@pytest.fixture(scope="session")
def new_dagster_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Dagster home as it is when just made: its SQLite schemas take longer to make than to copy."""
    directory = tmp_path_factory.mktemp("dagster")
    with open_dagster_home(directory) as instance:
        instance.get_runs()
    return directory


def open_dagster_home(directory: Path) -> dg.DagsterInstance:
    """Dagster on SQLite in a directory."""
    return dg.DagsterInstance.local_temp(str(directory), overrides={"telemetry": {"enabled": False}})


@pytest.fixture
def another_instance(tmp_path: Path, new_dagster_home: Path) -> Iterator[dg.DagsterInstance]:
    """Dagster after its home was wiped."""
    with open_dagster_home(Path(shutil.copytree(new_dagster_home, tmp_path / "another"))) as instance:
        yield instance


@pytest.fixture
def home(
    tmp_path: Path, broker: str, registry_url: str, new_dagster_home: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[DagsterHome]:
    """A K2 home with real servers; the session's broker, but topics of its own."""
    config = yaml.safe_load((Settings().config / "feeds.yaml").read_text())
    for feed in config["feeds"]:
        feed["topic"] += f".{uuid.uuid4().hex[:8]}"
    (tmp_path / "feeds.yaml").write_text(yaml.safe_dump(config))
    monkeypatch.setenv("K2_CONFIG", str(tmp_path))
    settings = Settings(home=tmp_path / "k2")
    settings.endpoints_file.parent.mkdir(parents=True)
    settings.endpoints_file.write_text(json.dumps({"kafka": broker, "registry": registry_url}))
    dagster_home = Path(shutil.copytree(new_dagster_home, settings.dagster_home))
    with ExitStack() as opened, open_dagster_home(dagster_home) as instance:
        stack = Stack(settings, opened)
        yield DagsterHome(stack, stack.engine(), build_definitions(settings), instance)
