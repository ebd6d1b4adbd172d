from __future__ import annotations

import pyarrow as pa
from hypothesis import given, settings
from hypothesis import strategies as st

from k2_core.frames import Frames
from k2_core.lockstep.reader import lockstep
from k2_tests.core.avro_shapes import fastavro_reads, records, written


def table_of(rows, schema):
    return pa.table([pa.array([row[f.name] for row in rows], f.type) for f in schema], schema=schema)


@settings(deadline=None, max_examples=200)
@given(st.data())
def test_valid_records_of_any_covered_schema_become_what_fastavro_makes_of_them(data):
    shape = data.draw(records())
    raws = data.draw(st.lists(shape.raw, max_size=8))
    contents = [written(raw, shape) for raw in raws]
    decoded = lockstep(shape.writer, shape.reader)(Frames.of(contents))
    expected = [shape.seen(raw) for raw in raws]
    assert decoded.dead == {}
    decoded.rows.validate(full=True)
    assert decoded.rows.equals(table_of(expected, decoded.rows.schema))
    assert [fastavro_reads(content, shape) for content in contents] == expected
