"""`k2 ingest` and the adoption of a new broker, as commands."""

from __future__ import annotations

import json
from contextlib import ExitStack
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from k2_assets.engine import open_engine
from k2_cli.ingest import adopt, ingest
from k2_core.contracts import INGESTED, TRADES
from k2_core.errors import IncarnationChanged
from k2_resources.embedded_broker import embedded_broker, watermarks_file
from k2_resources.lake.scans import receipt_rows
from k2_resources.settings import Settings
from k2_tests.stacks import TOPICS, Stack
from k2_tests.ticks import FEEDS, trade

BINANCE = FEEDS["binance-trades"]


@pytest.fixture
def settings(tmp_path: Path, registry_url: str, monkeypatch: pytest.MonkeyPatch) -> Settings:
    home = tmp_path / "k2"
    monkeypatch.setenv("K2_HOME", str(home))
    monkeypatch.setenv("K2_REGISTRY_URL", registry_url)
    return Settings()


def broker_at(settings: Settings, bootstrap: str) -> Stack:
    """The stack of a home whose embedded broker is at an address."""
    settings.endpoints_file.parent.mkdir(parents=True, exist_ok=True)
    settings.endpoints_file.write_text(json.dumps({"kafka": bootstrap}))
    return Stack(settings, ExitStack())


def called(command: object, *arguments: str) -> Result:
    result = CliRunner().invoke(command, arguments, catch_exceptions=False)  # type: ignore[arg-type]
    assert result.exit_code == 0, result.output
    return result


def test_it_ingests_until_nothing_waits_and_says_what_became_of_the_records(settings: Settings) -> None:
    with embedded_broker(TOPICS, settings.home) as bootstrap:
        broker_at(settings, bootstrap).send(BINANCE, [trade(1), trade(2), trade(1)])
        first = json.loads(called(ingest, "--until-caught-up", "--json").stdout)
        again = json.loads(called(ingest, "--until-caught-up", "--json").stdout)
    trades = next(t for t in first["tables"] if t["table"] == TRADES.name)
    assert (trades["runs"], trades["read"], trades["written"], trades["duplicates"]) == (1, 3, 2, 1)
    assert [t["runs"] for t in again["tables"]] == [0] * len(INGESTED)


def test_a_new_broker_is_adopted_and_what_the_old_one_took_along_is_in_the_receipt(settings: Settings) -> None:
    with embedded_broker(TOPICS, settings.home) as bootstrap:
        stack = broker_at(settings, bootstrap)
        stack.send(BINANCE, [trade(1)])
        called(ingest, "--until-caught-up")
        stack.send(BINANCE, [trade(2), trade(3)])
    watermarks_file(settings.home).rename(settings.home / "run" / "watermarks.before.json")
    with embedded_broker(TOPICS, settings.home) as bootstrap:
        stack = broker_at(settings, bootstrap)
        with open_engine(settings) as engine, pytest.raises(IncarnationChanged):
            engine.plan(TRADES)
        called(adopt)
        stack.send(BINANCE, [trade(4)])
        called(ingest, "--until-caught-up")
        with open_engine(settings) as engine:
            receipts = receipt_rows(engine.lake, TRADES).to_pylist()
    adopted = next(r for r in receipts if r["kind"] == "adopt")
    assert adopted["who"] == "k2 up"
    assert f"{BINANCE.topic}[" in adopted["why"] and "at least 2 records up to offset 3 are lost" in adopted["why"]
    assert [r["kind"] for r in receipts] == ["register", "batch", "adopt", "batch"]


def test_adopting_the_same_broker_changes_nothing(settings: Settings) -> None:
    with embedded_broker(TOPICS, settings.home) as bootstrap:
        broker_at(settings, bootstrap)
        called(adopt)
        with open_engine(settings) as engine:
            before = engine.lake.state(TRADES)
            called(adopt)
            assert engine.lake.state(TRADES) == before
