"""The `k2` command itself: which commands exist, and how a failure is told.

A command's module is imported when the command runs, so `k2 --help` costs no more than click.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
import os
from typing import Any, NamedTuple

import click

from k2_core.errors import K2Error

FAILED = 2
"""Exit code of a K2Error, and of a command line click cannot read."""
_LOOPBACK = "127.0.0.1,localhost"


class Entry(NamedTuple):
    """Where a command is, and its line in the help."""

    target: str
    summary: str


COMMANDS = {
    "up": Entry("k2_cli.stack:up", "Start the whole embedded stack and stay until Ctrl-C."),
    "status": Entry("k2_cli.status:status", "Services with their URLs, lag, last commits, gaps, dead letters."),
    "feed": Entry("k2_cli.feed:feed", "Send captures, files or generated data into Kafka."),
    "backfill": Entry("k2_cli.backfill:backfill", "Fetch past trades from an exchange's REST into Kafka."),
    "ingest": Entry("k2_cli.ingest:ingest", "Run the ingestion jobs in process, without the daemon."),
    "exchange": Entry("k2_cli.exchange:exchange", "A simulated Binance: WebSocket, REST, and faults on demand."),
    "query": Entry("k2_cli.query:query", "Read trades, quotes or bars straight from the lake."),
    "verify": Entry("k2_cli.verify:verify", "Prove from the tables alone that receipts balance."),
    "gaps": Entry("k2_cli.gaps:gaps", "List, show, repair or accept gaps."),
    "days": Entry("k2_cli.days:days", "List, show or close exchange dates: verdicts and certificates."),
    "dead-letters": Entry("k2_cli.dead_letters:dead_letters", "List, show or replay records that were refused."),
    "maintain": Entry("k2_cli.maintain:maintain", "Compact, forget and sweep now, without the daemon."),
    "tags": Entry("k2_cli.tags:tags", "List, create or delete names for states of the tables."),
    "topics": Entry("k2_cli.topics:topics", "List, adopt or resume topics; accept a loss."),
    "demo": Entry("k2_cli.demo:demo", "The guided tour on generated data."),
    "keys": Entry("k2_cli.keys:keys", "Make, list, replace and end keys of the API."),
    "docs": Entry("k2_cli.docs:docs", "Write the generated pages of docs/, or check them."),
    "serve": Entry("k2_cli.serve:serve", "The API alone."),
}
CHILDREN = {
    "_adopt": Entry("k2_cli.ingest:adopt", "What `k2 up` does between broker and daemon."),
    "_broker": Entry("k2_cli.children:broker", "The embedded broker."),
    "_registry": Entry("k2_cli.children:registry", "The embedded schema registry."),
}
"""Processes the stack starts; not for people, so not in the help."""


class Commands(click.Group):
    """A group whose commands are named in a table and imported when they run."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return [name for name, entry in COMMANDS.items() if _exists(entry)]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        entry = {**COMMANDS, **CHILDREN}.get(cmd_name)
        if entry is None or not _exists(entry):
            return None
        module, _, attribute = entry.target.partition(":")
        command = getattr(importlib.import_module(module), attribute)
        assert isinstance(command, click.Command), f"{entry.target} is no command"
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, COMMANDS[name].summary) for name in self.list_commands(ctx)])

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except K2Error as error:
            click.echo(f"{error.code}: {' '.join(str(error).split())}", err=True)
            ctx.exit(FAILED)


def _exists(entry: Entry) -> bool:
    return importlib.util.find_spec(entry.target.partition(":")[0]) is not None


@click.group(cls=Commands)
@click.version_option(importlib.metadata.version("k2-platform"), prog_name="k2")
def main() -> None:
    """K2: market data from Kafka into Iceberg, exactly once, and out of an API that can prove itself."""
    bypass_proxies(os.environ)


def bypass_proxies(environment: Any) -> None:
    """Let clients reach our own listeners, all on loopback, where the environment names an HTTP proxy."""
    for name in ("NO_PROXY", "no_proxy"):
        environment[name] = ",".join(filter(None, (environment.get(name), _LOOPBACK)))


if __name__ == "__main__":
    main(prog_name="k2")
