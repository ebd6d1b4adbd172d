"""`k2 dead-letters`: the records no table could take, with their bytes, and the way back into their topic."""

from __future__ import annotations

import base64
import json
import sys
from collections import Counter
from collections.abc import Sequence
from getpass import getuser
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from k2_core.errors import BadInput, NotFound
from k2_core.letters import Standing

if TYPE_CHECKING:
    from k2_assets.letters import Choice, Letter
    from k2_core.letters import Delivery
    from k2_feeds.replay import Original
    from k2_resources.lake.catalog import Lake
    from k2_resources.settings import Settings

_HEX_ROW_BYTES = 16
_KAFKA_SECONDS_MAX = 3.0
"""Somebody waits for a list; a broker that is up answers in milliseconds."""


def _home(command: Any) -> Any:
    return click.option("--home", type=click.Path(path_type=Path, file_okay=False), default=None, help="K2_HOME.")(
        command
    )


def _choice(command: Any) -> Any:
    """Which letters are meant."""
    for option in (
        click.option("--reason", default=None, help="Only letters that died of this, e.g. unknown_schema."),
        click.option("--topic", "of_topic", default=None, help="Only letters of this topic."),
        click.option("--table", default=None, help="Only letters meant for this table, e.g. trades."),
    ):
        command = option(command)
    return command


@click.group("dead-letters")
def dead_letters() -> None:
    """List, show or replay records that could not become rows. Their bytes are kept; a replay sends them again."""


@dead_letters.command("list")
@_choice
@click.option(
    "--status", type=click.Choice([s.value for s in Standing]), default=None, help="Only letters that stand so."
)
@click.option("--limit", type=click.IntRange(min=1), default=50, show_default=True, help="The newest so many.")
@click.option("--json", "as_json", is_flag=True, help="One JSON document instead of a table.")
@_home
def list_letters(
    *,
    table: str | None,
    of_topic: str | None,
    reason: str | None,
    status: str | None,
    limit: int,
    as_json: bool,
    home: Path | None,
) -> None:
    """Show letters with their reason and how they stand: open, pending, resolved or dead again."""
    settings = _settings(home)
    choice = _chosen(table, of_topic, reason, Standing(status) if status else None)
    chosen = choice.of(_letters(settings))
    counts = Counter(letter.standing.value for letter in chosen)
    shown = chosen[-limit:]
    if as_json:
        document = {"total": len(chosen), "by_status": dict(counts), "letters": [_document(letter) for letter in shown]}
        click.echo(json.dumps(document, indent=2))
        return
    _show(shown)
    told = ", ".join(f"{count:,} {name}" for name, count in sorted(counts.items()))
    newest = f", the newest {len(shown):,} shown" if len(shown) < len(chosen) else ""
    click.echo(f"{len(chosen):,} dead letters{': ' + told if told else ''}{newest}")


@dead_letters.command()
@click.argument("topic")
@click.argument("partition", type=int)
@click.argument("offset", type=int)
@click.option("--epoch", type=int, default=None, help="Incarnation of the topic; the newest that has such a letter.")
@click.option("--json", "as_json", is_flag=True, help="One JSON document; bytes as base64.")
@_home
def show(*, topic: str, partition: int, offset: int, epoch: int | None, as_json: bool, home: Path | None) -> None:
    """Show one letter whole: why it died, key, headers, bytes, what they say when read, and its replays."""
    from k2_assets.letters import originals

    settings = _settings(home)
    letter = _letter(_letters(settings), topic, partition, offset, epoch)
    original = next(originals(_lake(settings), [letter.place]))
    document = {**_document(letter), **_content(settings, original)}
    if as_json:
        click.echo(json.dumps(document, indent=2, default=str))
        return
    for name, value in document.items():
        if name != "value":
            click.echo(f"{name:<10} {value if isinstance(value, str) else json.dumps(value, default=str)}")
    click.echo(_hex(original.value))


