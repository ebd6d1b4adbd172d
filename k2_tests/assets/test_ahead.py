"""Working ahead changes when things are made, never which, in what order, or what goes wrong."""

from __future__ import annotations

import threading
from collections.abc import Generator

import pytest

from k2_assets.ahead import ahead


def test_every_item_arrives_in_order_and_none_is_made_twice():
    made = []

    def items() -> Generator[int, None, None]:
        for i in range(100):
            made.append(i)
            yield i

    assert list(ahead(items())) == made == list(range(100))


def test_one_item_is_made_while_another_is_used_and_no_more():
    made: list[int] = []
    second = threading.Event()

    def items() -> Generator[int, None, None]:
        for i in range(10):
            made.append(i)
            if i == 1:
                second.set()
            yield i

    arriving = ahead(items())
    assert next(arriving) == 0
    assert second.wait(10), "the second was not made while the first was used"
    assert made == [0, 1]
    assert next(arriving) == 1
    arriving.close()
    assert len(made) <= 3


def test_what_goes_wrong_is_raised_after_everything_before_it():
    def items() -> Generator[int, None, None]:
        yield 1
        yield 2
        raise LookupError("the third")

    got = []
    with pytest.raises(LookupError, match="the third"):
        for item in ahead(items()):
            got.append(item)
    assert got == [1, 2]


def test_leaving_early_closes_the_generator_in_its_own_thread():
    closed_in = []

    def items() -> Generator[int, None, None]:
        try:
            while True:
                yield threading.get_ident()
        finally:
            closed_in.append(threading.get_ident())

    arriving = ahead(items())
    made_in = next(arriving)
    arriving.close()
    assert closed_in == [made_in] != [threading.get_ident()]


def test_an_empty_generator_gives_nothing():
    def items() -> Generator[int, None, None]:
        yield from ()

    assert list(ahead(items())) == []
