from __future__ import annotations

from k2_tests.soak.feed import FAULTS, Soak


def test_a_live_feed_through_every_fault_and_kills_ends_with_the_ledger_of_the_exchange(tmp_path):
    """The short form of `make soak`."""
    soak = Soak(tmp_path, seconds=30.0, kills=3, seed=20240808)
    found = soak.run()
    assert found.is_exact, found.line()
    assert set(soak.done) == {kind for kind, _ in FAULTS}
    assert (found.kills, found.absent > 0, found.trades > 1_000) == (3, True, True)
