"""Crash points: one list of names, each of them somewhere in the code, and no cost where none is armed."""

from __future__ import annotations

import ast
import multiprocessing
import os
import signal
import time
import timeit

import psutil
import pytest

from k2_core.contracts import AUDIT
from k2_core.errors import Misconfigured
from k2_resources import failpoints
from k2_resources.failpoints import Tripped, arm, reach, reach_file
from k2_tests.crash.torture.points import OF_DAGSTER, POINTS
from k2_tests.test_tidy import FILES

COST_RATIO_MAX = 12.0
"""An unarmed place against a call of a function that does nothing: a call and a look at an empty dict."""


@pytest.fixture(autouse=True)
def disarmed():
    yield
    arm("")


def names_in_code() -> set[str]:
    """Every name that is given to a `reach` or returned to one, those of the audit tables spelled out."""
    found: set[str] = set()
    for path in FILES:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and ast.unparse(node.func).split(".")[-1] == "reach":
                texts = [n.value for n in ast.walk(node.args[0]) if isinstance(n, ast.Constant)]
                found |= (
                    {f"{t}{a.short_name}" for t in texts for a in AUDIT}
                    if isinstance(node.args[0], ast.JoinedStr)
                    else {*texts}
                )
    return found


def test_the_list_names_every_place_and_no_other():
    assert names_in_code() == set(failpoints.ALL)
    assert len(set(failpoints.ALL)) == len(failpoints.ALL)
    assert set(POINTS) | set(OF_DAGSTER) == set(failpoints.ALL)


def test_an_unarmed_place_costs_a_call():
    def nothing(_: str) -> None:
        pass

    empty = min(timeit.repeat(lambda: nothing("committing"), number=20_000, repeat=5))
    assert min(timeit.repeat(lambda: reach("committing"), number=20_000, repeat=5)) / empty < COST_RATIO_MAX
    assert (
        min(timeit.repeat(lambda: reach_file("/t/metadata/x-m0.avro"), number=20_000, repeat=5)) / empty
        < COST_RATIO_MAX
    )


def test_only_the_armed_place_stops_and_only_the_nth_time():
    arm("judged:2:raise")
    reach("judged")
    reach("read")
    with pytest.raises(Tripped, match="judged reached for the 2"):
        reach("judged")
    reach("judged")


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("/w/trades/metadata/8f-m0.avro", "manifest_written"),
        ("/w/trades/metadata/8f-m1.avro", "manifest_written"),
        ("/w/trades/metadata/snap-17-0-8f.avro", "manifest_list_written"),
        ("/w/trades/metadata/00003-8f.metadata.json", "metadata_written"),
    ],
)
def test_a_file_of_a_commit_is_a_place(path, name):
    arm(f"{name}:1:raise")
    reach_file("/w/trades/data/2024-08-08/8f.parquet")
    with pytest.raises(Tripped):
        reach_file(path)


@pytest.mark.parametrize("text", ["nowhere", "judged:0x1", "judged:1:explode", "judged:1:kill:twice", ":1:kill"])
def test_what_cannot_be_armed_is_said(text):
    with pytest.raises(Misconfigured, match="K2_FAILPOINT"):
        arm(text)


def stop_at(text: str) -> None:
    arm(text)
    reach("committing")
    os._exit(7)


def child_at(text: str) -> multiprocessing.Process:
    child = multiprocessing.get_context("forkserver").Process(target=stop_at, args=(text,))
    child.start()
    return child


def test_kill_leaves_no_last_word():
    child = child_at("committing")
    child.join(30)
    assert child.exitcode == -signal.SIGKILL


def test_a_paused_process_goes_on_where_it_stopped():
    child = child_at("committing:1:pause")
    deadline = time.monotonic() + 30
    while psutil.Process(child.pid).status() != psutil.STATUS_STOPPED and time.monotonic() < deadline:
        time.sleep(0.01)
    assert psutil.Process(child.pid).status() == psutil.STATUS_STOPPED
    os.kill(child.pid, signal.SIGCONT)
    child.join(30)
    assert child.exitcode == 7
