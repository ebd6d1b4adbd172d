"""Rows as bytes: JSON, NDJSON, CSV, Parquet and Arrow, batch by batch, exact, and with an end that cannot be missed.

Pure: Arrow batches in, bytes out. What is in a body depends on its rows alone, never on how they were cut into batches.

Where each ends, so that a client notices a body that was cut off:
JSON: with its last brace. NDJSON: with a line `{"_end": {...}}` that counts the rows before it and has the SHA-256 of
their bytes. CSV: the header K2-Row-Count tells the rows beforehand, and each ends with a line feed. Parquet: with its
footer. Arrow: with an empty batch whose metadata counts the rows and has the SHA-256 of the bytes before it, then its
end-of-stream mark.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from k2_api.chunks import Chunks, Sink
from k2_core.projections import Shape

FormatName = Literal["json", "ndjson", "csv", "parquet", "arrow"]

ARROW_ROWS = 16_384
"""Rows of one record batch: small enough to hold several, large enough that its header does not show."""
PARQUET_ROWS = 65_536
"""Rows of one row group: about 10 MB in memory while it is encoded."""


@dataclass(frozen=True)
class Format:
    """One way to write rows. shape: what the engine hands over for it. is_digested: its end states a SHA-256."""

    name: FormatName
    media_type: str
    shape: Shape
    is_digested: bool = False


FORMATS = {
    f.name: f
    for f in (
        Format("json", "application/json", "json"),
        Format("ndjson", "application/x-ndjson", "json", is_digested=True),
        Format("csv", "text/csv", "text"),
        Format("parquet", "application/vnd.apache.parquet", "columns"),
        Format("arrow", "application/vnd.apache.arrow.stream", "columns", is_digested=True),
    )
}
JSON = FORMATS["json"]
_SPECIAL = '[",\\n\\r]'
"""What a field of CSV may hold only between quotes."""
_ALSO = {"application/ndjson": "ndjson", "application/jsonl": "ndjson", "text/json": "json"}
_MEDIA: dict[str, Format] = {f.media_type: f for f in FORMATS.values()} | {
    media: FORMATS[name]  # type: ignore[index]
    for media, name in _ALSO.items()
}


@dataclass(frozen=True)
class Ending:
    """What is known of a body once all its rows are written. sha256: of the bytes before the end, in hex."""

    rows: int
    sha256: str
    version: str
    next_cursor: str | None


class Encoder(Protocol):
    """Writes one body: begin, then rows per batch, then rest, then end. One thread at a time."""

    def begin(self) -> bytes:
        """What stands before the rows."""
        ...

    def rows(self, batch: pa.RecordBatch) -> bytes:
        """The rows of a batch; some may be held back until a chunk is full."""
        ...

    def rest(self) -> bytes:
        """The rows that were held back."""
        ...

    def end(self, ending: Ending) -> bytes:
        """What tells that nothing is missing."""
        ...


def negotiated(accept: str, asked: FormatName | None = None) -> Format:
    """Choose the format: the one asked for, else the one the Accept header likes best, else JSON."""
    if asked is not None:
        return FORMATS[asked]
    liked = [(_quality(parameters), media) for media, parameters in _ranges(accept)]
    known = [(quality, _MEDIA[media]) for quality, media in liked if media in _MEDIA and quality > 0]
    anything = max((quality for quality, media in liked if media in ("*/*", "application/*")), default=0.0)
    best = max(known, key=lambda found: found[0], default=(0.0, JSON))  # the first of equals
    return best[1] if best[0] >= anything else JSON


def encoder(chosen: Format, schema: pa.Schema) -> Encoder:
    """An encoder of rows. schema: the shown columns in contract order. JSON has no envelope: that is the caller's."""
    match chosen.name:
        case "json":
            return JsonRows()
        case "ndjson":
            return _Lines()
        case "csv":
            return _Csv(schema.names)
        case "arrow":
            return _Arrow(schema)
        case "parquet":
            return _Parquet(schema)


class JsonRows:
    """Rows as the members of a JSON array, commas between them; brackets and all around them are the envelope's."""

    def __init__(self) -> None:
        self._lead = b""

    def begin(self) -> bytes:
        return b""

    def rows(self, batch: pa.RecordBatch) -> bytes:
        if not batch.num_rows:
            return b""
        text = b"".join((self._lead, _joined(batch.column("json"), ",")))
        self._lead = b","
        return text

    def rest(self) -> bytes:
        return b""

    def end(self, ending: Ending) -> bytes:
        return b""


