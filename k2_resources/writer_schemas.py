"""What may be said of a writer's Avro schema before a byte is read with it.

Belongs here: judging and rewriting schema documents. Does not: decoding. A schema is somebody else's input.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

_NESTED = ("type", "fields", "items", "values")
_ZERO_BYTES = ("null",)


def hazard(schema: Mapping[str, Any], reader: Mapping[str, Any]) -> str | None:
    """Why no record of the reader's kind can be read with this schema, or none safely; None when they can."""
    if schema.get("type") != "record" or not isinstance(schema.get("fields"), list):
        return f"a record was expected, found {str(schema.get('type'))[:100]!r}"
    recursive = _recursion(schema, frozenset())
    if recursive is not None:
        return f"type {recursive!r} contains itself, so a short record can be endlessly deep"
    endless = _endless_array(schema)
    if endless is not None:
        return f"an array of {endless!r} takes no bytes, so a short record can be endlessly long"
    return _loose_decimal(schema, reader)


def is_as_expected(writer: Mapping[str, Any], reader: Mapping[str, Any]) -> bool:
    """Whether every field of the reader has the same type in the writer, or is not there at all."""
    by_name = {field["name"]: _shape(field["type"]) for field in writer["fields"]}
    return all(by_name.get(f["name"], _shape(f["type"])) == _shape(f["type"]) for f in reader["fields"])


def branch(type_: Any) -> Any:
    """A field's type, or the one of its union that is not null."""
    if isinstance(type_, list):
        others = [b for b in type_ if b != "null"]
        return others[0] if len(others) == 1 else type_
    return type_


def without_logical_types(schema: Any) -> Any:
    """The same bytes as plain types: logical types as what they rest on, enums as their index."""
    return _plain(schema, frozenset(_enum_names(schema, "")))


def _enum_names(schema: Any, namespace: str) -> Iterator[str]:
    """Names by which enums may be referred to further on."""
    if isinstance(schema, Mapping):
        namespace = str(schema.get("namespace", namespace))
        if schema.get("type") == "enum":
            name = str(schema.get("name", ""))
            yield from (name, f"{namespace}.{name}")
    for child in _children(schema):
        yield from _enum_names(child, namespace)


def _plain(schema: Any, enums: frozenset[str]) -> Any:
    if isinstance(schema, list):
        return [_plain(b, enums) for b in schema]
    if not isinstance(schema, Mapping):
        return "int" if schema in enums else schema
    if schema.get("type") == "enum":
        return "int"
    if "logicalType" in schema and isinstance(schema["type"], str) and schema["type"] != "fixed":
        return schema["type"]
    kept = {k: v for k, v in schema.items() if k not in ("logicalType", "precision", "scale")}
    if isinstance(kept.get("type"), Mapping) and kept["type"].get("type") == "enum":
        kept.pop("default", None)
    return {key: _plain(value, enums) if key in _NESTED else value for key, value in kept.items()}


def _shape(type_: Any) -> Any:
    """A type without names and docs, so that only what decides the bytes is compared."""
    if isinstance(type_, list):
        return [_shape(b) for b in type_]
    if isinstance(type_, Mapping):
        if type_.get("type") == "enum":
            return "enum"
        keys = ("type", "logicalType", "precision", "scale", "items", "values", "size")
        return {key: _shape(type_[key]) for key in keys if key in type_} if len(type_) > 1 else _shape(type_["type"])
    return type_


def _loose_decimal(schema: Mapping[str, Any], reader: Mapping[str, Any]) -> str | None:
    """Bytes and strings can be promoted to a decimal's bytes; nobody meant those digits."""
    types = {field.get("name"): branch(field.get("type")) for field in schema["fields"] if isinstance(field, Mapping)}
    for field in reader["fields"]:
        if not _is_decimal(branch(field["type"])) or field["name"] not in types:
            continue
        type_ = types[field["name"]]
        if not _is_decimal(type_):
            return f"{field['name']} is {str(type_)[:100]}, expected a decimal"
    return None


def _is_decimal(type_: Any) -> bool:
    return isinstance(type_, Mapping) and type_.get("logicalType") == "decimal"


def _children(schema: Any) -> list[Any]:
    if isinstance(schema, list):
        return schema
    if not isinstance(schema, Mapping):
        return []
    fields = schema.get("fields")
    inner = [f.get("type") for f in fields if isinstance(f, Mapping)] if isinstance(fields, list) else []
    nested = [schema[key] for key in ("type", "items", "values") if isinstance(schema.get(key), Mapping | list)]
    named = [schema[key] for key in ("items", "values") if isinstance(schema.get(key), str)]
    return [*inner, *nested, *named]


def _recursion(schema: Any, around: frozenset[str]) -> str | None:
    """The name of a type used inside its own definition."""
    if isinstance(schema, str):
        return schema if schema in around else None
    if isinstance(schema, Mapping) and schema.get("type") == "record":
        name = str(schema.get("name", ""))
        full = f"{schema['namespace']}.{name}" if schema.get("namespace") else name
        around = around | {name, full}
    return next(filter(None, (_recursion(child, around) for child in _children(schema))), None)


def _endless_array(schema: Any) -> str | None:
    """The item type of an array whose items take no bytes."""
    if isinstance(schema, Mapping) and schema.get("type") == "array" and _is_empty(schema.get("items")):
        return str(schema.get("items"))[:100]
    return next(filter(None, (_endless_array(child) for child in _children(schema))), None)


def _is_empty(type_: Any) -> bool:
    if isinstance(type_, str):
        return type_ in _ZERO_BYTES
    if not isinstance(type_, Mapping):
        return False
    if type_.get("type") == "record":
        return all(_is_empty(f.get("type")) for f in type_.get("fields", []) if isinstance(f, Mapping))
    if type_.get("type") == "fixed":
        return not type_.get("size")
    return _is_empty(type_.get("type"))
