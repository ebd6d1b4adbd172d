"""A look at the Dagster UI in headless Chromium: lineage, partitions, checks. `python -m k2_tests.e2e.dagster_ui URL DIR`."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from playwright.sync_api import Page, sync_playwright

CHROMIUM = next((found for name in ("chromium", "chromium-browser") if (found := shutil.which(name))), None)
"""Debian's own; playwright's downloads are not used."""
ARGUMENTS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
SIZE = {"width": 1600, "height": 1000}
PATIENCE_MS = 60_000
REPOSITORY = "__repository__@k2"


@dataclass(frozen=True)
class Look:
    """One page: where it is, and the words that must be on it before it counts as shown."""

    name: str
    path: str
    words: tuple[str, ...]


LOOKS = (
    Look("picture", "/asset-groups", ("topics", "ticks", "derived", "days", "reference", "audit", "upkeep")),
    Look("lineage-trades", "/assets/market_data/trades?view=lineage", ("binance-trades", "asx-trades", "trades")),
    Look("lineage-quotes", "/assets/market_data/quotes?view=lineage", ("binance-quotes", "asx-quotes", "quotes")),
    Look("partitions", "/assets/market_data/trades?view=partitions", ("Materialized",)),
    Look(
        "checks",
        "/assets/market_data/trades?view=checks",
        ("sequence_gaps", "duplicate_keys", "value_rules", "freshness", "dead_letters"),
    ),
    Look("runs", "/runs", ("ingest_trades", "Success")),
    Look("sensors", "/automation", ("trades_sensor", "quotes_sensor")),
)


@contextmanager
def browser_page() -> Iterator[Page]:
    """An empty page of a headless browser."""
    assert CHROMIUM is not None, "Debian's chromium is not installed"
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=list(ARGUMENTS))
        page = browser.new_page(viewport=SIZE)  # type: ignore[arg-type]
        page.set_default_timeout(PATIENCE_MS)
        try:
            yield page
        finally:
            browser.close()


def look(page: Page, url: str, what: Look, folder: Path) -> str:
    """Open a page, wait for its words, take its picture, and return its text."""
    page.goto(f"{url}{what.path}")
    for word in what.words:
        page.get_by_text(word).first.wait_for()
    page.wait_for_load_state("networkidle")
    page.screenshot(path=folder / f"{what.name}.png")
    return page.inner_text("body")


def backfill(page: Page, url: str, group: str, partitions: str) -> None:
    """Launch a backfill of a whole group, as people do. partitions: as typed, e.g. `[2025-03-11...2025-03-13]`."""
    page.goto(f"{url}/locations/{REPOSITORY}/asset-groups/{group}")
    page.get_by_role("button", name="Materialize all").first.click()
    dialog = page.get_by_role("dialog")
    dialog.get_by_text("Show all partitions").click()
    box = dialog.get_by_placeholder("ex: ", exact=False)
    box.fill(partitions)
    box.press("Enter")
    dialog.get_by_role("button", name="Launch backfill").click()
    dialog.wait_for(state="hidden")


if __name__ == "__main__":
    with browser_page() as shown:
        for each in LOOKS:
            look(shown, sys.argv[1], each, Path(sys.argv[2]))
