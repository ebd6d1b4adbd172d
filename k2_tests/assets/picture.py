"""Everything Dagster is given, as one document: `python -m k2_tests.assets.picture` draws it anew into picture.json."""

import json
from pathlib import Path
from typing import Any

import dagster as dg

from k2_assets.definitions import build_definitions

FILE = Path(__file__).with_suffix(".json")


def picture(definitions: dg.Definitions) -> dict[str, Any]:
    """Assets with what they hang on, checks, jobs, schedules and sensors; sorted, so that two pictures compare."""
    graph = definitions.resolve_asset_graph()
    repository = definitions.get_repository_def()
    checks: dict[str, list[str]] = {}
    for key in graph.asset_check_keys:
        checks.setdefault(key.asset_key.to_user_string(), []).append(key.name)
    assets = {}
    for key in sorted(graph.get_all_asset_keys(), key=dg.AssetKey.to_user_string):
        node, name = graph.get(key), key.to_user_string()
        assets[name] = {
            "group": node.group_name,
            "from": sorted(parent.to_user_string() for parent in node.parent_keys),
            "partitions": None if node.partitions_def is None else type(node.partitions_def).__name__,
            "kinds": sorted(node.kinds),
            "checks": sorted(checks.get(name, [])),
            "columns": len(node.metadata["dagster/column_schema"].columns) if _has(node, "column_schema") else None,
            "column_lineage": _has(node, "column_lineage"),
        }
    return {
        "assets": assets,
        "jobs": sorted(job.name for job in repository.get_all_jobs() if not job.name.startswith("__")),
        "schedules": {
            schedule.name: f"{schedule.job_name}: {schedule.cron_schedule} {schedule.execution_timezone or 'UTC'}"
            for schedule in sorted(repository.schedule_defs, key=lambda s: s.name)
        },
        "sensors": {
            sensor.name: f"every {sensor.minimum_interval_seconds} s"
            for sensor in sorted(repository.sensor_defs, key=lambda s: s.name)
        },
    }


def _has(node: Any, name: str) -> bool:
    return f"dagster/{name}" in node.metadata


if __name__ == "__main__":
    FILE.write_text(json.dumps(picture(build_definitions()), indent=1) + "\n")
