"""Dumps as the exchange publishes them, and as it never should: archives written from few words."""

from __future__ import annotations

import hashlib
import zipfile
from collections.abc import Iterable
from datetime import UTC, date, datetime
from pathlib import Path

from k2_feeds.archives import CHECKSUM_SUFFIX

HEADER = "id,price,qty,quote_qty,time,is_buyer_maker,is_best_match"


def at(day: date, seconds: float = 0, *, unit: str = "us") -> int:
    """An instant of a UTC date in the unit of a dump."""
    us = int(datetime(day.year, day.month, day.day, tzinfo=UTC).timestamp()) * 1_000_000 + round(seconds * 1_000_000)
    return us if unit == "us" else us // 1_000


def line(
    number: int,
    time: int,
    *,
    price: str = "100.50000000",
    quantity: str = "0.20000000",
    quote: str = "20.10000000",
    maker: str = "True",
    best: str = "True",
) -> str:
    """One row of a dump."""
    return f"{number},{price},{quantity},{quote},{time},{maker},{best}"


def lines(first: int, count: int, day: date, *, unit: str = "us", **changes: str) -> list[str]:
    """Rows of consecutive ids, a second and 1.25 ms apart."""
    return [line(first + i, at(day, i * 1.00125, unit=unit), **changes) for i in range(count)]


def write_dump(folder: Path, name: str, rows: Iterable[str] | bytes, *, checksum: bool = True) -> Path:
    """Write an archive of one entry named like it, and its checksum. name: BTCUSDT-trades-2025-01-01."""
    content = rows if isinstance(rows, bytes) else "".join(f"{row}\n" for row in rows).encode()
    return write_zip(folder / f"{name}.zip", {f"{name}.csv": content}, checksum=checksum)


def write_zip(
    path: Path, entries: dict[str, bytes], *, checksum: bool = True, method: int = zipfile.ZIP_DEFLATED
) -> Path:
    """Write an archive with the entries given."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, content in entries.items():
            archive.writestr(name, content)
    return state_checksum(path) if checksum else path


def state_checksum(path: Path) -> Path:
    """State the SHA-256 an archive has now."""
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    path.with_name(path.name + CHECKSUM_SUFFIX).write_text(f"{digest}  {path.name}\n")
    return path
