"""300 kill -9 of real processes on a real broker, catalog and disk: nothing lost, nothing twice, every point met."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest

from k2_tests.crash.torture.points import POINTS

KILLS, LANES, SEED = 300, 4, 20_240_808


@pytest.mark.timeout(900)
def test_300_kills_lose_nothing_and_double_nothing(tmp_path):
    """In a process of its own, as `make torture` runs it: its workers are forked, and a test process has threads."""
    command = [sys.executable, "-m", "k2_tests.crash.torture", "--kills", KILLS, "--lanes", LANES, "--seed", SEED]
    arguments = [*map(str, command), "--under", str(tmp_path)]
    ran = subprocess.run(arguments, check=False, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stdout[-8_000:] + ran.stderr[-2_000:]
    kills, points, least = re.fullmatch(
        rf"([\d,]+) kills, (\d+) crash points \(each >= (\d+)\), 0 lost, 0 doubled, seed {SEED}",
        ran.stdout.splitlines()[-1],
    ).groups()
    assert (int(kills.replace(",", "")) >= KILLS, int(points)) == (True, len(POINTS))
    assert int(least) >= KILLS // 50
