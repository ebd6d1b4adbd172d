"""The tail: what the log holds past the newest commit, shown together with the snapshot it continues.

A view names the snapshot it was judged against and holds every record from there on, so the two are paired by name and
not by a clock: no record is missing or there twice, whatever is committed meanwhile. A view is data files like those of
the lake, so one engine reads both, decides the newest revision over both, and renders both.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import tempfile
import time
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import psutil
from cachetools import LRUCache

from k2_api.questions import HEAD, At
from k2_api.reads import Pinned, Reads
from k2_api.tail_loop import Standing, TailLoop
from k2_api.tail_plan import Reason
from k2_api.tail_rows import TailView
from k2_core.contracts import TICK_TABLES, Table
from k2_core.feeds import Feed
from k2_resources.lake.catalog import Lake
from k2_resources.settings import Settings

START_SECONDS_MAX = 20.0
"""An answer waits so long for a tail that has just begun: what the server before this one showed must not vanish."""
OVER_SECONDS_MAX = 2.0
"""An answer waits so long for the tail to go over to a commit that has more than the tail had read."""
STOP_SECONDS_MAX = 3.0
"""A reader that waits for a broker ends within this, as a rule; one that does not ends with the process."""
_POLL_SECONDS = 0.01
_HEADS_KEPT = 4
"""Heads of a table that stay planned: the tail goes over to a new one some tenths of a second after it is there."""
_FOLDER = "tail-"

Source = Literal["lake", "lake+tail"]


@dataclass(frozen=True)
class Paired:
    """A table at one instant: the files of one snapshot, and those of the tail that continues it.

    pinned: reads like any state; its offsets are those of the whole. It is of now: no cursor, no cache may keep it.
    """

    pinned: Pinned
    source: Source
    standing: Standing

    def headers(self) -> dict[str, str]:
        """What the answer says of its state and source. Lags are left out while nobody knows them."""
        found: dict[str, str] = {"K2-Source": self.source, "K2-Version": self.pinned.version, "Vary": "Accept"}
        if self.pinned.snapshot_id is not None:
            found["K2-Snapshot-Id"] = str(self.pinned.snapshot_id)
        if self.standing.reason is not None:
            found["K2-Tail-Reason"] = self.standing.reason.value
        if self.standing.lag_records is not None:
            found["K2-Tail-Lag-Records"] = str(self.standing.lag_records)
        if self.standing.complete_at is not None:
            found["K2-Tail-Lag-Seconds"] = f"{time.monotonic() - self.standing.complete_at:.3f}"
        return found


class Tail:
    """The tails of the tick tables. Safe to share between requests."""

    def __init__(self, settings: Settings, feeds: Iterable[Feed], lake: Lake) -> None:
        self._loops: dict[str, TailLoop] = {}
        self._unions: dict[str, tuple[Pinned, TailView, Pinned]] = {}
        self._heads: LRUCache[tuple[str, int | None], Pinned] = LRUCache(_HEADS_KEPT * len(TICK_TABLES))
        self._folder: Path | None = None
        if settings.tail_records_max:
            self._folder = _scratch_folder(settings.home / "run")
            feeds = tuple(feeds)
            loops = (TailLoop(table, feeds, lake, settings, self._folder) for table in TICK_TABLES)
            self._loops = {loop.table.name: loop for loop in loops}

    def start(self) -> None:
        """Begin to follow the log."""
        for loop in self._loops.values():
            loop.start()

    def close(self) -> None:
        """End, and take the files along."""
        for loop in self._loops.values():
            loop.stop()
        for loop in self._loops.values():
            loop.join(STOP_SECONDS_MAX)
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)

    async def pair(self, reads: Reads, table: Table, source: Source = "lake+tail") -> Paired:
        """The newest state of a table with all that is known past it; the lake alone, and why, where that cannot be."""
        head, loop = await reads.pin(table, HEAD), self._loops.get(table.name)
        self._heads[table.name, head.snapshot_id] = head
        if loop is None or source == "lake":
            return Paired(head, "lake", Standing(Reason.OFF if loop is None else None))
        view = await _view_past(loop, head)
        standing = loop.standing
        if view is not None and (base := await self._base(reads, head, view)) is not None:
            return Paired(self._together(base, view), "lake+tail", standing)
        return Paired(head, "lake", replace(standing, reason=standing.reason or Reason.BEHIND))

    async def _base(self, reads: Reads, head: Pinned, view: TailView) -> Pinned | None:
        """The snapshot a view continues; None where it cannot be read as files of its own any more."""
        if view.snapshot_id is None:  # nothing had been committed
            return replace(head, files=(), below=None)
        known = self._heads.get((head.table.name, view.snapshot_id))
        base = known or await reads.pin(head.table, At(snapshot_id=view.snapshot_id))
        return base if base.below is None else None

    def _together(self, base: Pinned, view: TailView) -> Pinned:
        """Both as one state; made once for all who ask meanwhile, for planning over its files takes a moment."""
        assert base.state is not None, "a table that is not there has no tail"
        known = self._unions.get(base.table.name)
        if known is None or known[0] is not base or known[1] is not view:
            state = replace(base.state, offsets=view.ends)
            whole = replace(base, files=(*base.files, *view.files), state=state, is_fixed=False)
            self._unions[base.table.name] = known = base, view, whole
        return known[2]


async def _view_past(loop: TailLoop, head: Pinned) -> TailView | None:
    """A view that holds all the head holds; None where there is none in time."""
    began = time.monotonic()
    while True:
        view, reason = loop.view, loop.standing.reason
        if view is not None and head.state is not None and view.continues(head.state.table_uuid, head.state.offsets):
            return view
        patience = START_SECONDS_MAX if view is None else OVER_SECONDS_MAX
        hopeless = view is None and reason is not Reason.STARTING
        if hopeless or time.monotonic() > began + patience:
            return None
        await asyncio.sleep(_POLL_SECONDS)


def _scratch_folder(parent: Path) -> Path:
    """A folder of this process; those of processes that were killed go."""
    parent.mkdir(parents=True, exist_ok=True)
    for left in parent.glob(f"{_FOLDER}*"):
        with suppress(ValueError):
            if not psutil.pid_exists(int(left.name.removeprefix(_FOLDER).partition("-")[0])):
                shutil.rmtree(left, ignore_errors=True)
    return Path(tempfile.mkdtemp(prefix=f"{_FOLDER}{os.getpid()}-", dir=parent))
