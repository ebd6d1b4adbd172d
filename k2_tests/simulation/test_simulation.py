"""The protocol under 20,000 seeded schedules of faults: nothing lost, nothing doubled, and every trouble really met."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from k2_tests.simulation.campaign import Campaign, catch, run
from k2_tests.simulation.mutations import MUTATIONS
from k2_tests.simulation.scenario import PLACES, play
from k2_tests.simulation.weather import FAULTS

SEEDS = range(20_000)
NATURE = ("poison", "retention", "recreate", "widen", "power_cut", "schemas", "sent_twice", "unsynced_lost")
RECEIPTS = ("register", "batch", "adopt", "accept_loss", "resume", "maintenance")
BRANCHES = (
    "fenced",  # another writer moved a key
    "outpaced",  # another commit came first
    "outcome_unknown",  # no answer
    "looked_up_landed",  # it had landed
    "looked_up_not_there",  # it had not
    "late_landed",  # a request the caller had given up was applied
    "late_refused",  # and one whose base was no longer the head
    "compacted",  # data files rewritten while writers work
    "swept",  # files of the dead and the defeated deleted
)
ENDS = (
    "FencedOut",
    "IncarnationChanged",
    "LogTruncated",
    "NotFound",
    "OSError",
    "OffsetBelowRetention",
    "Outpaced",
    "PartitionPaused",
    "SchemaUnavailable",
    "Unreachable",
)
"""How a run may end before its time; `Damaged` is not among them, because nothing ever is."""


@pytest.fixture(scope="module")
def campaign() -> Campaign:
    found, _ = run(SEEDS)
    return found


@pytest.mark.timeout(600)
def test_nothing_is_lost_or_doubled_and_no_other_promise_is_broken(campaign):
    print(campaign.last_line())
    assert [(o.seed, o.violations) for o in campaign.failures] == []
    assert (campaign.seeds, campaign.lost, campaign.doubled, campaign.otherwise) == (len(SEEDS), 0, 0, 0)


@pytest.mark.timeout(600)
def test_every_fault_every_place_and_every_branch_was_really_met(campaign):
    names = [f"fault {name}" for name in (*FAULTS, *NATURE)]
    names += [*PLACES, *(f"receipt {name}" for name in RECEIPTS)]
    names += [*(f"branch {name}" for name in BRANCHES), *(f"ended {name}" for name in ENDS)]
    assert [name for name in names if not campaign.met[name]] == []


@pytest.mark.parametrize("name", sorted(MUTATIONS))
@pytest.mark.timeout(600)
def test_a_deliberate_bug_is_caught(name):
    caught = catch(name)
    assert caught is not None, f"no seed of {MUTATIONS[name].seeds_max} finds it: {MUTATIONS[name].says}"


def test_the_same_bug_gone_the_same_seed_is_clean():
    """What a mutation is caught by is the mutation: its seed keeps every promise without it."""
    caught = catch("no_fence")
    assert caught.violations
    assert play(caught.seed).violations == []


def test_a_seed_is_the_same_schedule_wherever_it_is_played():
    command = [sys.executable, "-m", "k2_tests.simulation", "--seed", "8", "--trace", "--mutation", "no_fence"]
    played = [
        subprocess.run(command, env={**os.environ, "PYTHONHASHSEED": salt}, capture_output=True, text=True, check=False)
        for salt in ("1", "2")
    ]
    assert played[0].stdout == played[1].stdout
    assert played[0].returncode == played[1].returncode == 1
    assert "promises broken" in played[0].stdout.splitlines()[-1]
