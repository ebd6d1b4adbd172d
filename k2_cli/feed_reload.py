"""`k2 feed reload`: one day of a feed again, from where feeds.yaml says it can be had."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

import click

from k2_cli.feed_options import common_options, finish, settings_of


@click.command("reload")
@click.argument("feed")
@click.argument("day", type=click.DateTime(["%Y-%m-%d"]))
@common_options
def reload_day(feed: str, day: datetime, home: Path | None, as_json: bool, stall_minutes: float) -> None:
    """Send one exchange date of FEED again from its source of record; what the lake holds becomes duplicates."""
    from k2_core.errors import NotFound
    from k2_feeds.reload import reload
    from k2_resources.settings import load_feeds

    settings = settings_of(home)
    feeds = {known.name: known for known in load_feeds(settings)}
    if feed not in feeds:
        raise NotFound(f"feeds.yaml has no feed {feed}, only {', '.join(feeds)}")
    finish(reload(feeds[feed], day.date(), settings=settings, stall_seconds_max=stall_minutes * 60), as_json)
