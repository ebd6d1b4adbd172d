"""What a schema is, when two are the same, and whether one reads the other."""

from __future__ import annotations

import json
import warnings
from typing import Any

import avro.errors
import avro.schema
from avro.compatibility import PRIMITIVE_TYPES, ReaderWriterCompatibilityChecker, SchemaCompatibilityType


class Refused(Exception):
    """An answer that is an error, with Confluent's code; its first three digits are the HTTP status."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code = code


def identity_of(text: str) -> str:
    """One text for schemas that differ in white space or attribute order only."""
    return json.dumps(json.loads(text), sort_keys=True, separators=(",", ":"))


def _parse(text: str) -> Any:
    with warnings.catch_warnings(action="ignore", category=avro.errors.AvroWarning):
        return avro.schema.parse(text)


def unreadable(*, reader: str, writer: str) -> list[str]:
    """Why data of the writer's schema cannot be read by the reader's; empty when it can."""
    try:
        checker = ReaderWriterCompatibilityChecker()  # type: ignore[no-untyped-call]
        result = checker.get_compatibility(_parse(reader), _parse(writer))
    except RecursionError as error:
        raise Refused(42201, "Invalid schema: nested too deeply to compare") from error
    if result.compatibility is SchemaCompatibilityType.compatible:
        return []
    kinds = ", ".join(kind.value for kind in result.incompatibilities)
    return [f"{kinds} at {', '.join(sorted(result.locations))}: {', '.join(sorted(result.messages))}"]


def valid_text(document: dict[str, Any]) -> str:
    """The compact text of the Avro schema in a request body."""
    kind, text = document.get("schemaType") or "AVRO", document.get("schema")
    if kind != "AVRO":
        raise Refused(42201, f"Invalid schema type {kind!r}: this registry holds AVRO")
    if document.get("references"):
        raise Refused(42201, "Invalid schema: references are not supported; inline the named types")
    if not isinstance(text, str) or not text:
        raise Refused(42201, "Invalid schema: `schema` must be the schema as a non-empty string")
    try:
        compact = json.dumps(_bare_names_quoted(text), separators=(",", ":"), ensure_ascii=False)
        compact.encode()
        _parse(compact)
    except Exception as error:  # whatever way the parser fails in, the schema is what is wrong
        raise Refused(42201, f"Invalid schema: {type(error).__name__}: {str(error)[:500]}") from error
    return compact


def _bare_names_quoted(text: str) -> Any:
    """Read schema JSON; Java's parser also takes a primitive's bare name."""
    return text if text in set(PRIMITIVE_TYPES) else json.loads(text, parse_constant=_no_constant)


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")
