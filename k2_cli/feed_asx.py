"""Sending ASX files: whole days, what each held stated behind its rows, in the schema asked for."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import click

from k2_cli.feed_options import settings_of

if TYPE_CHECKING:
    from k2_feeds.asx import Part
    from k2_feeds.collection import Report
    from k2_feeds.companies import Companies

SCHEMAS = ("v2", "v1")


def schema_option(command: Any) -> Any:
    """Which schema the records have."""
    return click.option(
        "--schema",
        type=click.Choice(SCHEMAS),
        default=SCHEMAS[0],
        show_default=True,
        help="v1: ASX records as the original platform first wrote them; the lake lifts them to v2.",
    )(command)


def send_parts(
    home: Path | None, parts: tuple[Part, ...], companies: Companies | None, *, source: str, schema: str, minutes: float
) -> Report:
    """Send the parts of a load. minutes: how long to wait for a lake that takes nothing."""
    from k2_cli.feeding import collect
    from k2_feeds.asx import FEEDS, read_parts
    from k2_feeds.coverage import Stamp
    from k2_feeds.issues import with_issues
    from k2_feeds.v1_records import company_ids, that_fit_v1, v1_encoders
    from k2_resources.clock import now_us
    from k2_resources.settings import load_feeds

    settings, collection_id, encoder_of = settings_of(home), uuid4().hex, None
    names = [name for kind, name in FEEDS.items() if any(part.kind == kind for part in parts)]
    feeds = {feed.name: feed for feed in load_feeds(settings) if feed.name in names}
    rows = read_parts(parts, companies, now_us)
    outcomes = with_issues(rows, feeds, lambda: Stamp(collection_id, source, now_us()))
    if schema == "v1":
        known = company_ids(parts)
        outcomes, encoder_of = that_fit_v1(outcomes, known), v1_encoders(known)
    return collect(
        settings,
        names,
        outcomes,
        source=source,
        stall_seconds_max=minutes * 60,
        collection_id=collection_id,
        encoder_of=encoder_of,
    )
