"""`k2 demo`: start the stack, walk the tour, say whether every number agrees."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from k2_cli.tour import Figure
    from k2_resources.settings import Settings

DISAGREES = 1
STOP_SECONDS_MAX = 300.0
"""Longest patience with a stack that drains."""


@click.command()
@click.option("--once", is_flag=True, help="Stop the stack after the tour.")
@click.option("--home", type=click.Path(path_type=Path, file_okay=False), default=None, help="K2_HOME.")
@click.option("--seed", type=int, default=1, show_default=True, help="Same seed, same market.")
@click.option("--rows", type=click.IntRange(50), default=2_000, show_default=True, help="Trades a symbol and day.")
@click.pass_context
def demo(ctx: click.Context, once: bool, home: Path | None, seed: int, rows: int) -> None:
    """Start everything, ingest two generated trading days, show what came of it; exit 0 when every number agrees."""
    from k2_cli.tour import FAULTS, Tour
    from k2_feeds.simulator import Simulation
    from k2_resources.settings import Settings

    settings = Settings(home=home) if home else Settings()
    settings = settings.model_copy(update={"home": settings.home.resolve()})
    with _running_stack(settings) as stack:
        figures = Tour(settings, Simulation(seed=seed, rows_per_day=rows, faults=FAULTS)).walk()
        wrong = _judge(figures)
        if not once:
            _stay(settings, stack)
    ctx.exit(DISAGREES if wrong else 0)


def _judge(figures: Sequence[Figure]) -> list[Figure]:
    wrong = [figure for figure in figures if not figure.agrees]
    click.secho(f"\n{len(figures) - len(wrong)} of {len(figures)} numbers agree", bold=True)
    for figure in wrong:
        click.secho(f"  {figure.name}: expected {figure.expected}, found {figure.found}", fg="red")
    return wrong


def _stay(settings: Settings, stack: subprocess.Popen[str]) -> None:
    endpoints = settings.endpoints()
    click.secho("\nLook around", bold=True)
    click.echo(f"  Dagster UI  {endpoints['dagster']}")
    click.echo(f"  API docs    {endpoints['api']}/docs")
    click.echo(f"  metrics     {endpoints['metrics']}")
    click.echo(f"  API key     {settings.api_key_file}")
    click.echo("Ctrl-C stops everything.")
    with suppress(KeyboardInterrupt):
        stack.wait()


@contextmanager
def _running_stack(settings: Settings) -> Iterator[subprocess.Popen[str]]:
    """`k2 up` as a child, ready when it says so, stopped in order whatever happens.

    It has a session of its own: Ctrl-C at the terminal reaches the tour alone, which asks the stack once to end, and
    once more for each further Ctrl-C. Should the tour be killed, the stack ends with it.
    """
    click.echo("Starting the embedded stack (broker, registry, Dagster, API) ...")
    up = (sys.executable, "-m", "k2_cli.main", "up", "--home", str(settings.home))
    tied = (sys.executable, "-m", "k2_resources.tether", "exec", str(os.getpid()), *up)
    stack = subprocess.Popen(tied, stdout=subprocess.PIPE, text=True, start_new_session=True)
    try:
        _await_ready(stack)
        yield stack
    finally:
        _stop(stack)


def _stop(stack: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + STOP_SECONDS_MAX
    while stack.poll() is None and time.monotonic() < deadline:
        stack.terminate()
        with suppress(KeyboardInterrupt, subprocess.TimeoutExpired):
            stack.wait(deadline - time.monotonic())
    assert stack.stdout is not None
    stack.stdout.close()


def _await_ready(stack: subprocess.Popen[str]) -> None:
    assert stack.stdout is not None
    for line in stack.stdout:
        click.echo(f"  {line.rstrip()}")
        if line.strip() == "K2 is up":
            threading.Thread(target=_echo, args=(stack,), daemon=True).start()
            return
    raise SystemExit(stack.wait() or 1)


def _echo(stack: subprocess.Popen[str]) -> None:
    """Pass on what the stack says while it runs and stops; an unread pipe would block it."""
    with suppress(ValueError):  # closed under us at the end
        for line in stack.stdout or ():
            click.echo(f"  {line.rstrip()}")