@dead_letters.command()
@click.argument("place", nargs=-1)
@click.option("--epoch", type=int, default=None, help="Incarnation of the topic; the newest that has such a letter.")
@_choice
@click.option("--all", "everything", is_flag=True, help="Every open letter.")
@click.option("--again", is_flag=True, help="Also letters that were sent again before and are pending or resolved.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@_home
def replay(
    *,
    place: tuple[str, ...],
    epoch: int | None,
    table: str | None,
    of_topic: str | None,
    reason: str | None,
    everything: bool,
    again: bool,
    yes: bool,
    home: Path | None,
) -> None:
    """Send letters to their topic again: one by TOPIC PARTITION OFFSET, or all open ones of a reason, topic or table.

    The same bytes, key and headers, and a header k2.replay that says where they died. Send them once what killed them
    is mended; natural keys make a record that is delivered twice one row.
    """
    from k2_assets import letters as dead
    from k2_assets.engine import open_engine

    choice = _chosen(table, of_topic, reason, None)
    if bool(place) == (everything or choice != dead.Choice()):
        raise BadInput("say which letters: TOPIC PARTITION OFFSET, or --reason, --topic or --table, or --all")
    with open_engine(_settings(home)) as engine:
        letters = dead.read_letters(engine.lake, dead.unread_deliveries(engine))
        if place:
            wanted = [_one(letters, place, epoch, again=again)]
        else:
            wanted = [letter for letter in choice.of(letters) if again or letter.standing is Standing.OPEN]
        if not wanted:
            click.echo("nothing to do: no open letter is meant")
            return
        for (topic, why), count in sorted(Counter((letter.place.topic, letter.reason) for letter in wanted).items()):
            click.echo(f"{topic}: {count:,} letters that died of {why}")
        if not yes and not place:
            click.confirm(f"send {len(wanted):,} letters again?", abort=True)
        deliveries = dead.replay(engine, wanted, getuser())
    _say(deliveries)


def _say(deliveries: Sequence[Delivery]) -> None:
    if len(deliveries) == 1:
        click.echo(f"{deliveries[0].letter} was delivered as {deliveries[0].delivered}")
    click.echo(f"{len(deliveries):,} letters sent again; `k2 dead-letters list` says what becomes of them")


def _one(letters: Sequence[Letter], place: Sequence[str], epoch: int | None, *, again: bool) -> Letter:
    """The letter at a place. Raises BadInput when it was sent again already and nobody said --again."""
    if len(place) != 3 or not (place[1].isdigit() and place[2].isdigit()):
        raise BadInput(f"{' '.join(place)}: expected TOPIC PARTITION OFFSET")
    letter = _letter(letters, place[0], int(place[1]), int(place[2]), epoch)
    if letter.standing in (Standing.PENDING, Standing.RESOLVED) and not again:
        where = ", ".join(map(str, letter.delivered))
        raise BadInput(
            f"{letter.place} is {letter.standing}: it was delivered as {where}. Say --again to send it again"
        )
    return letter


def _letter(letters: Sequence[Letter], topic: str, partition: int, offset: int, epoch: int | None) -> Letter:
    found = [
        letter
        for letter in letters
        if (letter.place.topic, letter.place.kafka_partition, letter.place.offset) == (topic, partition, offset)
        and epoch in (None, letter.place.epoch)
    ]
    if not found:
        raise NotFound(f"no dead letter at {topic}[{partition}] offset {offset}; see `k2 dead-letters list`")
    return max(found, key=lambda letter: letter.place)


def _chosen(table: str | None, topic: str | None, reason: str | None, standing: Standing | None) -> Choice:
    """Raises NotFound for a table there is not."""
    from k2_assets.letters import Choice
    from k2_core.contracts import INGESTED, table_named

    try:
        name = table_named(table).name if table else None
    except KeyError:
        known = ", ".join(t.short_name for t in INGESTED)
        raise NotFound(f"no table {table!r}; there are {known}") from None
    return Choice(name, topic, reason, standing)


def _letters(settings: Settings) -> list[Letter]:
    """Every letter. Without a broker, replays that no run has ingested yet are not known; then a line says so."""
    from k2_assets.engine import open_engine
    from k2_assets.letters import read_letters, unread_deliveries
    from k2_core.errors import K2Error

    lake, unread = _lake(settings), []
    try:
        with open_engine(settings.model_copy(update={"kafka_timeout_seconds": _KAFKA_SECONDS_MAX})) as engine:
            unread = unread_deliveries(engine)
    except K2Error as error:
        click.echo(f"replays not ingested yet are not known: {error.code}: {error}", err=True)
    return read_letters(lake, unread)


def _lake(settings: Settings) -> Lake:
    """The lake of a home. Raises NotFound where nothing was ever ingested."""
    from k2_resources.lake.catalog import Lake

    if settings.catalog_uri is None and not (settings.home / "catalog.db").exists():
        raise NotFound(f"no catalog in {settings.home}: nothing was ever ingested there")
    return Lake(settings.catalog(), settings.warehouse_path())


def _settings(home: Path | None) -> Settings:
    from k2_resources import telemetry
    from k2_resources.settings import Settings

    telemetry.configure("dead-letters")
    return Settings(home=home) if home else Settings()


def _content(settings: Settings, original: Original) -> dict[str, Any]:
    """The bytes of a letter and what they say. The registry may be away: then only they are shown."""
    from contextlib import closing

    from k2_assets.letters import decoded
    from k2_core.errors import K2Error
    from k2_resources.registry import Registry
    from k2_resources.settings import load_feeds

    try:
        with closing(Registry(settings.registry())) as registry:
            says = decoded(registry, load_feeds(settings), original)
    except K2Error as error:
        says = f"{error.code}: {error}"
    return {
        "key": _text(original.key),
        "headers": [[name, _text(value)] for name, value in original.headers],
        "value": None if original.value is None else base64.b64encode(original.value).decode(),
        "says": says,
    }


def _text(value: bytes | None) -> str | None:
    """Bytes for people: text where they are that, else hexadecimal."""
    if value is None:
        return None
    try:
        return value.decode()
    except UnicodeDecodeError:
        return value.hex(" ")


def _hex(value: bytes | None) -> str:
    """Offset, hexadecimal and letters, sixteen bytes a line."""
    if value is None:
        return "no value: a tombstone"
    rows = (value[i : i + _HEX_ROW_BYTES] for i in range(0, len(value), _HEX_ROW_BYTES))
    return "\n".join(
        f"{i * _HEX_ROW_BYTES:08x}  {row.hex(' '):<47}  {''.join(chr(b) if 32 <= b < 127 else '.' for b in row)}"
        for i, row in enumerate(rows)
    )


def _document(letter: Letter) -> dict[str, Any]:
    at = letter.place
    return {
        "topic": at.topic,
        "partition": at.kafka_partition,
        "offset": at.offset,
        "epoch": at.epoch,
        "table": letter.table,
        "reason": letter.reason,
        "detail": letter.detail,
        "schema_id": letter.schema_id,
        "status": letter.standing.value,
        "delivered": [str(place) for place in letter.delivered],
    }


def _show(letters: Sequence[Letter]) -> None:
    from k2_cli.tables import show_table

    columns = ("topic", "partition", "offset", "epoch", "reason", "status", "detail")
    rows = [tuple(str(_document(letter)[name]) for name in columns) for letter in letters]
    # without a frame the names of the columns are a row of their own
    show_table(columns, rows if sys.stdout.isatty() or not rows else [columns, *rows])
