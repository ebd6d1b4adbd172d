"""Python's garbage collector while records pass through: it finds nothing there and costs as much as reading them."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager

_YOUNG_MAX = 200_000
"""Objects between two collections: a batch of messages is none the collector ever frees, and each pass visits them."""


@contextmanager
def few_collections() -> Iterator[None]:
    """Let the collector of this process run rarely, as long as the context lasts; it still bounds what cycles hold."""
    before = gc.get_threshold()
    gc.set_threshold(_YOUNG_MAX, *before[1:])
    try:
        yield
    finally:
        gc.set_threshold(*before)
