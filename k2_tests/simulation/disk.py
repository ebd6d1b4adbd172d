"""A disk with a page cache: what was not synced is gone after a power cut."""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from k2_core.errors import Damaged
from k2_tests.simulation.scheduler import Scheduler
from k2_tests.simulation.weather import Weather


@dataclass
class File:
    """Content is a token, not bytes. owner: who wrote it, for a machine that is lost with its process."""

    content: Any
    owner: str
    synced: bool = False


class Disk:
    """Files by path. No path is used twice."""

    def __init__(self, scheduler: Scheduler, weather: Weather) -> None:
        self.scheduler = scheduler
        self.weather = weather
        self.files: dict[str, File] = {}
        self.gone: Callable[[list[str]], None] = lambda paths: None
        self._number = 0

    def write(self, folder: str, content: Any) -> str:
        """Write a new file durably, and return its path. Raises OSError when the disk is full."""
        self._number += 1
        path = f"{folder}/{self._number}"
        current = self.scheduler.current
        self.scheduler.reach("writing")
        if self.weather.strikes("disk_full"):
            raise OSError(errno.ENOSPC, f"no space left for {path}")
        self.files[path] = File(content, current.run_id if current else "")
        self.scheduler.reach("syncing")
        self.sync(path)
        return path

    def sync(self, path: str) -> None:
        """Make a file and its entry durable."""
        if path in self.files:
            self.files[path].synced = True

    def read(self, path: str) -> Any:
        """The content of a file. Raises Damaged when it is gone."""
        file = self.files.get(path)
        if file is None:
            raise Damaged(f"{path} is gone")
        return file.content

    def delete(self, paths: Iterable[str]) -> None:
        """Delete files one by one; one that is gone already is no error."""
        for path in paths:
            self.scheduler.reach("deleting")
            self.scheduler.tell(f"deletes {path}")
            if self.files.pop(path, None) is not None:
                self.gone([path])

    def lose(self, owner: str | None = None) -> int:
        """Lose what was never synced, of one owner or of all; returns how many files that were."""
        lost = [path for path, file in self.files.items() if not file.synced and (owner is None or file.owner == owner)]
        for path in lost:
            del self.files[path]
        self.gone(lost)
        return len(lost)
