"""The table of contents: everything Dagster knows of K2, and the place where settings meet it."""

from collections.abc import Callable

import dagster as dg

from k2_assets.alerts import alerts_definitions
from k2_assets.day_close import day_close_definitions
from k2_assets.derived import derived_definitions
from k2_assets.intake import intake_definitions
from k2_assets.ledgers import ledgers_definitions
from k2_assets.maintenance import maintenance_definitions
from k2_assets.pruning import pruning_definitions
from k2_assets.quality import quality_definitions
from k2_core.feeds import Feed
from k2_resources.bindings import K2Resource
from k2_resources.settings import Settings, load_feeds

PARTS: tuple[Callable[[Settings, tuple[Feed, ...]], dg.Definitions], ...] = (
    intake_definitions,  # topics, and the tables that fill from them: a sensor each
    quality_definitions,  # what must hold of every table
    ledgers_definitions,  # gaps, receipts, dead letters
    derived_definitions,  # bars
    day_close_definitions,  # an exchange date ends: blocking checks, certificates
    maintenance_definitions,  # files, snapshots, orphans, manifests
    pruning_definitions,  # Dagster's own runs and events
    alerts_definitions,  # who is told
)
"""In the order of docs/ARCHITECTURE.md's picture, left to right, then what looks after it."""


def build_definitions(settings: Settings | None = None) -> dg.Definitions:
    """Define K2 on one home, from its settings and feeds. Connects to nothing."""
    settings = settings or Settings()
    feeds = load_feeds(settings)
    return dg.Definitions.merge(
        *(part(settings, feeds) for part in PARTS),
        dg.Definitions(
            resources={"k2": K2Resource(home=str(settings.home.absolute()))}, executor=dg.in_process_executor
        ),
    )


defs = build_definitions()
