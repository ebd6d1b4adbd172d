"""Every bench in one run: `python -m k2_tests.bench [--json FILE]`, what `make bench` calls.

Prints Markdown for docs/PERFORMANCE.md with the machine stated. Figures are of one run on one machine: compare the
ratios, and CPU seconds per million.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from k2_tests.bench import (
    answers,
    bars_rate,
    commit_cost,
    dagster_storage,
    decode_rate,
    end_to_end,
    feed_rate,
    latency,
    launch_latency,
    live_rate,
    point_reads,
    verdict_cost,
    verify_rate,
    visible,
)

Run = Callable[[], dict[str, Any]]
Render = Callable[[Mapping[str, Any]], str]

BENCHES: dict[str, tuple[str, Run, Render]] = {
    "decode": ("Decode", decode_rate.run, decode_rate.table),
    "feeds": ("From a source to Kafka, by feed", feed_rate.run, feed_rate.table),
    "live": ("From the wire to Kafka, live", live_rate.run, live_rate.table),
    "verdict": ("Verdict", verdict_cost.run, verdict_cost.table),
    "end_to_end": ("From topic to committed table", end_to_end.run, end_to_end.table),
    "commit": ("Commit against the number of commits before it", commit_cost.run, commit_cost.table),
    "verify": ("Proof of a table", verify_rate.run, verify_rate.table),
    "latency": ("From produced to committed", latency.run, latency.table),
    "bars": ("Bars from trades", bars_rate.run, bars_rate.table),
    "reads": ("A point read beside its rivals", point_reads.run, point_reads.table),
    "answers": ("The API under load", answers.run, answers.table),
    "visible": ("From produced to visible in /v1/trades/recent", visible.run, visible.table),
    "dagster": ("What Dagster keeps of runs", dagster_storage.run, dagster_storage.table),
    "launch": ("From a sensor's tick to a finished run", launch_latency.run, launch_latency.table),
}


def machine() -> dict[str, Any]:
    """What the figures were measured on."""
    models = [line.partition(":")[2].strip() for line in _cpuinfo() if line.startswith("model name")]
    return {
        "cpu": models[0] if models else platform.processor(),
        "cores": os.cpu_count(),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30),
        "load_average": os.getloadavg()[0],
        "python": platform.python_version(),
    }


def _cpuinfo() -> list[str]:
    try:
        return Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return []


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", choices=sorted(BENCHES), action="append")
    parser.add_argument("--json", type=Path)
    asked = parser.parse_args()
    results: dict[str, Any] = {"machine": machine()}
    print(f"Machine: {json.dumps(results['machine'])}", flush=True)
    for name, (title, run, render) in BENCHES.items():
        if not asked.only or name in asked.only:
            results[name] = run()
            print(f"\n### {title}\n\n{render(results[name])}", flush=True)
    if asked.json:
        asked.json.write_text(json.dumps(results, indent=2))


if __name__ == "__main__":
    main()
