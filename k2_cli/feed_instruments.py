"""`k2 feed asx-instruments` and `binance-instruments`: reference data into Kafka."""

from __future__ import annotations

from pathlib import Path

import click

from k2_cli.feed_options import FILE, collected, common_options, finish


@click.command("asx-instruments")
@click.argument("file", type=FILE)
@common_options
def asx_instruments(file: Path, home: Path | None, as_json: bool, stall_minutes: float) -> None:
    """The vendor's company file: which company had which symbol, from when to when."""
    from k2_feeds.asx_instruments import FEED, read_company_file
    from k2_resources.clock import now_us

    finish(collected(home, (FEED,), read_company_file(file, now_us), file.name, stall_minutes), as_json)


@click.command("binance-instruments")
@click.argument("file", type=FILE, required=False)
@click.option("--url", help="Ask this REST address, e.g. https://api.binance.com, instead of reading a file.")
@click.option("--symbol", "symbols", multiple=True, help="Ask for this symbol; for all of them with none.")
@common_options
def binance_instruments(
    *,
    file: Path | None,
    url: str | None,
    symbols: tuple[str, ...],
    home: Path | None,
    as_json: bool,
    stall_minutes: float,
) -> None:
    """What Binance lists: its exchangeInfo, from a file or from its REST interface."""
    from k2_feeds.binance_instruments import FEED, ask_exchange_info, read_exchange_info
    from k2_resources.clock import now_us

    if (file is None) == (url is None):
        raise click.UsageError("say a FILE or --url, and not both")
    if file is not None and symbols:
        raise click.UsageError("--symbol goes with --url: a file is read whole")
    if file is not None:
        outcomes, source = read_exchange_info(file, now_us), file.name
    else:
        assert url is not None
        outcomes, source = ask_exchange_info(url, symbols, now_us), url
    finish(collected(home, (FEED,), outcomes, source, stall_minutes), as_json)
