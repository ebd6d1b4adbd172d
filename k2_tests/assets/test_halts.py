"""Whatever stops ingestion stops it loudly: a stable code, nothing half done, the others go on, and a way out."""

import importlib
import json
import os
import pkgutil
import re
import shutil
import sqlite3
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import click
import pytest

import k2_core
import k2_resources
from k2_assets.engine import Engine, ingest_until_caught_up, open_engine
from k2_cli.main import main
from k2_core.contracts import INGESTED, QUOTES, TRADES
from k2_core.errors import (
    CatalogLost,
    Damaged,
    K2Error,
    LogTruncated,
    OffsetBelowRetention,
    PartitionPaused,
    SchemaUnavailable,
    Unreachable,
    Unwritable,
)
from k2_core.poison import DEAD_MIN
from k2_core.protocol.commit import commit
from k2_core.protocol.ports import Change
from k2_core.receipts import RangeCount, Receipt
from k2_resources.lake.ledger import IcebergLedger
from k2_resources.lake.scans import dead_letters
from k2_resources.lake.verify import verify
from k2_tests.assets.conftest import DagsterHome
from k2_tests.conftest import free_port, start_registry, stop
from k2_tests.stacks import Stack, stack
from k2_tests.ticks import FEEDS, encoded, quote, trade

FEED, QUOTES_FEED, ASX = FEEDS["binance-trades"], FEEDS["binance-quotes"], FEEDS["asx-trades"]
RUNBOOK = Path(__file__).resolve().parents[2] / "docs" / "RUNBOOK.md"
PAGE_BYTES = 4096


@pytest.fixture
def here(tmp_path: Path, registry_url: str) -> Iterator[Stack]:
    with stack(tmp_path / "home", registry_url) as running:
        yield running


def stored_ids(engine: Engine) -> list[str]:
    rows = engine.lake.load(TRADES).scan(selected_fields=("message_id",)).to_arrow()
    return sorted(rows["message_id"].to_pylist())


def ids(*numbers: int) -> list[str]:
    return [f"BINANCE:BTCUSDT:trade:{n}" for n in numbers]


# --- the log ---------------------------------------------------------------------------------------------------------


def test_records_that_are_gone_halt_their_table_and_no_other(here: Stack) -> None:
    here.send(FEED, [trade(1)])
    engine = here.engine()
    ingest_until_caught_up(engine)
    # the embedded broker keeps 5 MiB of a Kafka partition
    here.send_bytes(FEED, (os.urandom(900_000) for _ in range(10)))
    here.send(QUOTES_FEED, [quote(1)])
    with pytest.raises(OffsetBelowRetention, match="k2 topics accept-loss"):
        engine.plan(TRADES)
    (committed,) = engine.execute(QUOTES, engine.plan(QUOTES).ranges, "test")
    assert committed.receipt.rows_stored == 1
    assert stored_ids(engine) == ids(1)


def test_a_log_that_ends_before_what_was_read_halts(here: Stack) -> None:
    here.send(FEED, [trade(1)])
    engine = here.engine()
    ingest_until_caught_up(engine)
    at = engine.lake.head(TRADES)
    ((_, p), stored) = max(at.offsets.positions.items(), key=lambda found: found[1].next)
    past = RangeCount(FEED.topic, 0, p, stored.next, stored.next + 7)
    commit(IcebergLedger(engine.lake), at, Change(Receipt(TRADES.name, "accept_loss", "test", "0", "1", (past,))))
    with pytest.raises(LogTruncated, match="the log ends at 1"):
        engine.plan(TRADES)


def test_a_storm_of_dead_letters_pauses_its_partition_and_says_so_once(here: Stack) -> None:
    here.send(FEED, [trade(1)])
    here.send_bytes(FEED, [b"junk"] * DEAD_MIN, key=b"another partition")
    engine = here.engine()
    with pytest.raises(PartitionPaused, match=f"{DEAD_MIN} of {DEAD_MIN} records"):
        ingest_until_caught_up(engine)
    assert len(dead_letters(engine.lake, TRADES)) == DEAD_MIN, "what was read is kept"
    here.send_bytes(FEED, [b"more junk"], key=b"another partition")
    here.send(FEED, [trade(2)])
    ingest_until_caught_up(engine)
    assert stored_ids(engine) == ids(1, 2)
    assert sum(engine.lag(TRADES).values()) == 1, "the paused partition waits"
    engine.resume(TRADES, FEED.topic, None, run_id="test", who="a test", why="mended")
    ingest_until_caught_up(engine)
    assert sum(engine.lag(TRADES).values()) == 0
    assert verify(engine.lake, TRADES).findings == ()


