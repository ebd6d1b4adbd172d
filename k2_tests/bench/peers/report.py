"""What is printed of a run: the machine, the figures, and K2's ratios against what they shall be."""

from __future__ import annotations

import os
import platform
import subprocess
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from k2_tests.bench.peers.race import Result


@dataclass(frozen=True)
class Target:
    """One ratio K2 is held to. what: rate (K2's over the peer's) or cpu (the peer's over K2's); both at least."""

    peer: str
    what: str
    at_least: float


TARGETS = (
    Target("spark", "rate", 2.0),
    Target("connect", "rate", 3.5),
    Target("spark", "cpu", 2.5),
    Target("connect", "cpu", 2.5),
    Target("fastavro", "cpu", 10.0),
)


def machine() -> dict[str, Any]:
    """What the figures were measured on, and how busy it was before."""
    cpus = [line.partition(":")[2].strip() for line in _cpuinfo() if line.startswith("model name")]
    java = subprocess.run(["java", "-version"], check=False, capture_output=True, text=True).stderr.splitlines()
    return {
        "cpu": cpus[0] if cpus else platform.processor(),
        "cores": os.cpu_count(),
        "memory_gigabytes": round(psutil.virtual_memory().total / 2**30, 1),
        "system": platform.platform(),
        "python": platform.python_version(),
        "java": java[0] if java else "none",
        "load_1_5_15_minutes": [round(load, 2) for load in os.getloadavg()],
    }


def _cpuinfo() -> list[str]:
    file = Path("/proc/cpuinfo")
    return file.read_text().splitlines() if file.exists() else []


def ratios(results: Mapping[str, Result]) -> list[dict[str, Any]]:
    """K2 against every peer that ran, with the target where there is one."""
    k2 = results.get("k2")
    found = []
    for peer, other in results.items():
        if k2 is None or peer == "k2":
            continue
        reached = {
            "rate": k2.records_per_second / other.records_per_second,
            "cpu": other.cpu_seconds_per_million / k2.cpu_seconds_per_million,
        }
        for what, ratio in reached.items():
            target = next((t.at_least for t in TARGETS if (t.peer, t.what) == (peer, what)), None)
            found.append({"peer": peer, "what": what, "ratio": round(ratio, 2), "at_least": target})
    return found


def text(told: Mapping[str, Any], results: Iterable[Result], skipped: Mapping[str, str]) -> str:
    """The run as Markdown."""
    lines = [f"Machine: {told['cpu']}, {told['cores']} cores, {told['memory_gigabytes']} GB, {told['system']}; "]
    lines[0] += f"Python {told['python']}, {told['java']}; load before {told['load_1_5_15_minutes']}"
    lines += [
        "",
        "| peer | records | commits | rec/s | cpu-s per million | rec/s whole | cpu-s/M whole | idle s | MB at most |",
    ]
    lines += ["|---|---|---|---|---|---|---|---|---|", *map(_line, results)]
    lines += ["", "rec/s and cpu-s per million: from the first commit to the last, of the peer's own processes."]
    lines += ["whole: from the start of the process to the last commit, warm-up and everything in."]
    lines += ["idle: time without work before a last commit that came late; it is not in rec/s."]
    lines += [f"skipped {peer}: {reason}" for peer, reason in skipped.items()]
    return "\n".join(lines)


def _line(r: Result) -> str:
    figures = f"{r.records:,} | {r.commits} | {r.records_per_second:,.0f} | {r.cpu_seconds_per_million:.2f}"
    whole = f"{r.whole_records_per_second:,.0f} | {r.whole_cpu_seconds_per_million:.2f}"
    return f"| {r.peer} | {figures} | {whole} | {r.idle_seconds:.1f} | {r.rss_megabytes_max:,.0f} |"


def ratio_text(ratio: Mapping[str, Any]) -> str:
    """One ratio as a line."""
    words = {"rate": "K2's rec/s over", "cpu": "CPU per million over K2's, of"}[ratio["what"]]
    target = "" if ratio["at_least"] is None else f" (at least {ratio['at_least']:g}: {_verdict(ratio)})"
    return f"{words} {ratio['peer']}: {ratio['ratio']:.2f}{target}"


def _verdict(ratio: Mapping[str, Any]) -> str:
    return "reached" if ratio["ratio"] >= ratio["at_least"] else "MISSED"
