"""Stored days beside their latest issues: which rows the source no longer has."""

from __future__ import annotations

from datetime import date

import pyarrow.compute as pc
from pyiceberg.expressions import And, EqualTo

from k2_core.contracts import COVERAGE
from k2_core.feeds import Feed
from k2_core.issues import ISSUED, Difference, Issue, difference, latest_issues
from k2_core.scopes import Scopes
from k2_resources.lake.catalog import Lake
from k2_resources.lake.scans import day_rows


def day_differences(lake: Lake, feed: Feed, day: date) -> dict[str, Difference]:
    """How what is stored of one exchange date differs from its latest issue: symbol -> difference.

    A symbol whose load stated no issue of that date is absent: nothing can be said of it. Raises ValueError for a
    stored statement that is no issue.
    """
    issues = issues_of_day(lake, feed, day)
    rows = day_rows(lake, feed.table, day, ["exchange", "symbol", "message_id"])
    rows = rows.filter(pc.equal(rows["exchange"], feed.exchange)).combine_chunks()
    scopes, keys = Scopes.of(rows["symbol"]), rows["message_id"].combine_chunks()
    places = {name: scopes.order[scopes.bounds[i] : scopes.bounds[i + 1]] for i, name in enumerate(scopes.names)}
    return {
        symbol: difference(pc.unique(keys.take(places[symbol])) if symbol in places else keys.slice(0, 0), issue)
        for symbol, issue in sorted(issues.items())
    }


def issues_of_day(lake: Lake, feed: Feed, day: date) -> dict[str, Issue]:
    """The latest issue of one exchange date of each symbol that has one. Raises ValueError as `day_differences`."""
    if lake.state(COVERAGE) is None:
        return {}
    stated = And(EqualTo("event", ISSUED), EqualTo("feed", feed.name))
    columns = ("event", "timestamp", "message_id", "feed", "symbol", "evidence")
    issues = latest_issues(lake.load(COVERAGE).scan(stated, selected_fields=columns).to_arrow())
    return {symbol: issue for (_, symbol, of), issue in issues.items() if of == day}