def test_fewer_dead_letters_than_a_storm_pause_nothing(here: Stack) -> None:
    here.send_bytes(FEED, [b"junk"] * (DEAD_MIN - 1), key=b"another partition")
    engine = here.engine()
    ingest_until_caught_up(engine)
    assert sum(engine.lag(TRADES).values()) == 0


# --- the daemon ------------------------------------------------------------------------------------------------------


@pytest.fixture
def eager(monkeypatch: pytest.MonkeyPatch) -> None:
    """One waiting record is enough for a run."""
    monkeypatch.setenv("K2_BATCH_ROWS_MIN", "1")


def test_a_sensor_asks_for_no_run_of_a_halted_table_and_the_others_ask_for_theirs(
    eager: None, home: DagsterHome
) -> None:
    home.send(home.binance, trade(1))
    home.run(TRADES, home.tick(TRADES).run_requests[0])
    home.stack.send_bytes(home.binance, (os.urandom(900_000) for _ in range(10)))
    home.send(home.feed("binance-quotes"), quote(1))
    for _ in range(3):
        answer = home.tick(TRADES)
        assert answer.run_requests in (None, [])
        assert answer.skip_message.startswith("halted: OFFSET_BELOW_RETENTION")
    assert len(home.tick(QUOTES).run_requests) == 1


def test_the_run_that_pauses_a_partition_fails_once_and_the_next_one_reads_the_others(
    eager: None, home: DagsterHome
) -> None:
    home.stack.send_bytes(home.binance, [b"junk"] * DEAD_MIN, key=b"another partition")
    request = home.tick(TRADES).run_requests[0]
    assert not home.run(TRADES, request, must_succeed=False).success
    home.stack.send_bytes(home.binance, [b"junk"], key=b"another partition")
    (untold,) = home.tick(TRADES).run_requests
    assert untold.run_config["ops"]["trades"]["config"]["ranges"] == [], "only to report what the failed run has stored"
    assert home.run(TRADES, untold).success
    assert home.tick(TRADES).run_requests in (None, []), "what is paused asks for nothing"
    home.send(home.binance, trade(1))
    next_request = home.tick(TRADES).run_requests[0]
    assert next_request.run_key != request.run_key
    assert home.run(TRADES, next_request).success
    assert stored_ids(home.engine) == ids(1)


# --- the registry ----------------------------------------------------------------------------------------------------


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
    """A registry of its own, to be stopped."""
    port = free_port()
    child = start_registry(tmp_path / "registry", port)
    try:
        yield f"http://127.0.0.1:{port}", child
    finally:
        stop(child)


@pytest.mark.parametrize("process", ["the same", "a new"])
def test_without_a_registry_known_ids_go_on_and_the_partition_of_an_unknown_one_waits(
    here: Stack, registry: tuple[str, subprocess.Popen[bytes]], process: str
) -> None:
    url, child = registry
    mine = here.elsewhere(registry_url=url)
    schema_id = mine.register(FEED)
    mine.send_bytes(FEED, [encoded(trade(1), schema_id=schema_id)])
    engine = mine.engine()
    ingest_until_caught_up(engine)
    stop(child)
    mine.send_bytes(FEED, [encoded(trade(2), schema_id=schema_id)])
    mine.send_bytes(FEED, [encoded(trade(3), schema_id=schema_id + 1)], key=b"another partition")
    if process == "a new":
        engine = mine.engine()
    with pytest.raises(SchemaUnavailable, match="everything else was ingested"):
        ingest_until_caught_up(engine)
    assert stored_ids(engine) == ids(1, 2)
    assert dead_letters(engine.lake, TRADES).num_rows == 0
    assert sum(engine.lag(TRADES).values()) == 1


def test_what_was_kept_of_another_registry_is_not_believed(
    here: Stack, registry: tuple[str, subprocess.Popen[bytes]]
) -> None:
    here.send(FEED, [trade(1)])
    ingest_until_caught_up(here.engine())
    url, child = registry
    stop(child)
    lost = here.elsewhere(registry_url=url)
    lost.send_bytes(FEED, [encoded(trade(2), schema_id=here.register(FEED))])
    with pytest.raises(SchemaUnavailable, match="Is the registry up"):
        ingest_until_caught_up(lost.engine())


# --- the catalog -----------------------------------------------------------------------------------------------------


@dataclass
class Locked:
    """A catalog that somebody else holds for longer than anybody waits."""

    catalog: Path

    def __enter__(self) -> "Locked":
        self._held = sqlite3.connect(self.catalog, isolation_level=None)
        self._held.execute("BEGIN EXCLUSIVE")
        return self

    def __exit__(self, *_: object) -> None:
        self._held.execute("ROLLBACK")
        self._held.close()


