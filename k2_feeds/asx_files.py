"""The files of one ASX load: found whole, none twice, in an order that does not depend on how they were given."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import partial
from itertools import groupby
from pathlib import Path

from k2_core.errors import BadInput
from k2_core.identity import symbol_problem
from k2_feeds.asx import Kind, Part, moment_of
from k2_feeds.companies import Companies
from k2_feeds.lines import Line, content_digest, read_lines


def plan_load(trades: Iterable[Path], quotes: Iterable[Path], companies: Companies | None) -> tuple[Part, ...]:
    """Order the files of a load by symbol, kind and first moment.

    Raises BadInput, before anything is sent, for a file that cannot be opened, whose company is unknown, or whose
    content was given twice: its rows would look like further genuine fills.
    """
    kinds: tuple[tuple[Kind, Iterable[Path]], ...] = (("trade", trades), ("quote", quotes))
    found = [(_part(path, kind, companies), path) for kind, paths in kinds for path in paths]
    if not found:
        raise BadInput("no file given, expected at least one after --trades or --quotes")
    ordered = sorted(found, key=lambda part_path: _group(part_path[0]))
    return tuple(part for _, own in groupby(ordered, lambda pp: _group(pp[0])) for part in _in_time(list(own)))


def company_of(path: Path) -> str:
    """The company id a file is named by: 7078 of 7078.csv.gz."""
    return Path(path.name.removesuffix(".gz")).stem


def _part(path: Path, kind: Kind, companies: Companies | None) -> Part:
    company = company_of(path)
    symbols = companies.symbols(company) if companies else frozenset({company.upper()})
    if not symbols:
        raise BadInput(f"{path}: the company file does not list {company!r}; the name of a file is its company id")
    problem = next(filter(None, map(symbol_problem, symbols)), None)
    if problem:
        raise BadInput(f"{path}: {problem}; without --company-info the name of a file is its symbol")
    next(read_lines(path), None)
    return Part(str(path), kind, company, symbols, partial(read_lines, path))


def _group(part: Part) -> tuple[list[str], Kind]:
    return sorted(part.symbols), part.kind


def _in_time(found: Sequence[tuple[Part, Path]]) -> list[Part]:
    """Parts of one symbol in the order of their first rows."""
    if len(found) > 1:
        _refuse_twins([path for _, path in found])
    return [part for part, _ in sorted(found, key=lambda part_path: (_first_moment(part_path[0]), part_path[0].name))]


def _refuse_twins(paths: Sequence[Path]) -> None:
    seen: dict[str, Path] = {}
    for path in paths:
        twin = seen.setdefault(content_digest(path), path)
        if twin is not path:
            raise BadInput(f"{path} and {twin} hold the same rows; expected every part of a load once")


def _first_moment(part: Part) -> str:
    """Sorts as the local wall time of the first row that states one; a part without any comes first."""
    moments = (moment_of(line.content) for line in part.lines() if isinstance(line, Line))
    return next((moment.isoformat() for moment in moments if moment), "")
