"""The partitions of every table: exchange-local trading dates, the same as the partitions in Iceberg."""

from datetime import date

import dagster as dg

from k2_core.exchange_dates import DAYS_AHEAD_MAX, FIRST_DATE

DAILY = dg.DailyPartitionsDefinition(start_date=FIRST_DATE.isoformat(), end_offset=DAYS_AHEAD_MAX + 1, timezone="UTC")
"""Dagster counts up to yesterday; the offset adds today and the day ahead of it that Sydney is in."""


def is_partition(day: date) -> bool:
    """Whether a date may be reported: an event with any other text as its partition would be stored all the same."""
    return DAILY.has_partition_key(day.isoformat())
