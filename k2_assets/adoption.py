"""Going on with an embedded broker that is another one now: it keeps its log in memory only, so this is no surprise."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from k2_assets.engine import Engine
from k2_core.contracts import Table
from k2_core.protocol.planning import registered
from k2_resources.embedded_broker import watermarks_file

WHO = "k2 up"


@dataclass(frozen=True)
class Adopted:
    """Topics of one table that go on in a new epoch, and what the broker before them took along."""

    table: str
    topics: tuple[str, ...]
    why: str


def register_and_adopt(engine: Engine, table: Table, run_id: str) -> Adopted | None:
    """Register topics never read, and adopt those of an embedded broker that was started anew.

    The loss goes into the receipt: it is a fact about the table, not a line in a log. None when nothing changed.
    """
    engine.register(table, run_id)
    if not engine.settings.is_embedded:
        return None
    changed = _changed(engine, table)
    if not changed:
        return None
    why = f"the embedded broker was started anew; {loss(engine, table, changed)}"
    engine.adopt(table, sorted(changed), run_id=run_id, who=WHO, why=why)
    return Adopted(table.name, tuple(sorted(changed)), why)


def loss(engine: Engine, table: Table, topics: Mapping[str, str]) -> str:
    """Say what was acknowledged and never ingested. topics: topic -> the incarnation whose offsets are stored."""
    at = engine.lake.head(table)
    unknown, said = [], []
    for topic, incarnation in sorted(topics.items()):
        recorded = _recorded(engine.settings.home, incarnation)
        if recorded is None:
            unknown.append(topic)
            continue
        stored = at.offsets.of_topic(topic)
        high = {int(p): int(offset) for p, offset in recorded["high"].get(topic, {}).items()}
        lost = {p: end - (stored[p].next if p in stored else 0) for p, end in high.items()}
        said += [
            f"{topic}[{p}]: at least {n} records up to offset {high[p]} are lost"
            for p, n in sorted(lost.items())
            if n > 0
        ]
    if unknown:
        said.append(f"how much was lost of {', '.join(unknown)} is not known")
    return f"{'; '.join(said)}. Send them again" if said else "nothing acknowledged a second before its end is lost"


def _changed(engine: Engine, table: Table) -> dict[str, str]:
    """Topics that are others now -> the incarnation they had."""
    at = engine.lake.head(table)
    found = {}
    for topic, incarnation in engine.kafka.incarnation(engine.topics(table)).items():
        known = registered(at, topic)
        if known is not None and known.incarnation != incarnation:
            found[topic] = known.incarnation.cluster_id
    return found


def _recorded(home: Path, incarnation: str) -> dict[str, Any] | None:
    """Watermarks a broker of that incarnation wrote last; None when a later one has overwritten them."""
    current = watermarks_file(home)
    for file in sorted(current.parent.glob(f"{current.stem}*.json")):
        try:
            content: dict[str, Any] = json.loads(file.read_text())
        except (OSError, ValueError):
            continue
        if content.get("incarnation") == incarnation:
            return content
    return None
