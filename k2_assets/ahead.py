"""Working ahead: the next item is made in a thread of its own while this one is used."""

from collections.abc import Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")


def ahead(items: Generator[T, None, None]) -> Iterator[T]:
    """Yield the items of a generator, one being made while another is used; never more than one waits.

    The generator runs in one other thread only, and is closed there. What it raises is raised here, after every item
    before it.
    """
    with ThreadPoolExecutor(max_workers=1, thread_name_prefix="k2-ahead") as thread:
        made = thread.submit(_take, items)
        try:
            while (taken := made.result()) is not None:
                made = thread.submit(_take, items)
                yield taken[0]
        finally:
            made.cancel()
            thread.submit(items.close).result()


def _take(items: Iterator[T]) -> tuple[T] | None:
    """The next item in a tuple, None at the end: StopIteration cannot pass through a future."""
    return next(((item,) for item in items), None)
