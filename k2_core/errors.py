"""Every way K2 stops, as one tree with stable codes.

    K2Error
    ├── Misconfigured          a setting or a config file is wrong
    ├── Halted                 going on would lose, double or mislabel data
    │   ├── OffsetBelowRetention
    │   ├── LogTruncated
    │   ├── IncarnationChanged
    │   ├── PartitionPaused
    │   └── CatalogLost
    ├── FencedOut              another writer committed what this one relied on
    ├── SchemaUnavailable      the registry cannot answer for a schema id
    ├── Unreachable            a server did not answer
    ├── BadInput               a file or a request cannot be understood as a whole
    ├── NotFound               something named does not exist
    │   └── Gone               something named was there and never comes back
    ├── AlreadyRunning         another stack holds this home
    ├── Damaged                a stored file is missing or differs from its receipt
    ├── Unwritable             a file could not be written: a full disk, a missing right, a dying device
    ├── QueryTimeout, QueryTooLarge, QueryStopped    in k2_resources.duck: a query that was not let run to its end
    └── Tripped                in k2_resources.failpoints: a test stopped the protocol at a named place

Data problems (a bad record, a gap, a duplicate) are values, never exceptions: see `judge` and `decode`.
"""

from __future__ import annotations


class K2Error(Exception):
    """Raised when K2 cannot go on; the message says what was found, what was expected, where, and what to do."""

    code = "K2_ERROR"


class Misconfigured(K2Error):
    """Raised when a setting or a config file contradicts itself or the world."""

    code = "MISCONFIGURED"


class Halted(K2Error):
    """Raised when going on would lose, double or mislabel records; an operator decides."""

    code = "HALTED"


class OffsetBelowRetention(Halted):
    """Raised when the log no longer holds the next offset to read: records are gone."""

    code = "OFFSET_BELOW_RETENTION"


class LogTruncated(Halted):
    """Raised when the log ends before the offset already stored."""

    code = "LOG_TRUNCATED"


class IncarnationChanged(Halted):
    """Raised when the cluster or a topic is not the one whose offsets are stored."""

    code = "INCARNATION_CHANGED"


class PartitionPaused(Halted):
    """Raised when every planned Kafka partition is paused."""

    code = "PARTITION_PAUSED"


class CatalogLost(Halted):
    """Raised when the catalog does not know a table whose files are in the warehouse; a new table would hide them."""

    code = "CATALOG_LOST"


class FencedOut(K2Error):
    """Raised when another writer changed what a commit relied on; nothing was written to the table."""

    code = "FENCED_OUT"


class SchemaUnavailable(K2Error):
    """Raised when the registry cannot say what a schema id means; the partition waits."""

    code = "SCHEMA_UNAVAILABLE"


class Unreachable(K2Error):
    """Raised when a server K2 needs did not answer in time."""

    code = "UNREACHABLE"


class BadInput(K2Error):
    """Raised when a whole file, argument or request cannot be understood."""

    code = "BAD_INPUT"


class NotFound(K2Error):
    """Raised when a named thing (table, snapshot, symbol, feed) does not exist."""

    code = "NOT_FOUND"


class Gone(NotFound):
    """Raised when a named thing (a snapshot or a version of a dropped table) was there and cannot be told again."""


class AlreadyRunning(K2Error):
    """Raised when another stack runs on the same home."""

    code = "ALREADY_RUNNING"


class Damaged(K2Error):
    """Raised when a stored file is missing, or its content differs from its receipt."""

    code = "DAMAGED"


class Unwritable(K2Error):
    """Raised when a file could not be written; nobody was told of it, so nothing is half committed."""

    code = "UNWRITABLE"
