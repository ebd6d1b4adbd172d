"""What Dagster's storage costs: bytes of a thousand ingest runs, and of what pruning leaves of them.

`python -m k2_tests.bench.dagster_storage [RUNS]`: real runs of the real job on SQLite, ten trades each.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any

from k2_assets.definitions import build_definitions
from k2_assets.in_process import open_instance
from k2_assets.pruning import prune
from k2_assets.runs import TABLE_TAG
from k2_assets.storage import shown_runs, storage_bytes
from k2_cli.services import REPOSITORY
from k2_cli.services import any_free as free_port
from k2_core.contracts import TRADES
from k2_resources import clock
from k2_tests.conftest import start_registry, stop
from k2_tests.stacks import stack
from k2_tests.ticks import FEEDS, trade

RUNS = 50
"""Each takes half a second; the bytes of one differ by a few per cent."""
ROWS = 10
QUIET = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}


def run(runs: int = RUNS) -> dict[str, Any]:
    """Ingest so many batches of one date, each in a run of its own; then prune as if they were old."""
    with tempfile.TemporaryDirectory() as directory:
        home, port = Path(directory) / "home", free_port()
        (Path(directory) / "registry").mkdir()
        registry = start_registry(Path(directory) / "registry", port)
        try:
            return _measured(home, f"http://127.0.0.1:{port}", runs)
        finally:
            stop(registry)


def _measured(home: Path, registry_url: str, runs: int) -> dict[str, Any]:
    feed = FEEDS["binance-trades"]
    with stack(home, registry_url) as here, open_instance(home / "dagster", REPOSITORY / "dagster.yaml") as instance:
        served = {"kafka": here.settings.bootstrap(), "registry": registry_url}
        here.settings.endpoints_file.parent.mkdir(parents=True)
        here.settings.endpoints_file.write_text(json.dumps(served))  # a run knows its home, and no more
        job = build_definitions(here.settings).resolve_job_def("ingest_trades")
        sizes = []
        for number in range(runs + 1):
            here.send(feed, [trade(ROWS * number + n) for n in range(ROWS)])
            done = job.execute_in_process(run_config=QUIET, tags={TABLE_TAG: TRADES.name}, instance=instance)
            assert done.success
            sizes.append(storage_bytes(instance) or 0)
        before, shown = sizes[-1], len(shown_runs(instance))
        began = time.process_time()
        pruned = prune(instance, here.settings, clock.now() + timedelta(days=365))
        cpu_seconds = time.process_time() - began
        after = storage_bytes(instance) or 0
    grown, left = (before - sizes[0]) / runs, before - after
    return {
        "runs": runs,
        "mb_per_thousand_runs": grown / 1e3,
        "pruned": pruned.runs,
        "shown": shown,
        "share_taken_back": left / max(pruned.runs * grown, 1.0),
        "prune_cpu_ms_per_run": 1e3 * cpu_seconds / max(pruned.runs, 1),
    }


def table(result: Mapping[str, Any]) -> str:
    """The figures as Markdown."""
    return "\n".join(
        (
            "| runs | MB per thousand runs | pruned | kept because shown | of their bytes taken back | CPU ms per run |",
            "|---|---|---|---|---|---|",
            f"| {result['runs']} | {result['mb_per_thousand_runs']:.0f} | {result['pruned']} | {result['shown']} "
            f"| {result['share_taken_back']:.0%} | {result['prune_cpu_ms_per_run']:.1f} |",
        )
    )


if __name__ == "__main__":
    print(table(run(int(sys.argv[1]) if len(sys.argv) > 1 else RUNS)))