def impatient(here: Stack) -> Stack:
    return here.elsewhere(catalog_uri=f"sqlite:///{here.settings.home / 'catalog.db'}?timeout=0.3")


def test_a_locked_catalog_is_said_and_waited_for_no_longer_than_told(here: Stack) -> None:
    here.send(FEED, [trade(1)])
    engine = impatient(here).engine()
    plan = engine.plan(TRADES)
    with Locked(here.settings.home / "catalog.db"):
        with pytest.raises(Unreachable, match="catalog"):
            engine.plan(TRADES)
        with pytest.raises(K2Error):
            list(engine.execute(TRADES, plan.ranges, "test"))
    ingest_until_caught_up(engine)
    assert stored_ids(engine) == ids(1)


def test_a_catalog_locked_between_reading_and_committing_leaves_nothing_half_done(
    here: Stack, monkeypatch: pytest.MonkeyPatch
) -> None:
    here.send(FEED, [trade(1)])
    engine = impatient(here).engine()
    engine.register(TRADES, "test")
    locked = Locked(here.settings.home / "catalog.db")
    held = replace(engine.ingestion, reach=lambda name: locked.__enter__() if name == "judged" else None)
    with pytest.raises(Unreachable):
        list(held.execute(TRADES, engine.plan(TRADES).ranges, "test"))
    locked.__exit__()
    assert stored_ids(engine) == []
    ingest_until_caught_up(engine)
    assert stored_ids(engine) == ids(1)
    assert verify(engine.lake, TRADES).findings == ()


def test_a_catalog_that_is_gone_is_never_replaced_by_an_empty_one(here: Stack, tmp_path: Path) -> None:
    here.send(FEED, [trade(1)])
    ingest_until_caught_up(here.engine())
    catalog = here.settings.home / "catalog.db"
    backup = catalog.rename(tmp_path / "backup.db")
    with pytest.raises(CatalogLost, match=r"market_data\.trades is not in the catalog"):
        open_engine(here.settings)
    shutil.copy(backup, catalog)
    here.send(FEED, [trade(2)])
    engine = here.engine()
    ingest_until_caught_up(engine)
    assert stored_ids(engine) == ids(1, 2)


def test_a_catalog_that_cannot_be_opened_is_said(here: Stack, tmp_path: Path) -> None:
    (tmp_path / "a file").write_text("no directory")
    with pytest.raises(Unreachable, match="catalog"):
        here.elsewhere(catalog_uri=f"sqlite:///{tmp_path / 'a file' / 'catalog.db'}").engine()


def test_a_table_whose_metadata_is_gone_is_damaged(here: Stack) -> None:
    here.send(FEED, [trade(1)])
    engine = here.engine()
    ingest_until_caught_up(engine)
    shutil.rmtree(Path(engine.lake.load(TRADES).location()) / "metadata")
    with pytest.raises(Damaged, match=r"market_data\.trades"):
        open_engine(here.settings)


# --- the disk --------------------------------------------------------------------------------------------------------


@dataclass
class SmallDisk:
    """A file system of its own that can be filled to the last page."""

    path: Path

    @property
    def _ballast(self) -> Path:
        return self.path / "ballast"

    def leave(self, pages: int) -> None:
        """Fill all but so many pages."""
        self.make_room()
        free = os.statvfs(self.path)
        with self._ballast.open("wb") as file:
            os.posix_fallocate(file.fileno(), 0, max(1, free.f_bavail - pages) * free.f_frsize)

    def make_room(self) -> None:
        self._ballast.unlink(missing_ok=True)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[SmallDisk]:
    path = tmp_path / "disk"
    path.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=24m", "none", str(path)]
    if shutil.which("mount") is None or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("mounting a file system of its own is not permitted here")
    try:
        yield SmallDisk(path)
    finally:
        subprocess.run(["umount", "-l", str(path)], check=True)


WRITTEN = {
    "data": r"trades/data/",
    "dead letters": r"trades/k2/dead_letters/",
    "gap events": r"trades/k2/gaps/",
    "state": r"trades/k2/state/",
    "receipt": r"trades/k2/receipts/",
    "manifest": r"trades/metadata/.*\.avro",
    "audit table": r"warehouse/audit/",
}
"""Files of one commit, and of its collection, in the order they are written; the table metadata comes last."""


