"""The front door: JSON for programs, a page for people, looked at in a browser, and a guide for language models."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import httpx2 as httpx
import pytest
from playwright.sync_api import Page, expect

from k2_api.routes.page import wants_page
from k2_core.contracts import TRADES
from k2_resources.settings import Settings
from k2_tests.api.homes import dated, serving, settings_of, store
from k2_tests.api.ledger_homes import ledger_home
from k2_tests.e2e.dagster_ui import CHROMIUM, browser_page
from k2_tests.ticks import NOON, trade

BROWSER = "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,*/*;q=0.8"


@pytest.mark.parametrize(
    ("accept", "is_page"),
    [
        (BROWSER, True),
        ("text/html", True),
        ("application/json;q=0.5, text/html", True),
        ("text/html, application/json", True),
        ("", False),
        ("*/*", False),
        ("text/*", False),
        ("application/json", False),
        ("application/json, text/html;q=0.9", False),
        ("text/html;q=0", False),
        ("text/html;q=nonsense", False),
        ("text/htmlish", False),
        (",;,=;q=", False),
    ],
)
def test_only_who_asks_for_html_by_name_gets_the_page(client: httpx.Client, accept: str, is_page: bool) -> None:
    assert wants_page(accept) is is_page
    response = httpx.get(client.base_url.join("/"), headers={"Accept": accept}, trust_env=False)
    assert response.headers["Content-Type"].startswith("text/html" if is_page else "application/json")
    assert response.headers["Vary"] == "Accept"
    if not is_page:
        assert set(response.json()) == {"name", "version", "docs", "redoc", "health", "api"}


def test_the_page_needs_no_other_host_and_runs_nothing_but_itself(client: httpx.Client) -> None:
    response = client.get("/", headers={"Accept": BROWSER})
    page = response.text
    linked = re.findall(r'(?:src|href)="([^"]+)"', page)
    assert linked and all(link.startswith(("/", "data:")) and not link.startswith("//") for link in linked)
    assert "innerHTML" not in page and "eval(" not in page
    policy = response.headers["Content-Security-Policy"]
    assert "unsafe-inline" not in policy and "default-src 'none'" in policy and "connect-src 'self'" in policy
    again = client.get("/", headers={"Accept": BROWSER, "If-None-Match": response.headers["ETag"]})
    assert (again.status_code, again.content) == (304, b"")


def test_the_guide_names_every_route(client: httpx.Client) -> None:
    response = httpx.get(client.base_url.join("/llms.txt"), timeout=60, trust_env=False)
    assert response.headers["Content-Type"] == "text/plain; charset=utf-8"
    document = client.get("/openapi.json").json()
    for path, operations in document["paths"].items():
        for method in operations:
            assert f"- {method.upper()} {path}: " in response.text
    assert re.search(r"- GET /v1/quotes/as-of: .+\n  Parameters: .*symbol\*", response.text)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    """Trades with gaps, a closed day, a stranger's symbol, and Dagster's address."""
    home = tmp_path_factory.mktemp("page")
    lake = ledger_home(home)
    names = ["<img src=x onerror=alert(1)>", "ETHUSDT"]
    rows = [trade(n, symbol=name, timestamp=NOON + timedelta(minutes=n)) for name in names for n in range(1, 40)]
    store(lake, TRADES, [dated(row) for row in rows])
    return settings_of(home, alert_dagster_url="http://dagster.example:3000")


@pytest.fixture(scope="module")
def page(home: Settings) -> Iterator[Page]:
    if CHROMIUM is None:
        pytest.skip("no chromium on this machine")
    with serving(home) as client, browser_page() as page:
        page.goto(f"{client.base_url}/")
        yield page


def test_without_a_key_it_says_what_to_do(page: Page) -> None:
    expect(page.locator("#notice")).to_contain_text("Enter the API key")
    expect(page.locator("#status")).to_have_text("healthy")
    expect(page.locator("#symbols")).to_be_empty()


def test_with_the_key_it_shows_symbols_bars_and_gaps(page: Page, home: Settings, tmp_path: Path) -> None:
    page.locator("#key").fill(home.api_key_file.read_text().strip())
    page.get_by_role("button", name="Open").click()
    expect(page.locator("#symbols tr")).to_have_count(3)
    row = page.locator("#symbols tr", has_text="BTCUSDT")
    expect(row).to_contain_text("61846.63")
    expect(row).to_contain_text("2024-08-08 complete")
    row.click()
    expect(page.locator("#chart-title")).to_have_text("BTCUSDT BINANCE")
    expect(page.locator("#chart-note")).to_contain_text("gaps, marked red")
    expect(page.locator("#chart rect.hole")).to_have_count(1)
    expect(page.locator("#gaps tr")).to_have_count(2)
    expect(page.locator("#notice")).to_be_empty()
    expect(page.get_by_role("link", name="Dagster")).to_have_attribute("href", "http://dagster.example:3000")
    page.screenshot(path=tmp_path / "page.png", full_page=True)


def test_a_hostile_name_is_shown_as_text_and_other_bars_are_drawn(page: Page) -> None:
    dialogs: list[str] = []
    page.on("dialog", lambda dialog: (dialogs.append(dialog.message), dialog.dismiss()))
    page.locator("#symbols tr", has_text="onerror").click()
    expect(page.locator("#chart-title")).to_have_text("<img src=x onerror=alert(1)> BINANCE")
    page.locator("#symbols tr", has_text="ETHUSDT").click()
    page.locator("#interval").select_option("5m")
    expect(page.locator("#chart-note")).to_contain_text("8 bars")
    expect(page.locator("#chart g.up")).to_have_count(8)
    assert dialogs == [] and page.locator("img").count() == 0
