"""What a decoder is: bodies of one writer schema in, rows and dead records out."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import pyarrow as pa

from k2_core.frames import Frames
from k2_core.quality import Reason


@dataclass(frozen=True)
class Bodies:
    """What one decoder made of its bodies: rows (feed columns) of those it could read, in order, and the others."""

    rows: pa.Table
    dead: Mapping[int, tuple[Reason, str]]


Decoder = Callable[[Frames], Bodies]
"""Decodes bodies written with one schema; it may be given any number of them, and never fails for what they hold."""