class _Lines:
    def begin(self) -> bytes:
        return b""

    def rows(self, batch: pa.RecordBatch) -> bytes:
        return b"".join((_joined(batch.column("json"), "\n"), b"\n")) if batch.num_rows else b""

    def rest(self) -> bytes:
        return b""

    def end(self, ending: Ending) -> bytes:
        facts = {n: getattr(ending, n) for n in ("rows", "sha256", "version", "next_cursor")}
        return json.dumps({"_end": facts}, separators=(",", ":")).encode() + b"\n"


class _Csv:
    """A null is nothing, an empty text is two quotes; quotes stand only where they must."""

    def __init__(self, names: Sequence[str]) -> None:
        self._names = list(names)

    def begin(self) -> bytes:
        return ",".join(self._names).encode() + b"\n"

    def rows(self, batch: pa.RecordBatch) -> bytes:
        if not batch.num_rows:
            return b""
        columns = [_quoted(batch.column(name)) for name in self._names]
        lines = pc.binary_join_element_wise(*columns, ",", null_handling="replace", null_replacement="")
        return b"".join((_joined(lines, "\n"), b"\n"))

    def rest(self) -> bytes:
        return b""

    def end(self, ending: Ending) -> bytes:
        return b""


class _Arrow:
    def __init__(self, schema: pa.Schema) -> None:
        self._schema = schema
        self._sink = Sink()
        self._chunks = Chunks(schema, ARROW_ROWS)
        self._writer = pa.ipc.new_stream(self._sink, schema)

    def begin(self) -> bytes:
        return self._sink.drained()

    def rows(self, batch: pa.RecordBatch) -> bytes:
        return self._written(self._chunks.full(batch))

    def rest(self) -> bytes:
        return self._written(self._chunks.rest())

    def end(self, ending: Ending) -> bytes:
        facts = {"k2.rows": str(ending.rows), "k2.sha256": ending.sha256, "k2.version": ending.version}
        self._writer.write_batch(pa.RecordBatch.from_pylist([], schema=self._schema), custom_metadata=facts)
        self._writer.close()
        return self._sink.drained()

    def _written(self, tables: Iterator[pa.Table]) -> bytes:
        for table in tables:
            self._writer.write_batch(table.to_batches()[0])
        return self._sink.drained()


class _Parquet:
    def __init__(self, schema: pa.Schema) -> None:
        self._sink = Sink()
        self._chunks = Chunks(schema, PARQUET_ROWS)
        self._writer = pq.ParquetWriter(self._sink, schema, compression="zstd", compression_level=1)

    def begin(self) -> bytes:
        return self._sink.drained()

    def rows(self, batch: pa.RecordBatch) -> bytes:
        return self._written(self._chunks.full(batch))

    def rest(self) -> bytes:
        return self._written(self._chunks.rest())

    def end(self, ending: Ending) -> bytes:
        self._writer.close()
        return self._sink.drained()

    def _written(self, tables: Iterator[pa.Table]) -> bytes:
        for table in tables:
            self._writer.write_table(table, row_group_size=PARQUET_ROWS)
        return self._sink.drained()


def _joined(texts: pa.StringArray, separator: str) -> pa.Buffer:
    whole = pa.ListArray.from_arrays(pa.array([0, len(texts)], pa.int32()), texts)
    return pc.binary_join(whole, separator)[0].as_buffer()


def _quoted(texts: pa.StringArray) -> pa.StringArray:
    """Texts as fields of CSV. Most columns need no quotes, and one look at all their bytes tells."""
    must = pc.equal(pc.binary_length(texts), 0)
    if _may_need_quotes(texts):
        must = pc.or_(must, pc.match_substring_regex(texts, _SPECIAL))
    if not pc.any(must).as_py():
        return texts
    doubled = pc.replace_substring(texts, '"', '""')
    return pc.if_else(must, pc.binary_join_element_wise('"', doubled, '"', ""), texts)


def _may_need_quotes(texts: pa.StringArray) -> bool:
    content = bytes(texts.buffers()[2] or b"")
    return any(special in content for special in (b'"', b",", b"\n", b"\r"))


def _ranges(accept: str) -> Iterator[tuple[str, str]]:
    for part in accept.split(","):
        media, _, parameters = part.partition(";")
        yield media.strip().lower(), parameters


def _quality(parameters: str) -> float:
    for parameter in parameters.split(";"):
        name, _, value = parameter.partition("=")
        if name.strip().lower() == "q":
            try:
                return float(value)
            except ValueError:
                return 0.0
    return 1.0
