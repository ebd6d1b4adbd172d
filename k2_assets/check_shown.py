"""What a check shows of what it found: a bounded sample as a table, and a small chart.

Dagster's UI shows a table's cells as text, whatever they hold. It shows Markdown as markup, with images, links and
addresses that become links, so stored text never goes into Markdown nor into a description. Charts are images of our
own numbers; every number in a check's metadata is also plotted over its evaluations, in the UI's section Plots.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from itertools import islice

import dagster as dg
import numpy as np
import numpy.typing as npt

from k2_core.exchange_dates import local_times
from k2_core.plots import bar_chart, data_uri

SAMPLE_ROWS = 20
"""Rows of a table in a check's metadata: a screenful."""
CELL_CHARACTERS_MAX = 100
"""Longer cells are cut: what is stored may come from anybody."""
_EXACT_IN_BROWSERS = 2**53
"""Larger integers are shown as text: a browser counts in doubles."""
_HOUR_US = 3_600 * 1_000_000
_HOURS = [f"{hour:02}:00" for hour in range(24)]


def severity(*, is_error: bool) -> dg.AssetCheckSeverity:
    """Hard or soft."""
    return dg.AssetCheckSeverity.ERROR if is_error else dg.AssetCheckSeverity.WARN


def sample(rows: Iterable[Mapping[str, object]], columns: Sequence[str]) -> dg.MetadataValue:
    """The first rows as a table; `none` when there are none."""
    records = [dg.TableRecord({name: _cell(row.get(name)) for name in columns}) for row in islice(rows, SAMPLE_ROWS)]
    if not records:
        return dg.MetadataValue.text("none")
    return dg.MetadataValue.table(records, dg.TableSchema([dg.TableColumn(name) for name in columns]))


def _cell(value: object) -> str | int | float | bool:
    if isinstance(value, bool):
        return value
    if isinstance(value, float):  # those of numpy are, too, and Dagster cannot store them
        return float(value)
    if isinstance(value, int) and abs(value) < _EXACT_IN_BROWSERS:
        return value
    return "".join(c if c.isprintable() else " " for c in str(value))[:CELL_CHARACTERS_MAX]


def chart(values: Sequence[float], labels: Sequence[str], marked: Collection[int] = ()) -> dg.MarkdownMetadataValue:
    """A bar chart, marked bars in red. labels: our own words only."""
    return dg.MetadataValue.md(f"![chart]({data_uri(bar_chart(values, labels, marked))})")


def hours(timestamps_us: npt.NDArray[np.int64], timezone: str) -> npt.NDArray[np.int64]:
    """How many instants lie in each hour of the local clock, shape (24,). timestamps_us: UTC, shape (n,)."""
    return np.bincount(local_times(timestamps_us, timezone) // _HOUR_US % 24, minlength=24)


def hours_chart(counts: npt.NDArray[np.int64], marked: Collection[int] = ()) -> dg.MarkdownMetadataValue:
    """Counts of each hour of the day as bars."""
    return chart([int(count) for count in counts], _HOURS, marked)
