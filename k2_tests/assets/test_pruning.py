"""Pruning, on a real instance: what Dagster answers is the same after it, and what it keeps is what that takes."""

import random
from datetime import timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from dagster._core.event_api import PartitionKeyFilter
from dagster._core.loader import LoadingContextForTest
from dagster._core.storage.partition_status_cache import get_and_update_asset_status_cache_value

from k2_assets.pruning import Pruned, prune
from k2_assets.reports import MARK
from k2_assets.storage import OBSERVATIONS_KEPT, forget_run, storage_bytes
from k2_resources import clock
from k2_resources.settings import Settings
from k2_tests.assets import runs_made

DAYS = dg.StaticPartitionsDefinition(["mon", "tue", "wed"])
PARTED, WHOLE, SEEN, LONE = (dg.AssetKey(name) for name in ("parted", "whole", "seen", "lone"))
CHECK = dg.AssetCheckKey(PARTED, "holds")
LATER = timedelta(days=40)


@pytest.fixture
def instance(another_instance: dg.DagsterInstance) -> dg.DagsterInstance:
    """Dagster without K2: these runs need none."""
    return another_instance


def ingested(instance: dg.DagsterInstance, day: str, *, fails: bool = False, holds: bool = True) -> str:
    """What ingest runs do: no key of their own, events for any partition, a mark on the last of them."""
    run_id = runs_made.begin(instance)
    if not fails:
        evaluation = dg.AssetCheckEvaluation(PARTED, CHECK.name, passed=holds, metadata={}, partition=day)
        mark = dg.AssetObservation(WHOLE, metadata={MARK: run_id})
        runs_made.log(instance, run_id, dg.AssetMaterialization(PARTED, partition=day), evaluation, mark)
    runs_made.end(instance, run_id, fails=fails)
    return run_id


def launched(instance: dg.DagsterInstance, day: str, *, fails: bool = False) -> str:
    """A run of one partition, as the UI asks for one."""
    run_id = runs_made.begin(instance, "__ASSET_JOB", {"dagster/partition": day})
    runs_made.plan(instance, run_id, PARTED, day)
    if not fails:
        runs_made.log(instance, run_id, dg.AssetMaterialization(PARTED, partition=day))
    runs_made.end(instance, run_id, fails=fails)
    return run_id


def answers(instance: dg.DagsterInstance) -> dict[str, Any]:
    """Everything a page of Dagster shows of assets: partitions by status, newest events, newest evaluations."""
    loading = LoadingContextForTest(instance)
    cached = get_and_update_asset_status_cache_value(instance, PARTED, DAYS, loading_context=loading)
    assert cached is not None
    storage, told = instance.event_log_storage, {}
    for part in (None, *DAYS.get_partition_keys()):
        only = PartitionKeyFilter(key=part)
        records = storage.get_asset_check_execution_history(CHECK, 1, partition_filter=only)
        told[part] = [(r.run_id, r.status, r.evaluation) for r in records]
    return {
        "materialized": sorted(instance.get_materialized_partitions(PARTED)),
        "failed": sorted(cached.deserialize_failed_partition_subsets(DAYS).get_partition_keys()),
        "attempts": storage.get_latest_asset_partition_materialization_attempts_without_materializations(PARTED),
        "newest": {
            (key, part): instance.fetch_materializations(dg.AssetRecordsFilter(key, asset_partitions=[part]), 1).records
            for key in (PARTED, WHOLE)
            for part in DAYS.get_partition_keys()
        },
        "mark": instance.fetch_observations(WHOLE, 1).records,
        "evaluations": told,
        "planned": storage.get_latest_planned_materialization_info(PARTED),
    }


def files(instance: dg.DagsterInstance) -> int:
    return sum(1 for _ in Path(instance.root_directory).rglob("*.db"))


