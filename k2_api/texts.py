"""One SQL text out of the steps of k2_core/sql, as short as the question allows.

Half of the time of a read of 1,000 rows is planning, and a plan costs by the steps and conditions it begins with: so a
step that is used once stands where it is used, and a condition on something nobody asked about is left out.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache
from importlib.resources import files
from typing import Any

from k2_resources.duck import Statement

_TEXTS_MAX = 512
"""Statements kept: every way in which questions differ, apart from their values."""
_PARAMETER = re.compile(r"\$([a-z_]+)")
_COMMENT = re.compile(r"^--.*\n", re.MULTILINE)
_CONDITION = re.compile(r"^ +AND \(\$([a-z_]+) IS NULL OR .*\n?(?:^ {8,}.*\n?)*", re.MULTILINE)
"""A condition that holds where its parameter is null: a line of its own, and those that go on deeper."""

_WHOLE = re.compile(r"SELECT \*\nFROM (read_parquet\([^()]*\))\n")
"""A step that shows all of some files: the files stand for it."""


@lru_cache(_TEXTS_MAX)
def composed(body: str, **steps: str) -> Statement:
    """A statement of k2_core/sql over named steps: `rows="newest_rows"` puts newest_rows.sql where it says `FROM rows`.

    A step may use those before it.
    """
    text = _text(body)
    shared: list[tuple[str, str]] = []
    for name, file in reversed(steps.items()):
        used = re.compile(rf"\b(FROM|JOIN) {name}\b(?: AS ([a-z_]+))?")
        everywhere = "".join([text, *(step for _, step in shared)])
        if len(used.findall(everywhere)) > 1:
            shared.append((name, _text(file)))
            continue
        step = _text(file)
        text = _inlined(used, text, name, step)
        shared = [(other, _inlined(used, of_other, name, step)) for other, of_other in shared]
    before = ",\n".join(f"{name} AS (\n{step})" for name, step in reversed(shared))
    if before and text.startswith("WITH "):
        return _statement(f"WITH {before},\n{text.removeprefix('WITH ')}")
    return _statement(f"WITH {before}\n{text}" if before else text)


def lean(statement: Statement, values: Mapping[str, Any]) -> Statement:
    """The same without the conditions on what these values leave open."""
    return _without(statement, frozenset(name for name in statement.parameters if values.get(name, "") is None))


@lru_cache(_TEXTS_MAX)
def _without(statement: Statement, unasked: frozenset[str]) -> Statement:
    return _statement(_CONDITION.sub(lambda found: "" if found[1] in unasked else found[0], statement.text))


def _inlined(used: re.Pattern[str], text: str, name: str, step: str) -> str:
    whole = _WHOLE.fullmatch(step)
    source = whole[1] if whole else f"(\n{step})"
    return used.sub(lambda found: f"{found[1]} {source} AS {found[2] or name}", text)


def _statement(text: str) -> Statement:
    return Statement(text, frozenset(_PARAMETER.findall(text)))


@lru_cache(_TEXTS_MAX)
def _text(name: str) -> str:
    return _COMMENT.sub("", (files("k2_core") / "sql" / f"{name}.sql").read_text(encoding="utf-8"))
