"""A decoder made from two Avro schemas."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa

from k2_core.bodies import Bodies, Decoder
from k2_core.frames import Frames, Longs
from k2_core.lockstep.columns import Building, Struct
from k2_core.lockstep.lanes import Fault, Lanes
from k2_core.lockstep.nodes import RecordNode
from k2_core.lockstep.resolve import arrow_schema, resolve
from k2_core.lockstep.types import Record, Uncovered, parse
from k2_core.quality import Reason


def lockstep(writer: Mapping[str, Any], reader: Mapping[str, Any], schema: pa.Schema | None = None) -> Decoder:
    """Make a decoder of records written with one schema and read as another.

    schema: the columns it returns, where their nullability and metadata matter; their types are the reader's.
    Raises Uncovered.
    """
    read = parse(reader)
    plan = resolve(parse(writer), read)
    assert isinstance(read, Record), "resolve would not have taken anything else"
    columns = arrow_schema(read) if schema is None else schema
    if columns.types != arrow_schema(read).types:
        raise Uncovered(f"columns {columns.types} are not those of the reader's schema")
    return lambda bodies: _decode(bodies, plan, columns)


def _decode(bodies: Frames, plan: RecordNode, columns: pa.Schema) -> Bodies:
    struct, lanes = _read(bodies, plan)
    faults = lanes.block.faults
    survivors = None
    if faults:
        # what a bad record left in the columns is never built: those that are good are read again without it
        survivors = np.setdiff1d(np.arange(len(bodies)), np.fromiter(faults, np.int64, len(faults)))
        struct, lanes = _read(bodies.some(survivors), plan)
        assert not lanes.block.faults, "what a record becomes does not depend on its neighbours"
    if not len(struct):
        return Bodies(columns.empty_table(), faults)
    building = Building(lanes.block)
    rows = pa.Table.from_arrays([child.array(building) for child in struct.children], schema=columns)
    if building.bad:
        rows = rows.filter(pa.array(~np.isin(np.arange(len(struct)), list(building.bad)))).combine_chunks()
    return Bodies(rows, dict(sorted({**faults, **_of_all(building.bad, survivors)}.items())))


def _read(bodies: Frames, plan: RecordNode) -> tuple[Struct, Lanes]:
    lanes = Lanes.over(bodies)
    struct = plan.read(lanes)
    lanes.check_inside()
    over = lanes.ends - lanes.at
    if over.any() and not lanes.block.faults.keys() >= set(np.flatnonzero(over).tolist()):
        lanes.fail(over != 0, Reason.TRAILING_BYTES, lambda i: f"{over[i]} bytes after the record")
    return struct, lanes


def _of_all(bad: dict[int, Fault], survivors: Longs | None) -> dict[int, Fault]:
    """Faults by the place among all bodies."""
    return bad if survivors is None else {int(survivors[at]): fault for at, fault in bad.items()}
