"""The asset checks: what must hold of a table on each exchange date, each one function of the tables alone.

Ingest runs report them from receipts (see `reports`); the same functions are Dagster checks that people start from the
UI, also while no broker runs. They are partitioned, which is preview in Dagster 1.13. None blocks: day close does.
docs/CHECKS.md is this file's table in words.
"""

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date
from inspect import cleandoc
from typing import Literal

import dagster as dg

from k2_assets.check_bars import bars_equal_ticks, volume
from k2_assets.check_batches import dead_letters, freshness, lag, schema, sequence_gaps
from k2_assets.check_rows import completeness, duplicate_keys, receipts_equal_rows, value_rules, withdrawn_rows
from k2_assets.check_ticks import crossed_quotes, outlying_prices
from k2_assets.partitions import DAILY
from k2_assets.tables import asset_key
from k2_core.contracts import INGESTED, QUOTES, TICK_TABLES, TRADES, Table
from k2_core.derived_tables import BARS, BARS_1D
from k2_core.feeds import Feed, feeds_of
from k2_resources.bindings import K2Resource
from k2_resources.lake.catalog import Lake

__all__ = ["CHECKS", "Check", "Evaluate", "check_definitions", "checks_of", "told_checks"]

Evaluate = Callable[[Lake, Table, tuple[Feed, ...], date], dg.AssetCheckResult]
Tier = Literal["batch", "rows", "day"]
"""When a report evaluates it: with every batch that touched the date; that, where the rows are few enough to read them
in passing; or that, once the date is over, and by the schedule after it."""


@dataclass(frozen=True)
class Check:
    """One check of some tables. fails: how, in words: soft is a warning, hard an error. blocks: the day close."""

    name: str
    evaluate: Evaluate
    tier: Tier
    tables: tuple[Table, ...]
    fails: str
    blocks: bool = False

    @property
    def holds(self) -> str:
        """What must hold, in one sentence."""
        return " ".join((self.evaluate.__doc__ or "").split("\n\n")[0].split())


CHECKS = (
    Check(
        "sequence_gaps", sequence_gaps, "batch", TICK_TABLES, "soft to 9 ids, hard from 10; above 100 it blocks", True
    ),
    Check("dead_letters", dead_letters, "batch", INGESTED, "soft to 1 % of the worst batch, hard above"),
    Check("schema", schema, "batch", INGESTED, "hard for a column that differs, soft for records"),
    Check("lag", lag, "batch", TICK_TABLES, "soft above 60 s, hard above 15 min"),
    Check("freshness", freshness, "batch", TICK_TABLES, "soft above 15 min"),
    Check("duplicate_keys", duplicate_keys, "rows", INGESTED, "hard", True),
    Check("value_rules", value_rules, "day", INGESTED, "hard", True),
    Check("receipts_equal_rows", receipts_equal_rows, "day", INGESTED, "hard", True),
    Check("completeness", completeness, "day", TICK_TABLES, "soft; hard with a hole that blocks"),
    Check("withdrawn_rows", withdrawn_rows, "day", TICK_TABLES, "soft"),
    Check("crossed_quotes", crossed_quotes, "day", (QUOTES,), "soft"),
    Check("outliers", outlying_prices, "day", (TRADES,), "soft"),
    Check("bars_equal_ticks", bars_equal_ticks, "day", BARS, "hard"),
    Check("volume", volume, "day", (BARS_1D,), "soft"),
)
"""Statements of coverage and descriptions of instruments have no sequence, and come when there is something to say."""


def checks_of(table: Table, *tiers: Tier) -> dict[str, Evaluate]:
    """The checks of one table by name, of some tiers or of all."""
    return {c.name: c.evaluate for c in CHECKS if table in c.tables and (not tiers or c.tier in tiers)}


def told_checks(table: Table) -> dict[str, Evaluate]:
    """The checks that each batch is told by, where the rows of its dates are few."""
    return checks_of(table, "batch", "rows")


def check_definitions(table: Table, feeds: tuple[Feed, ...]) -> list[dg.AssetChecksDefinition]:
    """Define the checks of one table apart from its asset, so that people can ask them again for any date."""
    own = feeds_of(TRADES if table in BARS else table, feeds)  # bars come from trades
    return [check_definition(check, table, own) for check in CHECKS if table in check.tables]


def check_definition(check: Check, table: Table, feeds: tuple[Feed, ...]) -> dg.AssetChecksDefinition:
    """Define one check of one table. feeds: those its rows come from."""

    def asked(context: dg.AssetCheckExecutionContext, k2: K2Resource) -> dg.AssetCheckResult:
        settings = k2.settings()
        day = date.fromisoformat(context.partition_key)
        return check.evaluate(Lake(settings.catalog(), settings.warehouse_path()), table, feeds, day)

    description = f"{cleandoc(check.evaluate.__doc__ or '')}\n\nFails {check.fails}."
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", dg.PreviewWarning)  # partitions of checks; the version is pinned for it
        decorate = dg.asset_check(
            asset=asset_key(table), name=check.name, description=description, partitions_def=DAILY, blocking=False
        )
        return decorate(asked)
