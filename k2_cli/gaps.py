"""`k2 gaps`: holes in the ids of feeds whose ids have none, what became of each, and what can be done about them."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterable, Sequence
from getpass import getuser
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import click

from k2_cli.feed_options import settings_of
from k2_core.errors import BadInput, NotFound

if TYPE_CHECKING:
    from k2_core.feeds import Feed
    from k2_core.gap_ids import GapId
    from k2_feeds.collection import Report
    from k2_resources.lake.catalog import Lake
    from k2_resources.settings import Settings

_COLUMNS = ("gap_id", "severity", "size", "exchange_date", "state")
_EVENT_COLUMNS = ("event_number", "state", "gap_id", "size", "severity", "exchange_date", "actor", "stated", "evidence")
Gap = dict[str, Any]


def _home(command: Any) -> Any:
    option = click.option("--home", type=click.Path(path_type=Path, file_okay=False), default=None, help="K2_HOME.")
    return option(command)


_json = click.option("--json", "as_json", is_flag=True, help="One JSON document instead of a table.")
_who = click.option("--who", default=getuser, show_default="the user of this shell", help="Who decides.")


@click.group()
def gaps() -> None:
    """List, show, repair and accept gaps. A gap never stops ingestion; its repair comes through the same topic."""


@gaps.command("list")
@click.option("--feed", default=None, help="Only gaps of this feed.")
@click.option("--all", "everything", is_flag=True, help="Also those that are explained or accepted.")
@_json
@_home
def list_gaps(feed: str | None, everything: bool, as_json: bool, home: Path | None) -> None:
    """Show the gaps that are open."""
    from k2_resources.lake.scans import open_gaps, unfilled_gaps

    found = (unfilled_gaps if everything else open_gaps)(_lake(settings_of(home)), feed)
    if as_json:
        click.echo(json.dumps(found, indent=2, default=str))
        return
    _show(_COLUMNS, found)
    click.echo(f"{len(found):,} unfilled gaps" if everything else f"{len(found):,} open gaps")


@gaps.command()
@click.argument("gap_id")
@_json
@_home
def show(gap_id: str, as_json: bool, home: Path | None) -> None:
    """Show what the judge saw of one gap, then what was stated of any of its ids, each oldest first."""
    from k2_core.gap_states import history, unfilled
    from k2_resources.lake.scans import gap_events

    gap = _parsed(gap_id)
    events = gap_events(_lake(settings_of(home)), gap.feed).to_pylist()
    found = [dict(event) for event in history(gap, events)]
    if not found:
        raise NotFound(f"no gap {gap_id}; see `k2 gaps list`")
    if as_json:
        click.echo(json.dumps(found, indent=2, default=str))
        return
    _show(_EVENT_COLUMNS, found)
    states = [told["state"] for told in unfilled(events) if told["gap_id"] == gap_id]
    click.echo(f"{gap_id} is {states[0] if states else 'no hole: its ids are there, or nothing beyond them is'}")


@gaps.command()
@click.argument("gap_ids", nargs=-1)
@click.option("--all", "everything", is_flag=True, help="Every open gap of a feed that can be asked again.")
@click.option("--feed", default=None, help="With --all: only gaps of this feed.")
@click.option("--url", default=None, help="REST of the exchange; else K2_BINANCE_REST_URL.")
@_who
@_json
@_home
def repair(
    *,
    gap_ids: tuple[str, ...],
    everything: bool,
    feed: str | None,
    url: str | None,
    who: str,
    as_json: bool,
    home: Path | None,
) -> None:
    """Ask the exchange for the trades of gaps, send them to the topic, and state which ids it does not have.

    The gap is filled once the trades are ingested. Asking twice changes nothing the second time.
    """
    from k2_cli.feeding import collect
    from k2_feeds.coverage import Stamp
    from k2_feeds.repair import Repair, mended
    from k2_resources.binance.rest import BinanceRest
    from k2_resources.clock import now_us

    if bool(gap_ids) == everything:
        raise BadInput("say which gaps: their ids, or --all")
    settings, collection_id = settings_of(home), uuid4().hex
    wanted, of_feed = _repairable(settings, gap_ids, feed)
    if not wanted:
        click.echo("nothing to do: no open gap can be asked for")
        return
    with BinanceRest(url or settings.binance_rest_url) as rest:
        asked = Repair(rest, now_us)
        by_whom = f"repair by {who}"
        outcomes = mended(
            asked, of_feed, wanted, lambda: Stamp(collection_id, by_whom, now_us()), _sessions(settings, of_feed)
        )
        source = f"{rest.base_url}, {by_whom}"
        report = collect(settings, [of_feed.name], outcomes, source=source, collection_id=collection_id)
    _finish(report, as_json, f"{len(wanted):,} gaps asked for; `k2 gaps list` says what is left once it is ingested")


@gaps.command()
@click.argument("gap_ids", nargs=-1, required=True)
@click.option("--why", required=True, help="Your reason; it stays in the ledger for ever.")
@_who
@_json
@_home
def accept(gap_ids: tuple[str, ...], why: str, who: str, as_json: bool, home: Path | None) -> None:
    """Go on without the ids of gaps. Should they come after all, the gap is filled all the same."""
    from k2_cli.feeding import collect
    from k2_core.gap_ids import ACCEPTED
    from k2_feeds.coverage import Stamp, gap_statement
    from k2_resources.clock import now_us

    settings, collection_id = settings_of(home), uuid4().hex
    wanted = [_gap_of(gap) for gap in _named(_unfilled(settings), gap_ids)]
    feeds = _feeds(settings)
    for gap in wanted:
        if gap.feed not in feeds:
            raise NotFound(f"feeds.yaml has no feed {gap.feed}")
    stamp = Stamp(collection_id, who, now_us())
    rows = [gap_statement(feeds[gap.feed], gap, ACCEPTED, stamp, {"why": why}) for gap in wanted]
    report = collect(settings, [], rows, source=who, collection_id=collection_id)
    _finish(report, as_json, f"{len(wanted):,} gaps accepted by {who}; the ledger shows it once it is ingested")


def _finish(report: Report, as_json: bool, said: str) -> None:
    from k2_cli.feeding import say

    if as_json:
        click.echo(json.dumps(report.as_dict()))
    else:
        say(report)
        click.echo(said)
    if not report.is_complete:
        raise SystemExit(1)


def _repairable(settings: Settings, gap_ids: Sequence[str], feed: str | None) -> tuple[list[GapId], Feed]:
    """The gaps meant, and their feed: that of the trades of Binance. Raises NotFound, BadInput."""
    from k2_core.gap_states import is_settled
    from k2_feeds.binance_frames import TRADES_FEED

    found = _unfilled(settings)
    if gap_ids:
        wanted = [_gap_of(gap) for gap in _named(found, gap_ids)]
        if others := [gap for gap in wanted if gap.feed != TRADES_FEED]:
            raise BadInput(f"{others[0]}: only trades of Binance can be asked for again, feed {TRADES_FEED}")
    else:
        of_feed = [gap for gap in found if gap["feed"] == TRADES_FEED and feed in (None, TRADES_FEED)]
        wanted = [_gap_of(gap) for gap in of_feed if not is_settled(gap)]
    return wanted, _feeds(settings)[TRADES_FEED]


def _sessions(settings: Settings, feed: Feed) -> Callable[[str], int]:
    """The newest numbering of each symbol, as the lake knows it now."""
    from k2_core.sequences import ScopeState
    from k2_resources.lake.staging import read_state

    state, never_seen = read_state(_lake(settings).head(feed.table), feed.topic), ScopeState()
    return lambda symbol: state.get(symbol, never_seen).session


def _named(found: Iterable[Gap], gap_ids: Sequence[str]) -> list[Gap]:
    by_id = {gap["gap_id"]: gap for gap in found}
    if missing := [gap_id for gap_id in gap_ids if gap_id not in by_id]:
        raise NotFound(f"no unfilled gap {missing[0]}; see `k2 gaps list --all`")
    return [by_id[gap_id] for gap_id in dict.fromkeys(gap_ids)]


def _parsed(gap_id: str) -> GapId:
    from k2_core.gap_ids import GapId

    try:
        return GapId.parse(gap_id)
    except ValueError as error:
        raise NotFound(f"{error}; see `k2 gaps list`") from None


def _gap_of(gap: Gap) -> GapId:
    from k2_core.gap_ids import GapId

    return GapId(gap["feed"], gap["scope"], gap["session"], gap["first_id"], gap["last_id"])


def _show(columns: tuple[str, ...], events: list[Gap]) -> None:
    from k2_cli.tables import show_table

    rows = [tuple("-" if event.get(name) is None else str(event[name]) for name in columns) for event in events]
    # without a frame the names of the columns are a row of their own
    show_table(columns, rows if sys.stdout.isatty() or not rows else [columns, *rows])


def _unfilled(settings: Settings) -> list[Gap]:
    from k2_resources.lake.scans import unfilled_gaps

    return unfilled_gaps(_lake(settings))


def _feeds(settings: Settings) -> dict[str, Feed]:
    from k2_resources.settings import load_feeds

    return {feed.name: feed for feed in load_feeds(settings)}


def _lake(settings: Settings) -> Lake:
    """The lake of a home. Raises NotFound where nothing was ever ingested."""
    from k2_resources.lake.catalog import Lake

    if settings.catalog_uri is None and not (settings.home / "catalog.db").exists():
        raise NotFound(f"no catalog in {settings.home}: nothing was ever ingested there")
    return Lake(settings.catalog(), settings.warehouse_path())