def test_pruning_changes_no_answer_whatever_ran_before(
    instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    chance = random.Random(6)
    ran = []
    for _ in range(20):
        day, fails, holds = chance.choice(DAYS.get_partition_keys()), chance.random() < 0.3, chance.random() < 0.6
        if chance.random() < 0.4:
            ran.append(launched(instance, day, fails=fails))
        else:
            ran.append(ingested(instance, day, fails=fails, holds=holds))
    ran.append(launched(instance, "wed", fails=True))
    before, files_before = answers(instance), files(instance)
    assert before["failed"] and before["materialized"], "the mix has both"
    done = prune(instance, Settings(), clock.now() + LATER)
    assert answers(instance) == before
    left = set(instance.get_run_ids())
    assert done.runs == len(ran) - len(left) > 0
    assert done.left == 0
    assert files(instance) == files_before - done.runs, "each run takes its file along"
    assert prune(instance, Settings(), clock.now() + LATER).runs == 0, "what is left is shown"
    monkeypatch.setattr("k2_assets.pruning.shown_runs", lambda _: set())
    prune(instance, Settings(), clock.now() + LATER)
    assert answers(instance)["materialized"] == [], "what pruning without a thought would do"


def test_what_a_pruned_run_left_is_gone(instance: dg.DagsterInstance) -> None:
    first, second = ingested(instance, "mon"), ingested(instance, "mon")
    instance.add_run_tags(first, {"only": "first"})
    instance.add_run_tags(second, {"only": "second"})
    for _ in range(OBSERVATIONS_KEPT):
        instance.report_runless_asset_event(dg.AssetObservation(WHOLE))
    size = storage_bytes(instance)
    assert size is not None
    assert prune(instance, Settings(), clock.now() + LATER) == Pruned(1, 0, 1, 0)
    history = instance.event_log_storage.get_asset_check_execution_history(CHECK, 10)
    assert first not in {record.run_id for record in history}
    tags = {tag for _, values in instance.get_run_tags(tag_keys=["only"]) for tag in values}
    assert tags == {"second"}
    assert not [path for path in Path(instance.root_directory).rglob("*") if first in path.name]
    assert (storage_bytes(instance) or 0) < size


def test_young_runs_stay_and_failed_ones_longer(instance: dg.DagsterInstance) -> None:
    ingested(instance, "mon")
    failed = ingested(instance, "mon", fails=True)
    ingested(instance, "mon")
    assert prune(instance, Settings(), clock.now() + timedelta(days=6)).runs == 0
    assert prune(instance, Settings(), clock.now() + timedelta(days=8)).runs == 1
    assert failed in instance.get_run_ids()
    assert prune(instance, Settings(), clock.now() + timedelta(days=31)).runs == 1
    assert failed not in instance.get_run_ids()


def test_one_pruning_is_bounded_and_the_next_goes_on(instance: dg.DagsterInstance) -> None:
    ran = [ingested(instance, "mon") for _ in range(4)]
    few = Settings(pruned_runs_max=2)
    assert prune(instance, few, clock.now() + LATER) == Pruned(2, 0, 1, 1)
    assert set(instance.get_run_ids()) == set(ran[2:]), "the oldest go first"
    assert prune(instance, few, clock.now() + LATER) == Pruned(1, 0, 1, 0)


def test_a_run_that_goes_on_is_left_alone(instance: dg.DagsterInstance) -> None:
    instance.add_run(dg.DagsterRun(job_name="going", run_id="going", status=dg.DagsterRunStatus.STARTED))
    assert prune(instance, Settings(), clock.now() + LATER).runs == 0


def test_a_pruning_that_was_cut_short_is_ended_by_the_next(
    instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, _ = ingested(instance, "mon"), ingested(instance, "mon")
    with monkeypatch.context() as patched:
        patched.setattr(instance.compute_log_manager, "delete_logs", lambda **_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            forget_run(instance, first)
    assert first in instance.get_run_ids()
    assert prune(instance, Settings(), clock.now() + LATER).runs == 1
    assert first not in instance.get_run_ids()


def test_old_observations_outside_runs_go_but_for_the_newest(instance: dg.DagsterInstance) -> None:
    for number in range(OBSERVATIONS_KEPT + 3):
        instance.report_runless_asset_event(dg.AssetObservation(SEEN, metadata={"number": number}))
    instance.report_runless_asset_event(dg.AssetMaterialization(LONE))
    assert prune(instance, Settings(), clock.now() + LATER).observations == 3
    left = instance.fetch_observations(SEEN, OBSERVATIONS_KEPT + 3).records
    numbers = [r.asset_observation.metadata["number"].value for r in left if r.asset_observation]
    assert numbers == list(range(OBSERVATIONS_KEPT + 2, 2, -1))
    assert instance.get_latest_materialization_event(LONE) is not None
