"""An Avro schema document as a tree of types, references resolved."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

PRIMITIVES = ("null", "boolean", "int", "long", "float", "double", "bytes", "string")
_BYTES_MIN = {"null": 0, "float": 4, "double": 8}
"""Fewest bytes a value takes on the wire; one for every other primitive."""


class Uncovered(ValueError):
    """A schema, or a pair of them, that lockstep leaves to another decoder. Its text says which part and why."""


@dataclass(frozen=True)
class Primitive:
    """precision, scale: of the logical type decimal."""

    kind: str
    logical: str | None = None
    precision: int = 0
    scale: int = 0


@dataclass(frozen=True)
class Fixed:
    name: str
    size: int
    logical: str | None = None
    precision: int = 0
    scale: int = 0


@dataclass(frozen=True)
class Enum:
    """default: what a reader takes a symbol for that it does not have."""

    symbols: tuple[str, ...]
    default: str | None


@dataclass(frozen=True)
class Array:
    items: Type


@dataclass(frozen=True)
class Map:
    values: Type


@dataclass(frozen=True)
class Union:
    branches: tuple[Type, ...]


@dataclass(frozen=True)
class Field:
    """default: (value,) as the document states it, or () where there is none."""

    name: str
    type: Type
    aliases: tuple[str, ...] = ()
    default: tuple[Any, ...] = ()


@dataclass(frozen=True)
class Record:
    """name, aliases: without their namespaces, which resolution does not compare."""

    name: str
    fields: tuple[Field, ...]
    aliases: tuple[str, ...] = ()


Type = Primitive | Fixed | Enum | Array | Map | Union | Record
NULL = Primitive("null")


def parse(schema: Any) -> Type:
    """Read a schema document. Raises Uncovered for what is malformed, recursive or of an unknown kind."""
    try:
        return _Parser().type(schema, "")
    except (KeyError, TypeError, AttributeError) as error:
        raise Uncovered(f"a schema that cannot be read: {error.__class__.__name__} {error}") from None


def bytes_min(type_: Type) -> int:
    """Fewest bytes one value of a type takes."""
    if isinstance(type_, Primitive):
        return _BYTES_MIN.get(type_.kind, 1)
    if isinstance(type_, Fixed):
        return type_.size
    return sum(bytes_min(f.type) for f in type_.fields) if isinstance(type_, Record) else 1


class _Parser:
    """One pass over one document; a name may be used after its definition, and not inside it."""

    def __init__(self) -> None:
        self._named: dict[str, Type] = {}

    def type(self, schema: Any, namespace: str) -> Type:
        if isinstance(schema, str):
            return self._reference(schema, namespace)
        if isinstance(schema, list):
            return Union(tuple(self.type(branch, namespace) for branch in schema))
        kind = schema["type"]
        if not isinstance(kind, str):
            return self.type(kind, namespace)
        return self._complex(kind, schema, namespace)

    def _reference(self, name: str, namespace: str) -> Type:
        if name in PRIMITIVES:
            return Primitive(name)
        found = self._named.get(name if "." in name or not namespace else f"{namespace}.{name}") or self._named.get(
            name
        )
        if found is None:
            raise Uncovered(f"{name} is not defined before it is used, or contains itself")
        return found

    def _complex(self, kind: str, schema: Mapping[str, Any], namespace: str) -> Type:
        if kind == "array":
            return Array(self.type(schema["items"], namespace))
        if kind == "map":
            return Map(self.type(schema["values"], namespace))
        if kind in ("record", "enum", "fixed"):
            return self._define(kind, schema, namespace)
        plain = self._reference(kind, namespace)
        return _with_logical(plain, schema) if isinstance(plain, Primitive) else plain

    def _define(self, kind: str, schema: Mapping[str, Any], namespace: str) -> Type:
        space, _, name = schema["name"].rpartition(".")
        space = space or schema.get("namespace", namespace)
        defined: Type
        if kind == "record":
            fields = tuple(self._field(field, space) for field in schema["fields"])
            defined = Record(name, fields, tuple(a.rpartition(".")[2] for a in schema.get("aliases", ())))
        elif kind == "enum":
            defined = Enum(tuple(schema["symbols"]), schema.get("default"))
        else:
            defined = _with_logical(Fixed(name, int(schema["size"])), schema)
        self._named[f"{space}.{name}" if space else name] = defined
        return defined

    def _field(self, field: Mapping[str, Any], namespace: str) -> Field:
        default = (field["default"],) if "default" in field else ()
        return Field(field["name"], self.type(field["type"], namespace), tuple(field.get("aliases", ())), default)


def _with_logical(type_: Primitive | Fixed, schema: Mapping[str, Any]) -> Primitive | Fixed:
    logical = schema.get("logicalType")
    if logical != "decimal":
        return replace(type_, logical=logical)
    precision, scale = schema["precision"], schema.get("scale", 0)
    if not (isinstance(precision, int) and isinstance(scale, int) and 0 <= scale <= precision and precision > 0):
        raise Uncovered(f"a decimal of precision {precision} and scale {scale}")
    return replace(type_, logical=logical, precision=precision, scale=scale)
