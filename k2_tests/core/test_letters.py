"""How a dead letter stands, from where its replays ended."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from k2_core.letters import Delivery, Place, Standing, standings

TOPICS = st.sampled_from(["market.crypto.trades.binance", "market.[odd]@name", "a"])
PLACES = st.builds(Place, TOPICS, st.integers(0, 3), st.integers(0, 3), st.integers(0, 20))


def place(offset: int, kafka_partition: int = 0) -> Place:
    return Place("a", 0, kafka_partition, offset)


def standing(*sent: tuple[int, int], letters: tuple[int, ...] = (1,), read_to: int = 100, lost: tuple[int, ...] = ()):
    """Standing of the letter at offset 1. sent: letter and where it went; what is at or past read_to is not read yet."""

    def fate(at: Place) -> str:
        return "lost" if at.offset in lost else "read" if at.offset < read_to else "ahead"

    deliveries = [Delivery(place(letter), place(delivered)) for letter, delivered in sent]
    return standings([place(offset) for offset in letters], deliveries, fate)[place(1)]


def test_a_letter_nobody_sent_again_is_open():
    assert standing() is Standing.OPEN


def test_a_delivery_past_what_was_read_is_pending_and_one_below_it_resolved():
    assert standing((1, 50), read_to=50) is Standing.PENDING
    assert standing((1, 50), read_to=51) is Standing.RESOLVED


def test_a_delivery_that_is_a_letter_is_dead_again_until_that_letter_moves():
    assert standing((1, 50), letters=(1, 50)) is Standing.DEAD_AGAIN
    assert standing((1, 50), (50, 60), letters=(1, 50), read_to=60) is Standing.PENDING
    assert standing((1, 50), (50, 60), letters=(1, 50)) is Standing.RESOLVED
    assert standing((1, 50), (50, 60), letters=(1, 50, 60)) is Standing.DEAD_AGAIN


def test_a_delivery_lost_with_its_log_never_happened():
    assert standing((1, 50), lost=(50,)) is Standing.OPEN


def test_the_best_delivery_counts():
    assert standing((1, 50), (1, 60), (1, 70), letters=(1, 50), read_to=70) is Standing.RESOLVED


def test_statements_that_lead_in_a_circle_say_nothing():
    assert standing((1, 50), (50, 1), letters=(1, 50)) is Standing.DEAD_AGAIN
    assert standing((1, 1)) is Standing.OPEN


def test_a_letter_sent_again_a_thousand_times_is_settled():
    chain = tuple(range(1, 3_000))
    assert standing(*((n, n + 1) for n in chain), letters=chain, read_to=10_000) is Standing.RESOLVED


@given(PLACES)
def test_a_place_reads_back(at):
    assert Place.parse(str(at)) == at


@pytest.mark.parametrize("text", ["", "a[1]", "a[1]@0", "a[x]@0:1", "[1]@0:1", "a[-1]@0:1", "a[1]@0:1 "])
def test_what_is_no_place_is_refused(text):
    with pytest.raises(ValueError, match="is no place"):
        Place.parse(text)


@given(st.sets(PLACES, max_size=6), st.lists(st.builds(Delivery, PLACES, PLACES), max_size=12), st.integers(0, 21))
def test_every_letter_stands_somehow_and_a_resolved_one_was_read_somewhere(letters, deliveries, read_to):
    found = standings(letters, deliveries, lambda at: "read" if at.offset < read_to else "ahead")
    assert found.keys() == letters
    assert all(found[at] is Standing.OPEN for at in letters - {d.letter for d in deliveries})
    if not any(d.delivered.offset < read_to and d.delivered not in letters for d in deliveries):
        assert Standing.RESOLVED not in found.values()
