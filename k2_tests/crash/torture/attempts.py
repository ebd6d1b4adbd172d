"""What a worker does until it is killed: one attempt at ingesting, sweeping, rewriting, adopting."""

from __future__ import annotations

import gc
import logging
import os
import tempfile
import traceback
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from datetime import date
from pathlib import Path
from typing import Literal

import pyarrow as pa
import structlog
from pyiceberg.utils.concurrent import ExecutorFactory

from k2_assets.engine import CODE_VERSION, Engine, open_engine
from k2_core.compaction import Limits
from k2_core.contracts import CONTRACT_VERSION, TRADES, Table, table_named
from k2_core.errors import FencedOut, IncarnationChanged, K2Error, Unreachable
from k2_core.keys import CONTRACT_KEY
from k2_core.protocol import retain
from k2_core.protocol.collect import collect
from k2_core.protocol.commit import commit
from k2_core.protocol.ingestion import Ingestion
from k2_core.protocol.ports import Change, Outpaced
from k2_core.receipts import Receipt
from k2_resources.failpoints import Tripped, reach
from k2_resources.lake.compaction import compact
from k2_resources.lake.ledger import IcebergLedger
from k2_resources.lake.verify import verify
from k2_resources.registry import Registry
from k2_resources.settings import Settings
from k2_tests.lakes import full_lake

Work = Literal["ingest", "sweep", "rewrite", "adopt", "recontract"]
DONE, FAILED, FENCED, CHANGED, UNREACHABLE, TRIPPED = 0, 1, 3, 4, 5, 6
"""Exit codes: what became of an attempt that nobody killed."""
FENCED_MAX = 20
"""Times a worker that lost to rivals plans again, as the ticks after it would."""
REWRITTEN_ROWS_MAX = 60
"""Rows of a rewritten file: several of a home's few hundred rows, cut along their order."""


@dataclass(frozen=True)
class Attempt:
    """One process's worth of work on one home.

    tries: how often it plans again after it was fenced out. snapshots: of a table before it forgets, and after.
    """

    home: str
    config: str
    bootstrap: str
    registry_url: str
    tables: tuple[str, ...]
    work: Work = "ingest"
    failpoint: str = ""
    rows_per_commit: int = 20
    code_version: str = CODE_VERSION
    tries: int = FENCED_MAX
    snapshots: tuple[int, int] = (retain.SNAPSHOTS_MAX, retain.SNAPSHOTS_KEPT)

    def settings(self) -> Settings:
        return Settings(
            home=Path(self.home),
            config=Path(self.config),
            kafka_bootstrap=self.bootstrap,
            registry_url=self.registry_url,
            failpoint=self.failpoint,
            rows_per_commit=self.rows_per_commit,
            kafka_timeout_seconds=5,
        )


def warm() -> None:
    """Do once what every worker does, so that those forked from this process find it loaded, compiled and cached."""
    os.environ["PYICEBERG_MAX_WORKERS"] = "1"
    pa.set_cpu_count(1)
    with tempfile.TemporaryDirectory() as home:
        assert verify(full_lake(Path(home) / "lake"), TRADES).findings == ()
    Registry("http://127.0.0.1:9").close()
    # its threads would not be there in a fork; each process makes a pool of its own
    ExecutorFactory.get_or_create().shutdown()
    ExecutorFactory._instance_pid = None
    gc.collect()
    gc.freeze()


def run(attempt: Attempt) -> None:
    """Do one attempt in a process that was forked for it, and end the process."""
    # the zygote has the environment of whoever started it
    for name in [name for name in os.environ if name.startswith("K2_")]:
        del os.environ[name]
    logging.disable(logging.CRITICAL)
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    retain.SNAPSHOTS_MAX, retain.SNAPSHOTS_KEPT = attempt.snapshots
    code = FAILED
    try:
        code = _outcome(attempt)
    except BaseException:
        report = Path(attempt.home) / "trouble" / f"{os.getpid()}.txt"
        report.parent.mkdir(exist_ok=True)
        report.write_text(f"{asdict(attempt)}\n\n{traceback.format_exc()}")
    finally:
        os._exit(code)


def _outcome(attempt: Attempt) -> int:
    fenced = 0
    while True:
        try:
            with open_engine(attempt.settings()) as engine:
                for name in attempt.tables:
                    WORKS[attempt.work](engine, _ingestion(engine, attempt), table_named(name), attempt)
            return DONE
        except (FencedOut, Outpaced):
            fenced += 1
            if fenced >= attempt.tries:
                return FENCED
        except K2Error as error:
            codes = {IncarnationChanged: CHANGED, Unreachable: UNREACHABLE, Tripped: TRIPPED}
            if type(error) not in codes:
                raise
            return codes[type(error)]


def _ingestion(engine: Engine, attempt: Attempt) -> Ingestion:
    """The engine's protocol as another version of the code would run it."""
    desk = replace(engine.ingestion.desk, code_version=attempt.code_version)  # type: ignore[type-var]
    return replace(engine.ingestion, desk=desk, code_version=attempt.code_version)


def _ingest(_: Engine, ingestion: Ingestion, table: Table, attempt: Attempt) -> None:
    collect(ingestion.ledger, table, reach)
    while (plan := ingestion.plan(table, 10_000)).ranges:
        for _committed in ingestion.execute(table, plan.ranges, f"torture-{os.getpid()}"):
            pass


def _sweep(_: Engine, ingestion: Ingestion, table: Table, attempt: Attempt) -> None:
    code = attempt.code_version
    retain.sweep(ingestion.ledger, table, run_id="sweep", code_version=code, contract_version=CONTRACT_VERSION)


def _adopt(_: Engine, ingestion: Ingestion, table: Table, attempt: Attempt) -> None:
    ingestion.register(table, "adopt")
    who, why = "torture", "the broker was killed; what it had not given away is gone"
    ingestion.adopt(table, ingestion.topics(table), run_id="adopt", who=who, why=why)


def _recontract(_: Engine, ingestion: Ingestion, table: Table, attempt: Attempt) -> None:
    """State another contract version: whoever relied on the one before is fenced out."""
    at = ingestion.ledger.head(table)
    stated = f"{CONTRACT_VERSION}.{int((at.property(CONTRACT_KEY) or '1').rpartition('.')[2]) + 1}"
    commit(ingestion.ledger, at, Change(_maintenance(table, attempt), properties={CONTRACT_KEY: stated}))


def _rewrite(_: Engine, ingestion: Ingestion, table: Table, attempt: Attempt) -> None:
    """What upkeep does to files: every date is closed, and all its files become sorted ones, a few rows each."""
    assert isinstance(ingestion.ledger, IcebergLedger), "what an engine commits to"
    lake, limits = ingestion.ledger.lake, Limits(rows_max=REWRITTEN_ROWS_MAX, fragments_max=2)
    for _rewritten in compact(lake, table, limits, date.max, run_id="rewrite", code_version=attempt.code_version):
        reach("committed")


def _maintenance(table: Table, attempt: Attempt) -> Receipt:
    return Receipt(table.name, "maintenance", "torture", attempt.code_version, CONTRACT_VERSION, ())


WORKS: dict[Work, Callable[[Engine, Ingestion, Table, Attempt], None]] = {
    "ingest": _ingest,
    "sweep": _sweep,
    "rewrite": _rewrite,
    "adopt": _adopt,
    "recontract": _recontract,
}
