"""A date's bars brought up to date from what came since, the same as if all of it were computed again."""

from __future__ import annotations

from datetime import datetime

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from k2_core.bars import Basis, day_bounds_us, final
from k2_core.screen import int64s
from k2_core.windows import to_us


def spliced(stored: pa.Table, fresh: pa.Table, since: datetime, basis: Basis) -> pa.Table:
    """Stored minute bars before an instant and fresh ones from it on, all as of the basis. Of one exchange date.

    fresh: of all prints from MAX_CARRY_US before `since`, a whole minute. Nothing older may have changed.
    """
    kept = stored.filter(pc.less(stored["window_start"], since))
    bars = pa.concat_tables([kept, fresh.filter(pc.greater_equal(fresh["window_start"], since))])
    heard = pa.concat_tables([t.select(["exchange", "heard_until"]) for t in (stored, fresh)])
    newest = heard.group_by("exchange").aggregate([("heard_until", "max")])
    bars = bars.take(pc.sort_indices(bars, [(n, "ascending") for n in ("symbol", "exchange", "window_start")]))
    return _restamped(
        bars, dict(zip(newest["exchange"].to_pylist(), newest["heard_until_max"].to_pylist(), strict=True)), basis
    )


def _restamped(bars: pa.Table, heard: dict[str, datetime], basis: Basis) -> pa.Table:
    if not len(bars):
        return bars
    exchanges = bars["exchange"].combine_chunks().dictionary_encode()
    names, codes = exchanges.dictionary.to_pylist(), exchanges.indices.to_numpy()
    heard_us = np.array([to_us(heard[name]) for name in names])[codes]
    day = np.full(len(names), bars["exchange_date"].cast(pa.int32())[0].as_py())
    _, end_us = day_bounds_us(names, day, basis.zones)
    is_final = final(int64s(bars["window_end"]), heard_us, end_us[codes], to_us(basis.commit_time))
    stamps = {
        "is_final": pa.array(is_final),
        "heard_until": pa.array(heard_us),
        "version": pa.repeat(basis.version, len(bars)),
        "sequence_number": pa.repeat(basis.sequence_number, len(bars)),
        "commit_time": pa.repeat(to_us(basis.commit_time), len(bars)),
    }
    columns = [stamps[f.name].cast(f.type) if f.name in stamps else bars[f.name] for f in bars.schema]
    return pa.table(columns, schema=bars.schema)
