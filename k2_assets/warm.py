"""What the fork server of the `fast` launcher holds ready. Imported by it alone, before its first fork.

Belongs here: imports, and definitions resolved. Does not: a thread, a connection, an open file; a fork would get half
of it.
"""

import gc
import importlib
import traceback

LATE = (
    "alembic.command",
    "dagster._core.executor.in_process",
    "dagster._core.secrets.env_file",
    "dagster._core.storage.local_compute_log_manager",
    "dagster._core.storage.root",
    "dagster._core.storage.sqlite_storage",
    "dagster._grpc.impl",
    "encodings.idna",
    "exchange_calendars",
    "fsspec.implementations.local",
    "h11",
    "httpcore2",
    "k2_assets.launcher",
    "pandera.config",
    "pyarrow.acero",
    "pyiceberg.avro.decoder_fast",
    "pyiceberg.io.pyarrow",
    "truststore",
    "upath.implementations.local",
)
"""Modules that a run imports when it needs them: what `sys.modules` has gained at the end of one.

Not polars, which begins a thread when it is imported: a fork pays 0.1 s for it.
"""


def _load() -> None:
    for name in LATE:
        importlib.import_module(name)
    from k2_assets.definitions import defs

    defs.get_repository_def().get_all_jobs()


try:
    _load()
except Exception:
    # a fork that loads the same fails alike, and tells it in the events of its run, where people look
    traceback.print_exc()

gc.collect()
# what is here stays: a fork that collected garbage over it would write to, and so copy, every page
gc.freeze()
