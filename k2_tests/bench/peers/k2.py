"""K2 as a peer: `python -m k2_tests.bench.peers.k2 SETTINGS` ingests everything that waits."""

from __future__ import annotations

import sys

from k2_assets.engine import open_engine
from k2_core.contracts import TRADES
from k2_resources.settings import Settings
from k2_tests.bench.peers.ground import Ground, Started


def start(ground: Ground) -> Started:
    """K2 with its default settings, which makes its own table when it opens its lake."""
    home = ground.home / "k2"
    home.mkdir()
    settings = Settings(
        home=home,
        kafka_bootstrap=ground.bootstrap,
        registry_url=ground.registry_url,
        run_rows_max=ground.records,
        catalog_uri=f"sqlite:///{home / 'catalog.db'}?timeout=60",
    )
    open_engine(settings).registry.close()
    command = [sys.executable, "-m", "k2_tests.bench.peers.k2", settings.model_dump_json()]
    return Started(command, home / "catalog.db")


def main(told: str) -> None:
    """Plan and execute until nothing of trades waits."""
    with open_engine(Settings.model_validate_json(told)) as engine:
        while (plan := engine.plan(TRADES)).ranges:
            for _ in engine.execute(TRADES, plan.ranges, "bench"):
                pass


if __name__ == "__main__":
    main(sys.argv[1])
