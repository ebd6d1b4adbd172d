"""`k2 topics`: where the tables stand in their topics, and the ways past a halt. Each way is a fenced commit that says
who went it, why, and over which offsets; see docs/RUNBOOK.md."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterable
from dataclasses import asdict
from getpass import getuser
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from k2_assets.engine import Engine
    from k2_core.contracts import Table
    from k2_core.receipts import Committed
    from k2_core.standing import TopicStanding

HOME = click.option("--home", type=click.Path(path_type=Path, file_okay=False), default=None, help="K2_HOME.")
Decree = Callable[["Engine", "Table"], "Committed | None"]


def _common(command: Any) -> Any:
    """What every way past a halt must say."""
    for option in (
        HOME,
        click.option("--yes", is_flag=True, help="Do not ask."),
        click.option("--why", required=True, help="Your reason; it stays in the receipt for ever."),
        click.option("--who", default=getuser, show_default="the user of this shell", help="Who decides."),
        click.argument("topic"),
    ):
        command = option(command)
    return command


@click.group()
def topics() -> None:
    """List topics, and go past what halts them. A decision is one fenced commit: who, why, and the offsets jumped."""


@topics.command("list")
@click.option("--json", "as_json", is_flag=True, help="One JSON document instead of a table.")
@HOME
def list_topics(as_json: bool, home: Path | None) -> None:
    """Show per Kafka partition the next offset, the bounds of the log, the lag, and why it stands if it does."""
    from k2_assets.status import engine_standings

    with _engine(home) as engine:
        standings = engine_standings(engine)
    if as_json:
        click.echo(json.dumps([_document(standing) for standing in standings], indent=2))
        return
    _show(standings)
    _say_halts(standings)


@topics.command()
@_common
def adopt(topic: str, who: str, why: str, yes: bool, home: Path | None) -> None:
    """Go on with a topic that was made anew, or cut below what was read: a new epoch, from its low watermarks. What the
    old one held and was not ingested is given up; what is read again is a counted duplicate."""

    def jumps(engine: Engine, standing: TopicStanding) -> list[str]:
        from k2_assets.adoption import loss

        if standing.known is None or standing.found is None:
            return []
        epoch = standing.known.epoch
        if standing.found != standing.known.incarnation:
            gone = loss(engine, _table(standing), {topic: standing.known.incarnation.cluster_id})
        elif standing.cut:
            gone = "; ".join(f"[{p.kafka_partition}] ends at {p.high:,}, {p.next:,} was read" for p in standing.cut)
        else:
            return []
        return [
            f"[{p.kafka_partition}]: epoch {epoch} offset {p.next or 0:,} -> epoch {epoch + 1} offset {p.low or 0:,}"
            for p in standing.partitions
        ] + [f"of the topic that was: {gone}"]

    def decree(engine: Engine, table: Table) -> Committed | None:
        return engine.adopt(table, [topic], run_id=_run(), who=who, why=why)

    _decide(home, topic, "adopt", jumps, decree, yes=yes)


@topics.command("accept-loss")
@_common
def accept_loss(topic: str, who: str, why: str, yes: bool, home: Path | None) -> None:
    """Go on past records the log no longer holds: every Kafka partition that lost some jumps to its low watermark."""

    def jumps(_engine: Engine, standing: TopicStanding) -> list[str]:
        if standing.halt is not None:  # what is gone of another topic is not this one's loss
            return []
        lost = [(p, p.next, p.low) for p in standing.partitions if p.next is not None and p.low is not None]
        return [
            f"[{p.kafka_partition}]: [{start:,}, {low:,}): {low - start:,} records are gone"
            for p, start, low in lost
            if low > start
        ]

    def decree(engine: Engine, table: Table) -> Committed | None:
        return engine.accept_loss(table, topic, run_id=_run(), who=who, why=why)

    _decide(home, topic, "accept a loss of", jumps, decree, yes=yes)


@topics.command()
@click.option("--partition", "partitions", type=int, multiple=True, help="Only this Kafka partition; may be repeated.")
@_common
def resume(*, topic: str, partitions: tuple[int, ...], who: str, why: str, yes: bool, home: Path | None) -> None:
    """Read Kafka partitions again that a storm of dead letters has paused."""

    def jumps(_engine: Engine, standing: TopicStanding) -> list[str]:
        asked = {p: reason for p, reason in standing.paused.items() if not partitions or p in partitions}
        waiting = {p.kafka_partition: p.lag for p in standing.partitions}
        return [
            f"[{p}]: {'?' if waiting[p] is None else f'{waiting[p]:,}'} records wait; paused because {reason}"
            for p, reason in sorted(asked.items())
        ]

    def decree(engine: Engine, table: Table) -> Committed | None:
        return engine.resume(table, topic, partitions or None, run_id=_run(), who=who, why=why)

    _decide(home, topic, "resume", jumps, decree, yes=yes)


def _decide(
    home: Path | None,
    topic: str,
    verb: str,
    jumps: Callable[[Engine, TopicStanding], list[str]],
    decree: Decree,
    *,
    yes: bool,
) -> None:
    """Show what would be jumped over, ask, commit to every table of the topic; or say that there is nothing to do."""
    with _engine(home) as engine:
        standings = _standings(engine, topic)
        at_stake = {_table(s): found for s in standings if (found := jumps(engine, s))}
        if not at_stake:
            click.echo(f"{topic}: nothing to do")
            _say_halts(standings)
            return
        for table, lines in at_stake.items():
            for line in lines:
                click.echo(f"{table.name}: {topic} {line}")
        if not yes:
            click.confirm(f"{verb} {topic}?", abort=True)
        for table in at_stake:
            committed = decree(engine, table)
            click.echo(f"{table.name}: {'nothing to do' if committed is None else _receipt(committed)}")


def _say_halts(standings: Iterable[TopicStanding]) -> None:
    for standing in standings:
        for halt in dict.fromkeys(standing.halts):
            click.echo(f"{standing.table}: {halt.code}: {halt.message}", err=True)


def _receipt(committed: Committed) -> str:
    receipt = committed.receipt
    ranges = ", ".join(
        f"[{r.kafka_partition}] epoch {r.kafka_epoch} [{r.start:,}, {r.end:,})" for r in receipt.ranges if r.end > 0
    )
    return f"{receipt.kind} by {receipt.who}: {ranges or 'no offset moved'}; receipt {committed.path}"


def _engine(home: Path | None) -> Engine:
    from k2_assets.engine import open_engine
    from k2_resources import telemetry
    from k2_resources.settings import Settings

    telemetry.configure("topics")
    return open_engine(Settings(home=home) if home else Settings())


def _standings(engine: Engine, topic: str) -> list[TopicStanding]:
    """How the tables stand in one topic. Raises NotFound for a topic of no feed."""
    from k2_assets.status import engine_standings
    from k2_core.errors import NotFound

    found = [standing for standing in engine_standings(engine) if standing.topic == topic]
    if not found:
        known = ", ".join(feed.topic for feed in engine.feeds)
        raise NotFound(f"no feed in feeds.yaml reads {topic}; there are {known}")
    return found


def _table(standing: TopicStanding) -> Table:
    from k2_core.contracts import table_named

    return table_named(standing.table)


def _run() -> str:
    return f"topics-{os.getpid()}"


def _document(standing: TopicStanding) -> dict[str, Any]:
    """For JSON: the partitions each with their own halt, the topic with its."""
    return {
        "table": standing.table,
        "topic": standing.topic,
        "epoch": standing.known.epoch if standing.known else None,
        "registered": asdict(standing.known.incarnation) if standing.known else None,
        "found": asdict(standing.found) if standing.found else None,
        "lag": standing.lag,
        "halt": asdict(standing.halt) if standing.halt else None,
        "partitions": [asdict(partition) for partition in standing.partitions],
    }


def _show(standings: Iterable[TopicStanding]) -> None:
    from k2_cli.tables import show_table

    columns = ("table", "topic", "epoch", "partition", "next", "low", "high", "lag", "stands")
    rows = [
        (
            s.table,
            s.topic,
            _cell(s.known.epoch if s.known else None),
            str(p.kafka_partition),
            *(_cell(number) for number in (p.next, p.low, p.high, p.lag)),
            _why(s, p.paused, p.halt.code if p.halt else None),
        )
        for s in standings
        for p in s.partitions
    ] + [(s.table, s.topic, *["-"] * 6, "no such topic") for s in standings if s.found is None and not s.partitions]
    # without a frame the names of the columns are a row of their own
    show_table(columns, rows if sys.stdout.isatty() else [columns, *rows])


def _why(standing: TopicStanding, paused: str | None, halt: str | None) -> str:
    if standing.found is None:
        return "no such topic"
    if standing.halt is not None:
        return standing.halt.code
    return halt or (f"paused: {paused}" if paused else "")


def _cell(number: int | None) -> str:
    return "-" if number is None else f"{number:,}"
