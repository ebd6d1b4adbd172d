"""Manifests as a commit writes them: one Avro block each, and none read again that this process has just written.

pyiceberg resolves its Avro schemas anew for every file, compresses every entry as a block of its own, and reads the
manifests of its last commit back for the next: most of the CPU of a small commit. A manifest never changes, so what it
holds may be remembered by its path; a process that did not write it reads it, once.
"""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any

from cachetools import LRUCache, cached
from pyiceberg.avro.codecs import AVRO_CODEC_KEY, CODEC_MAPPING_ICEBERG_TO_AVRO
from pyiceberg.avro.file import MAGIC, META_SCHEMA, SYNC_SIZE, AvroFileHeader, AvroOutputFile
from pyiceberg.avro.resolver import construct_writer
from pyiceberg.avro.writer import Writer
from pyiceberg.io import FileIO, OutputFile
from pyiceberg.manifest import (
    ManifestContent,
    ManifestEntry,
    ManifestEntryStatus,
    ManifestFile,
    ManifestListWriterV2,
    ManifestWriterV2,
)
from pyiceberg.partitioning import PartitionSpec
from pyiceberg.schema import Schema
from pyiceberg.table import Transaction
from pyiceberg.table.snapshots import Operation, Snapshot
from pyiceberg.table.update.snapshot import _FastAppendFiles, _ManifestMergeManager, _OverwriteFiles, _SnapshotProducer
from pyiceberg.utils.schema_conversion import AvroSchemaConversion

_LISTS_MAX = 512
"""Manifest lists in memory: the histories of all tables; the manifests in them are shared."""
_ENTRIES_MAX = 8_000
"""Manifest entries in memory, of some 3 kB each."""

MERGED_MANIFESTS = 20
"""Manifests of about one size that are merged: the list of a table has some forty, and one for each 400 files more."""

_ENTRIES_FULL = MERGED_MANIFESTS**2
"""Entries of a manifest that is merged no more."""

_remembering = threading.Lock()
_lists: LRUCache[str, tuple[ManifestFile, ...]] = LRUCache(_LISTS_MAX)
_entries: LRUCache[str, tuple[ManifestEntry, ...]] = LRUCache(_ENTRIES_MAX, getsizeof=len)


def manifests_of(snapshot: Snapshot, io: FileIO) -> Sequence[ManifestFile]:
    """The manifests of a snapshot. Raises OSError."""
    with _remembering:
        known = _lists.get(snapshot.manifest_list)
    return known if known is not None else _remember_list(snapshot.manifest_list, tuple(snapshot.manifests(io)))


def entries_of(manifest: ManifestFile, io: FileIO) -> Sequence[ManifestEntry]:
    """The entries of a manifest, those of files that left among them. Raises OSError."""
    with _remembering:
        known = _entries.get(manifest.manifest_path)
    if known is not None:
        return known
    return _remember_entries(manifest.manifest_path, tuple(manifest.fetch_manifest_entry(io, discard_deleted=False)))


def forget() -> None:
    """Remember nothing, as a process that has just begun."""
    with _remembering:
        _lists.clear()
        _entries.clear()


def _remember_list(path: str, manifests: tuple[ManifestFile, ...]) -> tuple[ManifestFile, ...]:
    with _remembering:
        _lists[path] = manifests
    return manifests


def _remember_entries(path: str, entries: tuple[ManifestEntry, ...]) -> tuple[ManifestEntry, ...]:
    with _remembering:
        if len(entries) <= _ENTRIES_MAX:
            _entries[path] = entries
    return entries


@dataclass(frozen=True)
class Form:
    """How the entries of one table are written: the Avro schema, and the writer made from it."""

    schema: Schema
    writer: Writer
    text: str


@cached(LRUCache(64), key=lambda _, meta: (meta["schema"], meta["partition-spec"]), lock=threading.Lock())
def _form(manifest: OneBlockManifest, meta: dict[str, str]) -> Form:
    schema = manifest._with_partition(manifest.version)
    avro = AvroSchemaConversion().iceberg_to_avro(schema, schema_name="manifest_entry")
    return Form(schema, construct_writer(schema), json.dumps(avro))


