"""Bars as JSON: exact decimals, instants in UTC with six digits, columns in a stated order."""

from __future__ import annotations

import json
from collections.abc import Sequence

import pyarrow as pa
import pyarrow.compute as pc

_ISO = "%Y-%m-%dT%H:%M:%SZ"
"""Arrow writes as many digits of a second as the unit of the column has: six."""


def json_rows(columns: Sequence[tuple[str, pa.ChunkedArray | pa.Array | str]], *, numbers: bool) -> list[str]:
    """One JSON object per row. columns: name and values, or one text for all. numbers: decimals without quotes."""
    pieces: list[pa.Array | str] = []
    for place, (name, values) in enumerate(columns):
        pieces += [f"{',' if place else '{'}{json.dumps(name)}:", _texts(values, numbers)]
    rows: list[str] = pc.binary_join_element_wise(*pieces, "}", "").to_pylist()
    return rows


def decimal_texts(values: pa.Array) -> pa.Array:
    """Decimals in plain digits, all their places written; a null stays null. Arrow writes the smallest as 1E-8."""
    texts = values.cast(pa.string())
    short = pc.fill_null(pc.match_substring(texts, "E"), False)
    if not pc.any(short, min_count=0).as_py():
        return texts
    plain = pa.array([f"{value:f}" for value in values.filter(short).to_pylist()], pa.string())
    return pc.replace_with_mask(texts, short, plain)


def plain_texts(values: pa.ChunkedArray) -> pa.Array:
    """A column as text for a file: exact decimals, instants with six digits; a null stays null."""
    array = values.combine_chunks()
    if pa.types.is_timestamp(array.type):
        return pc.strftime(array, _ISO)
    return decimal_texts(array) if pa.types.is_decimal(array.type) else array.cast(pa.string())


def _texts(values: pa.ChunkedArray | pa.Array | str, numbers: bool) -> pa.Array | str:
    if isinstance(values, str):
        return json.dumps(values)
    array = values.combine_chunks() if isinstance(values, pa.ChunkedArray) else values
    return pc.fill_null(_plain(array, numbers), "null")


def _plain(array: pa.Array, numbers: bool) -> pa.Array:
    if pa.types.is_timestamp(array.type):
        return _quoted(pc.strftime(array, _ISO))
    if pa.types.is_decimal(array.type):
        return decimal_texts(array) if numbers else _quoted(decimal_texts(array))
    if pa.types.is_date(array.type):
        return _quoted(array.cast(pa.string()))
    if pa.types.is_string(array.type):
        encoded = array.dictionary_encode()
        return pa.array([json.dumps(name) for name in encoded.dictionary.to_pylist()], pa.string()).take(
            encoded.indices
        )
    return array.cast(pa.string())


def _quoted(texts: pa.Array) -> pa.Array:
    return pc.binary_join_element_wise('"', texts, '"', "")
