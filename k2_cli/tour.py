"""The guided tour: what it sends, what must come out, and the figures it reads back to compare."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import click
import httpx2 as httpx

from k2_assets.engine import Engine, open_engine
from k2_assets.outcomes import check_outcomes, materialized_days
from k2_cli.tour_live import SYMBOLS as LIVE_SYMBOLS
from k2_cli.tour_live import Collected, LivePart, absent_ids
from k2_cli.verify import proof_of
from k2_core.contracts import INGESTED, QUOTES, TICK_TABLES, TRADES, Table
from k2_core.errors import K2Error, Unreachable
from k2_feeds.simulated_binance import Faults
from k2_feeds.simulator import Simulation, Truth
from k2_resources.duck import Duck
from k2_resources.lake.scans import open_gaps
from k2_resources.lake.verify import Proof
from k2_resources.settings import Settings

FAULTS = Faults(duplicates=25, hole=7, out_of_order=10)
"""Enough to show that copies are counted, a loss is seen, and disorder is neither."""
INGEST_SECONDS_MAX = 300.0
CHECKS_SECONDS_MAX = 180.0
"""Longest waits on a slow machine; a run takes about ten seconds."""
_POLL_SECONDS = 1.0


@dataclass(frozen=True)
class Figure:
    """One number of the tour: what it is, what it must be, what it is."""

    name: str
    expected: object
    found: object

    @property
    def agrees(self) -> bool:
        return self.expected == self.found


@dataclass(frozen=True)
class Tour:
    """One tour on a running stack."""

    settings: Settings
    simulation: Simulation

    def walk(self) -> list[Figure]:
        """Ingestion, storage, monitoring, query; every figure that must agree. Raises Unreachable when a wait ends."""
        with open_engine(self.settings) as engine:
            before = {table.name: self._proof(engine, table) for table in INGESTED}
            sent, collected = self._ingestion(engine)
            figures = self._storage(engine, before, sent + collected.acknowledged)
            figures += self._monitoring(engine, collected)
        return figures + self._query(collected)

    def _ingestion(self, engine: Engine) -> tuple[int, Collected]:
        click.secho("\n1. Ingestion", bold=True)
        click.echo("Two generated trading days, as files: a Binance capture and ASX trades and quotes.")
        capture, companies, *rest = self.simulation.write(self.settings.home / "demo")
        trades = [p for p in rest if p.parent.name == "trades"]
        quotes = [p for p in rest if p.parent.name == "quotes"]
        sent = self._feed("binance-capture", capture)
        sent += self._feed("asx", "--trades", *trades, "--quotes", *quotes, "--company-info", companies)
        collected = LivePart(self.settings, self.simulation.seed).run(lambda: _waiting(engine))
        click.echo("The sensor compares the offsets in the tables with the log and starts runs:")
        _wait("ingestion", lambda: _waiting(engine), INGEST_SECONDS_MAX)
        return sent, collected

    def _feed(self, *arguments: object) -> int:
        words = [str(a) for a in arguments]
        click.echo(f"  k2 feed {' '.join(Path(w).name if '/' in w else w for w in words)}")
        command = [sys.executable, "-m", "k2_cli.main", "feed", *words, "--json", "--home", str(self.settings.home)]
        told = subprocess.run(command, stdout=subprocess.PIPE, check=False, text=True)
        if told.returncode:
            raise K2Error(f"`k2 feed {words[0]}` exited with {told.returncode}: {told.stdout.strip()}")
        report: dict[str, Any] = json.loads(told.stdout.strip().splitlines()[-1])
        click.echo(f"    {report['sent']:,} records produced, {report['acknowledged']:,} acknowledged")
        return int(report["acknowledged"])

    def _storage(self, engine: Engine, before: dict[str, Proof], sent: int) -> list[Figure]:
        click.secho("\n2. Storage", bold=True)
        proofs = {table.name: self._proof(engine, table) for table in TICK_TABLES}
        for table in TICK_TABLES:
            proof, was = proofs[table.name], before[table.name]
            click.echo(
                f"  {table.name}: {proof.read - was.read:,} records read = {proof.written - was.written:,} written + "
                f"{proof.duplicates - was.duplicates:,} duplicates + {proof.revisions - was.revisions:,} revisions + "
                f"{proof.dead - was.dead:,} dead; snapshot {proof.snapshot_id}, version {proof.version[:12]}"
            )
        read = sum(proofs[t.name].read - before[t.name].read for t in TICK_TABLES)
        stored = sum(proofs[t.name].rows - before[t.name].rows for t in TICK_TABLES)
        again = sum(proofs[t.name].duplicates - before[t.name].duplicates for t in TICK_TABLES)
        return [
            Figure("records committed", sent, read),
            Figure("rows and duplicates of what was sent", sent, stored + again),
            Figure("dead letters", 0, sum(proofs[t.name].dead - before[t.name].dead for t in TICK_TABLES)),
            *(Figure(f"imbalances in {t.name}", 0, len(proofs[t.name].findings)) for t in TICK_TABLES),
        ]

    def _monitoring(self, engine: Engine, collected: Collected) -> list[Figure]:
        click.secho("\n3. Monitoring", bold=True)
        days = {table.name: _stored_days(engine, table) for table in TICK_TABLES}
        outcomes = self._outcomes(days)
        failed = sorted((t, name, day) for (t, name, day), status in outcomes.items() if status != "SUCCEEDED")
        click.echo(f"  {len(outcomes)} asset checks on {sum(map(len, days.values()))} table partitions evaluated")
        for table, name, day in failed:
            click.echo(f"  {name} of {table} on {day}: {outcomes[table, name, day]}")
        symbols = {*(truth.symbol for truth in self.simulation.truth()), *LIVE_SYMBOLS}
        gaps = [g for g in open_gaps(engine.lake) if g["scope"] in symbols]
        for gap in gaps:
            click.echo(f"  open gap {gap['gap_id']}: {gap['size']} ids, {gap['severity']}")
        expected = sorted(hole for truth in self.simulation.truth() for hole in truth.gaps)
        shown = {t.name: materialized_days(self.settings.dagster_home, t) for t in TICK_TABLES}
        return [
            Figure("open gaps", expected, sorted((g["first_id"], g["last_id"]) for g in gaps)),
            Figure("ids the exchange does not have", collected.absent, absent_ids(engine.lake)),
            Figure("checks that fail", {"sequence_gaps"} if expected else set(), {name for _, name, _ in failed}),
            *(Figure(f"days materialized of {name}", days[name], days[name] & shown[name]) for name in days),
        ]

    def _outcomes(self, days: dict[str, set[date]]) -> dict[tuple[str, str, date], str]:
        found: dict[tuple[str, str, date], str] = {}

        def missing() -> str:
            for table in TICK_TABLES:
                last = check_outcomes(self.settings.dagster_home, table, sorted(days[table.name]))
                found.update({(table.name, name, day): status for (name, day), status in last.items()})
            left = sum(status in ("MISSING", "PLANNED") for status in found.values())
            return f"{left} of {len(found)} checks are not evaluated yet" if left else ""

        _wait("asset checks", missing, CHECKS_SECONDS_MAX)
        return found

    def _query(self, collected: Collected) -> list[Figure]:
        click.secho("\n4. Query", bold=True)
        key = self.settings.api_key_file.read_text().strip()
        url = self.settings.endpoints()["api"]
        with httpx.Client(base_url=url, headers={"X-API-Key": key}, trust_env=False, timeout=60) as client:
            _show_page(client, self.simulation.pairs[0])
            figures = [figure for truth in self.simulation.truth() for figure in _compared(client, truth)]
            return figures + [_counted(client, *place, rows) for place, rows in collected.rows.items()]

    def _proof(self, engine: Engine, table: Table) -> Proof:
        duck = Duck(threads=1, memory=self.settings.query_memory, seconds_max=INGEST_SECONDS_MAX)
        try:
            return proof_of(engine.lake, duck, table)
        finally:
            duck.close()


def _waiting(engine: Engine) -> str:
    """Why ingestion is not done, in words; empty when it is."""
    lag = sum(rows for table in INGESTED for rows in engine.lag(table).values())
    return f"{lag:,} records wait" if lag else ""


def _wait(what: str, why_not: Callable[[], str], seconds_max: float) -> None:
    """Wait until nothing is left to say, saying what changes."""
    end, said = time.monotonic() + seconds_max, ""
    while reason := why_not():
        if reason != said:
            click.echo(f"    {reason}")
            said = reason
        if time.monotonic() > end:
            raise Unreachable(f"{what} did not end in {seconds_max:g} s: {reason}")
        time.sleep(_POLL_SECONDS)


def _stored_days(engine: Engine, table: Table) -> set[date]:
    state = engine.lake.state(table)
    assert state is not None and state.snapshot_id is not None, "the tour has committed to it"
    return {f.exchange_date for f in engine.lake.files(table, state.snapshot_id) if f.exchange_date is not None}


def _show_page(client: httpx.Client, symbol: str) -> None:
    page = _ask(client, "/v1/trades", symbol=symbol, limit=3)
    click.echo(f"  GET /v1/trades?symbol={symbol}&limit=3   (snapshot {page.headers['K2-Snapshot-Id']})")
    for row in page.json()["data"]:
        click.echo(f"    {row['timestamp']}  {row['side']:<4} {row['quantity']} @ {row['price']}  {row['message_id']}")
    bars = _ask(client, "/v1/ohlcv/1h", symbol=symbol, limit=3)
    click.echo(f"  GET /v1/ohlcv/1h?symbol={symbol}&limit=3")
    for bar in bars.json()["data"]:
        prices = " ".join(f"{word[0]} {bar[word + '_price']}" for word in ("open", "high", "low", "close"))
        click.echo(f"    {bar['window_start']}  {prices}  volume {bar['volume']}  VWAP {bar['vwap']}")


def _compared(client: httpx.Client, truth: Truth) -> Iterator[Figure]:
    """What the API counts against what the market model says it made."""
    table = TRADES if truth.feed.endswith("trades") else QUOTES
    answer = _ask(client, f"/v1/{table.short_name}", symbol=truth.symbol, count="true", limit=1)
    yield Figure(f"rows of {truth.feed} {truth.symbol}", truth.rows, answer.json()["pagination"]["total"])
    if table is TRADES:
        bars = _ask(client, "/v1/ohlcv/1d", symbol=truth.symbol, view="raw", limit=1000).json()["data"]
        yield Figure(f"prints in daily bars of {truth.symbol}", truth.rows, sum(b["trade_count"] for b in bars))


def _counted(client: httpx.Client, table: str, symbol: str, rows: int) -> Figure:
    """What the API counts against the ledger of the exchange."""
    answer = _ask(client, f"/v1/{table.rpartition('.')[2]}", symbol=symbol, count="true", limit=1)
    return Figure(f"rows of {table} {symbol}, live", rows, answer.json()["pagination"]["total"])


def _ask(client: httpx.Client, path: str, **parameters: str | int) -> httpx.Response:
    answer = client.get(path, params=parameters)
    if answer.status_code != httpx.codes.OK:
        raise K2Error(f"GET {path} {parameters}: {answer.status_code} {answer.text[:300]}")
    return answer