class OneBlockFile(AvroOutputFile[ManifestEntry]):
    """An Avro file of one block: entries wait until it is closed, and are compressed together."""

    def __init__(self, output_file: OutputFile, form: Form, metadata: dict[str, str]) -> None:
        # all that super().__init__ does, but for resolving the schemas anew
        self.output_file, self.metadata = output_file, metadata
        self.file_schema, self.schema_name, self.writer = form.schema, "manifest_entry", form.writer
        self.sync_bytes = os.urandom(SYNC_SIZE)
        self._text = form.text
        self._waiting: list[ManifestEntry] = []

    def _write_header(self) -> None:
        codec = self.metadata[AVRO_CODEC_KEY]
        named = {AVRO_CODEC_KEY: CODEC_MAPPING_ICEBERG_TO_AVRO.get(codec, codec), "avro.schema": self._text}
        construct_writer(META_SCHEMA).write(
            self.encoder, AvroFileHeader(MAGIC, {**self.metadata, **named}, self.sync_bytes)
        )

    def write_block(self, objects: list[ManifestEntry]) -> None:
        """Keep entries for the block."""
        self._waiting += objects

    def __exit__(
        self, exctype: type[BaseException] | None, excinst: BaseException | None, exctb: TracebackType | None
    ) -> None:
        if exctype is None:
            super().write_block(self._waiting)
        super().__exit__(exctype, excinst, exctb)


class OneBlockManifest(ManifestWriterV2):
    """A manifest in one block, which knows what was put into it."""

    entries: list[ManifestEntry]

    def new_writer(self) -> AvroOutputFile[ManifestEntry]:
        """Open the file."""
        self.entries = []
        meta = self._meta
        return OneBlockFile(self._output_file, _form(self, meta), meta)

    def prepare_entry(self, entry: ManifestEntry) -> ManifestEntry:
        """Check an entry, and keep it."""
        self.entries.append(entry)
        return super().prepare_entry(entry)


