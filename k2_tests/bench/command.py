"""What every bench is as a command: its sizes as options, a table of Markdown on the terminal, JSON for a file."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any


def bench(
    description: str | None,
    run: Callable[..., Mapping[str, Any]],
    table: Callable[[Any], str],
    **sizes: int,
) -> None:
    """Run a bench as the command line says. sizes: the parameters of `run` that are options, with their defaults."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in sizes.items():
        parser.add_argument(f"--{name.replace('_', '-')}", type=int, default=default)
    parser.add_argument("--json", type=Path, metavar="FILE", help="Where the figures go, beside the terminal.")
    asked = vars(parser.parse_args())
    file = asked.pop("json")
    result = run(**asked)
    print(table(result))
    if file:
        file.write_text(json.dumps(result, indent=2))