def test_a_disk_that_fills_at_any_file_of_a_commit_leaves_the_table_whole_and_the_next_run_goes_on(
    disk: SmallDisk, registry_url: str
) -> None:
    with stack(disk.path / "home", registry_url) as here:
        here.send(FEED, [trade(1)])
        engine = here.engine()
        ingest_until_caught_up(engine)
        schema_id = here.register(FEED)
        here.send_bytes(FEED, [encoded(trade(n), schema_id=schema_id) for n in (2, 3, 7)] + [b"junk"])
        errors, landed = fill_page_by_page(disk, engine)
        assert {code for code, _ in errors} <= {Unwritable.code, Unreachable.code}
        refused = {name for name, path in WRITTEN.items() for _, told in errors if re.search(path, told)}
        assert refused == set(WRITTEN), "each of them was the one that did not fit, once"
        torn = [f for f in disk.path.rglob("trades/metadata/*.metadata.json") if not is_json(f)]
        assert torn, "and so was the table metadata: a try after it that found less room spoke last"
        assert landed == 1
        assert stored_ids(engine) == ids(1, 2, 3, 7)
        assert len(dead_letters(engine.lake, TRADES)) == 1
        assert [verify(engine.lake, table).findings for table in INGESTED] == [()] * len(INGESTED)


def is_json(file: Path) -> bool:
    try:
        json.loads(file.read_bytes())
    except ValueError:
        return False
    return True


def fill_page_by_page(disk: SmallDisk, engine: Engine) -> tuple[list[tuple[str, str]], int]:
    """Try with ever more room until a run gets through; what each try said, and how many commits landed in all."""
    errors, landed = [], 0
    before = engine.lake.head(TRADES).properties
    for pages in range(200):
        disk.leave(pages)
        try:
            ingest_until_caught_up(engine)
        except K2Error as error:
            errors.append((error.code, str(error)))
        else:
            disk.make_room()
            return errors, landed + (engine.lake.head(TRADES).properties != before)
        disk.make_room()
        now = engine.lake.head(TRADES).properties
        landed, before = landed + (now != before), now
        assert stored_ids(engine) == (ids(1, 2, 3, 7) if landed else ids(1)), "whole batches or nothing"
    raise AssertionError(f"a commit needs no 200 pages: {errors[-1]}")


# --- the runbook -----------------------------------------------------------------------------------------------------

NO_STOP = {
    "K2_ERROR": "the root of the tree",
    "HALTED": "only its kinds are raised",
    "OUTPACED": "tried again by the protocol itself",
    "NOT_FOUND": "an argument that names nothing",
    "ALREADY_RUNNING": "a second stack; the first one ingests",
    "TIMEOUT": "a query",
    "RESOURCE_LIMIT_EXCEEDED": "a query",
    "STOPPED": "a query",
    "OVERLOADED": "a query",
    "SQL_BROKEN": "a statement of the API",
    "UNCONFINED": "a statement of the API",
    "FAILPOINT": "a test",
}
"""Codes that never stop ingestion, each with what raises it. A new code is here or has a section."""


def codes(error: type[K2Error] = K2Error) -> set[str]:
    """Codes of an error and of everything derived from it, of the classes that this project ships."""
    shipped = {error.code} if not error.__module__.startswith("k2_tests") else set()
    return shipped.union(*(codes(kind) for kind in error.__subclasses__()))


def sections() -> dict[str, str]:
    """Code -> text of its section."""
    parts = re.split(r"^## ", RUNBOOK.read_text(), flags=re.MULTILINE)[1:]
    return {found.group(1): part for part in parts if (found := re.match(r"`([A-Z_]+)`", part))}


def test_every_code_that_can_stop_ingestion_has_its_section() -> None:
    for package in (k2_resources, k2_core):
        for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            if not module.name.endswith("__main__"):
                importlib.import_module(module.name)
    assert codes() - NO_STOP.keys() == set(sections())


@pytest.mark.parametrize("code", sorted(sections()))
def test_a_section_says_what_happened_what_to_see_and_what_to_do(code: str) -> None:
    said = re.findall(r"^\*\*([^*]+)\.\*\*", sections()[code], flags=re.MULTILINE)
    assert said == ["What happened", "What K2 did", "How to see it", "What to decide", "The command", "The receipt"]


def test_every_command_and_metric_the_runbook_names_is_there() -> None:
    text = RUNBOOK.read_text()
    for line in set(re.findall(r"`(k2 [a-z-]+(?: [a-z-]+)?)", text)):
        command = main.get_command(click.Context(main), line.split()[1])
        assert command is not None, line
        if isinstance(command, click.Group) and len(line.split()) > 2:
            assert line.split()[2] in command.commands, line
    for metric in set(re.findall(r"`(k2_[a-z_]+)", text)):
        places = [*RUNBOOK.parents[1].glob("k2_api/*.py"), *RUNBOOK.parents[1].glob("k2_feeds/**/metrics.py")]
        sources = "".join(path.read_text() for path in places)
        assert metric.removesuffix("_total") in sources, metric