class Producer(_SnapshotProducer[Any]):
    """A producer of snapshots that remembers what it writes and asks memory first."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self._writers: dict[str, OneBlockManifest] = {}
        self._listed: list[ManifestFile] = []
        super().__init__(*args, **kwargs)

    def new_manifest_writer(self, spec: PartitionSpec) -> ManifestWriterV2:
        """Open a manifest."""
        output = self.new_manifest_output()
        writer = OneBlockManifest(spec, self.schema(), output, self._snapshot_id, self._compression)
        self._writers[output.location] = writer
        return writer

    def fetch_manifest_entry(self, manifest: ManifestFile, discard_deleted: bool = True) -> list[ManifestEntry]:
        """The entries of a manifest; of one of its own, as they will be read once it is committed."""
        own = self._writers.get(manifest.manifest_path)
        entries = own.entries if own else entries_of(manifest, self._io)
        return [e for e in entries if not discard_deleted or e.status != ManifestEntryStatus.DELETED]

    def _process_manifests(self, manifests: list[ManifestFile]) -> list[ManifestFile]:
        self._listed = super()._process_manifests(manifests)
        return self._listed

    def remember(self, snapshot: Snapshot) -> list[str]:
        """Remember what a commit that landed wrote; returns the manifests of it that the snapshot does not list.

        pyiceberg writes the manifest of new files first and then merges it into another; the first is left over.
        """
        if snapshot.manifest_list != self._written_manifest_lists[-1]:  # an earlier attempt of it landed after all
            return []
        number = snapshot.sequence_number or 0
        stamp = ManifestListWriterV2(None, self._snapshot_id, None, number, self._compression)  # type: ignore[arg-type]
        listed = _remember_list(snapshot.manifest_list, tuple(stamp.prepare_manifest(m) for m in self._listed))
        kept = {m.manifest_path for m in listed}
        for path, writer in self._writers.items():
            if path in kept:
                _remember_entries(path, tuple(_numbered(e, number) for e in writer.entries))
        return [path for path in self._written_manifests if path not in kept]


class Append(Producer, _FastAppendFiles):
    """Files come. Twenty manifests of one size are merged into one of the next, up to some hundred files each.

    So each entry is written three times in all, however many there are; pyiceberg's own merging fills one manifest up
    to a size in bytes and writes it anew for every twenty files.
    """

    def _process_manifests(self, manifests: list[ManifestFile]) -> list[ManifestFile]:
        self._listed = self._merged(self._merged(manifests, level=0), level=1)
        return self._listed

    def _merged(self, manifests: list[ManifestFile], level: int) -> list[ManifestFile]:
        spec_id = self._transaction.table_metadata.default_spec_id
        small = [m for m in manifests if m.partition_spec_id == spec_id and _level(m) == level]
        if len(small) < MERGED_MANIFESTS:
            return manifests
        manager = _ManifestMergeManager[Any](0, 0, True, self)
        return [manager._create_manifest(spec_id, small), *(m for m in manifests if m not in small)]

    def _existing_manifests(self) -> list[ManifestFile]:
        if self._parent_snapshot_id is None:
            return []
        parent = self._transaction.table_metadata.snapshot_by_id(self._parent_snapshot_id)
        assert parent is not None, "the head is in its own history"
        return [m for m in manifests_of(parent, self._io) if m.has_added_files() or m.has_existing_files()]


class Regroup(Append):
    """No file comes or goes: manifests are written anew, the files of a partition and its neighbours side by side."""

    def _process_manifests(self, manifests: list[ManifestFile]) -> list[ManifestFile]:
        spec_id = self._transaction.table_metadata.default_spec_id
        own = [m for m in manifests if m.partition_spec_id == spec_id and m.content == ManifestContent.DATA]
        entries = sorted((e for m in own for e in self.fetch_manifest_entry(m)), key=_partition)
        fresh = (self._of(spec_id, entries[i : i + _ENTRIES_FULL]) for i in range(0, len(entries), _ENTRIES_FULL))
        self._listed = [*fresh, *(m for m in manifests if m not in own)]
        return self._listed

    def _of(self, spec_id: int, entries: Sequence[ManifestEntry]) -> ManifestFile:
        with self.new_manifest_writer(self.spec(spec_id)) as writer:
            for entry in entries:
                writer.existing(entry)
        return writer.to_manifest_file()


def _partition(entry: ManifestEntry) -> str:
    """Where an entry belongs among others: by partition, and within it by path, so that nothing depends on chance."""
    return f"{entry.data_file.partition}{entry.data_file.file_path}"


class Replace(Producer, _OverwriteFiles):
    """Files come in the place of others, in one snapshot."""


def is_scattered(snapshot: Snapshot, io: FileIO) -> bool:
    """Whether a snapshot has so many manifests for its files that planning is better off with them written anew."""
    listed = manifests_of(snapshot, io)
    files = sum((m.added_files_count or 0) + (m.existing_files_count or 0) for m in listed)
    return len(listed) > files // _ENTRIES_FULL + 2 * MERGED_MANIFESTS


def _level(manifest: ManifestFile) -> int:
    """0 for a manifest of a few files, 1 for one of twenty such, 2 for the largest there are, and those of deletes."""
    if manifest.content != ManifestContent.DATA:
        return 2
    files = (manifest.added_files_count or 0) + (manifest.existing_files_count or 0)
    return 0 if files < MERGED_MANIFESTS else 1 if files < _ENTRIES_FULL else 2


def append(transaction: Transaction, summary: Mapping[str, str]) -> Append:
    """A snapshot to which files may be appended."""
    return Append(Operation.APPEND, transaction, transaction._table.io, snapshot_properties=dict(summary))


def replace(transaction: Transaction, summary: Mapping[str, str]) -> Replace:
    """A snapshot to which files may be appended, and from which files may be deleted."""
    return Replace(Operation.OVERWRITE, transaction, transaction._table.io, snapshot_properties=dict(summary))


def regroup(transaction: Transaction, summary: Mapping[str, str]) -> Regroup:
    """A snapshot of the same files in other manifests."""
    return Regroup(Operation.APPEND, transaction, transaction._table.io, snapshot_properties=dict(summary))


def _numbered(entry: ManifestEntry, number: int) -> ManifestEntry:
    """An entry as it is read: what has no sequence number of its own inherits that of the commit."""
    return ManifestEntry.from_args(
        status=entry.status,
        snapshot_id=entry.snapshot_id,
        sequence_number=number if entry.sequence_number is None else entry.sequence_number,
        file_sequence_number=number if entry.file_sequence_number is None else entry.file_sequence_number,
        data_file=entry.data_file,
    )
