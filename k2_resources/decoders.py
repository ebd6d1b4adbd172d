"""Records to rows with the schemas of a registry: what can be decoded now is decoded, the rest waits.

Belongs here: putting a registry and a decoder together. The ingest runs and the API's tail decode by these lines, so
that they cannot disagree about a record.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from k2_core.contracts import Table
from k2_core.decode import Decoded, Decoder, decode
from k2_core.errors import SchemaUnavailable, Unreachable
from k2_core.feeds import Feed
from k2_core.offsets import OffsetRange
from k2_core.records import LogBatch, Records
from k2_core.waiting import Waiting
from k2_resources.avro_codec import decoder
from k2_resources.registry import Registry
from k2_resources.settings import Settings


@dataclass(frozen=True)
class Decoding:
    """Records of one batch with what was made of them, topic by topic."""

    batch: LogBatch
    decoded: tuple[Decoded, ...]

    @property
    def ranges(self) -> tuple[OffsetRange, ...]:
        return self.batch.ranges


@dataclass(frozen=True)
class Decoders:
    """Decodes the topics of some feeds, by topic. A decoder is made once for each schema and table."""

    feeds: Mapping[str, Feed]
    registry: Registry
    _made: dict[tuple[int, str], Decoder] = field(default_factory=dict, compare=False, repr=False)

    def decoding(self, table: Table, whole: LogBatch, waiting: Waiting) -> Decoding:
        """Decode what of a batch can be decided now; the Kafka partitions that cannot be stay in waiting.

        Who has to wait is asked only once somebody has to: asking costs another look at every record.
        """
        if not waiting.partitions:
            with suppress(SchemaUnavailable):
                return self._decoding(table, whole)
        return self._decoding(table, waiting.split(whole, self.trouble))

    def trouble(self, topic: str, schema_id: int) -> SchemaUnavailable | None:
        """Why a schema id cannot be decided now; None when it can."""
        try:
            self._schema(self.feeds[topic], schema_id)
        except SchemaUnavailable as error:
            return error
        return None

    def _decoding(self, table: Table, batch: LogBatch) -> Decoding:
        return Decoding(batch, tuple(self._decode(table, records) for records in batch.records))

    def _decode(self, table: Table, records: Records) -> Decoded:
        return decode(records, table, partial(self._decoder, self.feeds[records.topic]))

    def _decoder(self, feed: Feed, schema_id: int) -> Decoder | None:
        """A decoder for a writer schema; None only when the registry is sure there is no such id."""
        known = self._made.get((schema_id, feed.table.name))
        if known is None:
            schema = self._schema(feed, schema_id)
            if schema is None:
                return None
            known = self._made[schema_id, feed.table.name] = decoder(schema, feed.table)
        return known

    def _schema(self, feed: Feed, schema_id: int) -> dict[str, Any] | None:
        """The writer schema of an id, None when there is none. Raises SchemaUnavailable."""
        try:
            schema = self.registry.schema(schema_id)
            if schema is not None or self.registry.knows_subject(feed.subject):
                return schema
        except Unreachable as silent:  # stops those who need it now, not those whose ids are known
            raise SchemaUnavailable(str(silent)) from silent
        raise SchemaUnavailable(
            f"schema id {schema_id} is unknown and so is subject {feed.subject}: the registry may be another one or "
            f"empty. Records of {feed.topic} wait until it answers."
        )


def open_registry(settings: Settings) -> Registry:
    """Open the registry of a home; schemas it gave before are kept there for the times when it does not answer.

    Ids are a registry's own: another address has another folder. Raises Misconfigured.
    """
    named = hashlib.sha256((settings.registry_url or "embedded").encode()).hexdigest()[:16]
    kept: Path = settings.home / "schemas" / named
    return Registry(settings.registry(), kept=kept)
