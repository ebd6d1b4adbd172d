"""docs/CHECKS.md: every check in one table. Generated, so that it cannot disagree with what Dagster is given."""

from k2_assets.checks import CHECKS, Check

_HEAD = """# The checks of K2

Generated from `k2_assets/checks.py` by `k2 docs`; edit the checks, not this page.

Every check is of one table and one exchange date, and is a function of the tables alone: an ingest run reports it, and
anybody can ask it again in the Dagster UI (asset, Checks, Execute), also of an old date and while no broker runs.

- **soft** is a warning: something to look at. **hard** is an error: something is wrong with what is stored, or missing.
- None of them stops ingestion: the rows are there, and a repair comes through the same topic. A check that **blocks**
  keeps `day_close_<exchange>` from publishing the date: evaluated afresh in that run, whatever was reported before.
- **each batch**: at the end of every ingest run, for the dates it touched, from receipts and the gap ledger.
  **each batch, few rows**: likewise, where those dates are at most ten and hold at most a million rows together.
  **over**: likewise, once a date has ended on the clock of every feed; and at 02:30 UTC for the day before. Those of
  bars: at 02:30 UTC, and with a backfill of bars that is launched in the UI.
"""

_FOOT = """
## What each one shows

Its numbers are plotted over its evaluations in the section Plots of the check's page. `sample`, or the name of what is
listed, is a table of the first twenty offending rows; its cells are text, whatever a feed may have sent. Of a day's
findings there is a chart by the hour of the exchange's own clock: [Show Markdown] opens it.

## Methods

- **outliers**: per symbol, in total order, over the prints that the update rules let set a high. Every ten prints are
  measured by the fifty around them: a print is an outlier when it is further from their median than ten times their
  median absolute deviation plus a floor. The floor is half a percent of the median, or ten of the smallest steps
  between the day's prices if that is more, and five percent at most. Below twenty prints nothing is said. On the ASX
  sample it tells none of the 91,498 eligible BHP prints and 31 of the 133 that the vendor leaves out (strike prices
  before the open, reports from outside the book).
- **volume**: a day against the twenty with rows before it (four at least), in logarithms: unusual is further from
  their median than five robust standard deviations (1.4826 x median absolute deviation), and at least a factor of four.
- **crossed_quotes**: the last state of each instant, by the total order, in continuous trading alone: venues update one
  side after the other. A locked book is counted and fails nobody.
- **completeness**: the verdicts a day close would publish now; see `audit.days` in DATA.md. What nobody can verify is
  `not_verifiable`, never complete, and fails nobody.
- **freshness**: only of a feed whose exchange date is open and whose exchange is in continuous trading at that moment,
  counted from when that began.
- **lag**: from the feed's receipt of a row to the commit of its batch, of the open date alone: files and captures say
  nothing about now.
"""

_TIERS = {"batch": "each batch", "rows": "each batch, few rows", "day": "over"}


def checks_page() -> str:
    """Render docs/CHECKS.md."""
    head = ["| check | of | asked | fails | blocks | what must hold |", "|---|---|---|---|---|---|"]
    return "\n".join([_HEAD, *head, *map(_line, CHECKS), _FOOT])


def _line(check: Check) -> str:
    tables = ", ".join(f"`{table.short_name}`" for table in check.tables)
    blocks = "yes" if check.blocks else ""
    return f"| `{check.name}` | {tables} | {_TIERS[check.tier]} | {check.fails} | {blocks} | {check.holds} |"
