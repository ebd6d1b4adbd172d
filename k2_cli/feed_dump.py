"""`k2 feed binance-dump`: archives of trades as the exchange publishes them, into Kafka."""

from __future__ import annotations

from itertools import chain
from pathlib import Path

import click

from k2_cli.feed_options import collected, common_options, finish, named

PATH = click.Path(exists=True, readable=True, path_type=Path)


@click.command("binance-dump")
@click.argument("paths", nargs=-1, required=True, type=PATH, metavar="FILE|DIR...")
@click.option("--without-checksum", is_flag=True, help="Take also archives that have no .CHECKSUM beside them.")
@common_options
def binance_dump(
    paths: tuple[Path, ...], without_checksum: bool, home: Path | None, as_json: bool, stall_minutes: float
) -> None:
    """Daily and monthly zips of Binance spot trades, or folders of them, each proven by its .CHECKSUM first."""
    from k2_feeds.binance_dump import OTHER_ZIPS, plan_dumps, zips_below
    from k2_feeds.binance_frames import TRADES_FEED
    from k2_feeds.dump_batches import read_dumps
    from k2_feeds.outcomes import PassedOver
    from k2_resources.clock import now_us

    files, others = [path for path in paths if not path.is_dir()], 0
    for folder in (path for path in paths if path.is_dir()):
        dumps, more = zips_below(folder)
        files, others = [*files, *dumps], others + more
    planned = plan_dumps(files, without_checksum=without_checksum)
    outcomes = chain((PassedOver(OTHER_ZIPS) for _ in range(others)), read_dumps(planned, now_us))
    source = named([dump.path for dump in planned])
    finish(collected(home, (TRADES_FEED,), outcomes, source, stall_minutes), as_json)
