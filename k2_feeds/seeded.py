"""The only source of chance in the simulator."""

from __future__ import annotations

from random import Random


def seeded(*parts: object) -> Random:
    """Give a generator that depends on these parts alone, so that a day or a symbol is the same whatever is beside it.

    Only its `random` and `shuffle` are used: their streams are the same in every Python.
    """
    return Random(":".join(map(str, parts)))  # noqa: S311 - a simulation needs repeatable numbers, not secret ones
