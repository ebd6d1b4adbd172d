"""Which statements may run: a list of what is allowed, walked over the tree the engine itself parsed.

Fail closed: a node, a member, a function or a type that is not listed is refused, so what a newer engine adds is
refused until somebody has read it. The statement's type says nothing here: `WITH x AS (COPY ..) SELECT` is a SELECT.
Only what depends on the tables alone is listed: no clock, no random numbers, so a pinned answer can be had again.
"""

from __future__ import annotations

import json
from typing import Any

from k2_api.problems import Problem
from k2_api.sql_functions import FUNCTIONS, FUNCTIONS_WITHOUT_CALL, TABLE_FUNCTIONS, TYPES
from k2_api.sql_walk import (
    Names,
    Node,
    Walk,
    each,
    empty,
    failed,
    fine,
    kinds,
    maybe,
    members,
    names,
    one_of,
    record,
    refused,
)


def tables_of(tree: str, granted: frozenset[str]) -> frozenset[str]:
    """The granted tables a statement reads, given its tree. Raises Problem 422 for one that must not run."""
    try:
        document = json.loads(tree)
        if document.get("error"):
            raise _unparsed(document)
        return _judged(document["statements"], granted)
    except RecursionError:
        raise refused("it is nested too deeply") from None
    except (ValueError, KeyError, TypeError, AttributeError):
        raise refused("it cannot be understood") from None


def _unparsed(document: Node) -> Problem:
    if document.get("error_type") == "not implemented":
        return refused("only a SELECT is")
    return failed(str(document.get("error_message")))


def _judged(statements: list[Node], granted: frozenset[str]) -> frozenset[str]:
    if len(statements) != 1:
        raise refused("one SELECT at a time")
    walk = Walk(granted)
    members(statements[0], {"node": _query, "named_param_map": empty}, walk, frozenset(), "statement")
    return frozenset(walk.found)


def _query(walk: Walk, value: Any, ctes: Names) -> None:
    """A query node. Its own common table expressions are checked first, each in sight of those before it."""
    seen = ctes
    recursive = value.get("type") == "RECURSIVE_CTE_NODE"
    for entry in value.get("cte_map", {}).get("map", ()):
        seen = _common_table(walk, entry, seen)
    if recursive:
        seen |= {_new_name(walk, value["cte_name"])}
    _QUERY(walk, {name: member for name, member in value.items() if name != "cte_map"}, seen)
    if set(value.get("cte_map", {})) - {"map"}:
        raise refused("a part of its WITH is not among what may be used")


def _common_table(walk: Walk, entry: Node, ctes: Names) -> frozenset[str]:
    """Check one entry of WITH and bring its name into sight. It must not hide a granted table."""
    name = _new_name(walk, entry["key"])
    members(entry, {"key": fine, "value": _CTE}, walk, ctes, "WITH")
    return ctes | {name}


def _new_name(walk: Walk, name: str) -> str:
    if name.lower() in walk.granted:
        raise refused(f"WITH must not give {name} another meaning")
    return name.lower()


def _subquery(walk: Walk, value: Any, ctes: Names) -> None:
    members(value, {"node": _query, "named_param_map": empty}, walk, ctes, "subquery")


def _base_table(walk: Walk, value: Any, ctes: Names) -> None:
    name = str(value).lower()
    if name in ctes:
        return
    if name not in walk.granted:
        raise refused(f"there is no table {value}; there are {', '.join(sorted(walk.granted))}")
    walk.found.add(name)


def _function_name(walk: Walk, value: Any, ctes: Names) -> None:
    if str(value).lower() not in FUNCTIONS:
        raise refused(f"the function {value} is not among those that may be used")


def _type_name(walk: Walk, value: Any, ctes: Names) -> None:
    if str(value).lower() not in TYPES:
        raise refused(f"the type {value} is not among those that may be used")


def _table_function(walk: Walk, value: Any, ctes: Names) -> None:
    if value.get("class") != "FUNCTION" or str(value.get("function_name")).lower() not in TABLE_FUNCTIONS:
        raise refused(f"FROM {value.get('function_name')}(..) is not among what may be used")
    _expression(walk, value, ctes)


def _expression(walk: Walk, value: Any, ctes: Names) -> None:
    _EXPRESSION(walk, value, ctes)


def _joined(walk: Walk, value: Any, ctes: Names) -> None:
    _TABLE(walk, value, ctes)


def _column(walk: Walk, value: Any, ctes: Names) -> None:
    names(walk, value, ctes)
    if value[-1].lower() in FUNCTIONS_WITHOUT_CALL:
        raise refused(f"{value[-1]} is a function there, and not among those that may be used")


def _path(walk: Walk, value: Any, ctes: Names) -> None:
    """The same name once more, as a path: one step, or none."""
    if list(value) != ["path"] or len(value["path"]) > 1:
        raise refused("names with a schema or a catalog are not among what may be used")


_E, _Q = _expression, _query
_EXPRESSIONS, _OPTIONAL = each(_E), maybe(_E)
_ORDERS = each(record("ORDER BY", type=fine, null_order=fine, expression=_E))
_ARGUMENTS = each(record("argument", name=empty, expression=_E))
_BARE = {"schema": empty, "catalog": empty, "qualified_name": _path}
_LITERAL = record("literal", kind=fine, text=fine)

_EXPRESSION = kinds(
    {
        "COLUMN_REF": {"column_names": _column},
        "CONSTANT": {"literal": _LITERAL},
        "COMPARISON": {"left": _E, "right": _E},
        "CONJUNCTION": {"children": _EXPRESSIONS},
        "BETWEEN": {"input": _E, "lower": _E, "upper": _E},
        "CASE": {"case_checks": each(record("CASE", when_expr=_E, then_expr=_E)), "else_expr": _OPTIONAL},
        "CAST": {"child": _E, "try_cast": fine, "type_expr": _E},
        "TYPE": {**_BARE, "type_name": _type_name, "children": _EXPRESSIONS},
        "OPERATOR": {
            "type": one_of(
                *("ARRAY_CONSTRUCTOR", "ARRAY_EXTRACT", "ARRAY_SLICE", "COMPARE_IN", "COMPARE_NOT_IN"),
                *("OPERATOR_COALESCE", "OPERATOR_IS_NULL", "OPERATOR_IS_NOT_NULL", "OPERATOR_NOT", "OPERATOR_NULLIF"),
                *("OPERATOR_TRY", "GROUPING_FUNCTION", "OPERATOR_UNPACK"),
            ),
            "children": _EXPRESSIONS,
        },
        "STAR": {
            "relation_name": fine,
            "exclude_list": names,
            "replace_list": each(record("REPLACE", key=fine, value=_E)),
            "columns": fine,
            "expr": _OPTIONAL,
            "qualified_exclude_list": empty,
            "rename_list": empty,
        },
        "SUBQUERY": {"subquery_type": fine, "subquery": _subquery, "child": _OPTIONAL, "comparison_type": fine},
        "FUNCTION": {
            **_BARE,
            "function_name": _function_name,
            "filter": _OPTIONAL,
            "order_bys": record("ORDER BY", type=one_of("ORDER_MODIFIER"), orders=_ORDERS),
            "distinct": fine,
            "is_operator": fine,
            "export_state": empty,
            "arguments": _ARGUMENTS,
        },
        "WINDOW": {
            **_BARE,
            "function_name": _function_name,
            "partitions": _EXPRESSIONS,
            "orders": _ORDERS,
            "arg_orders": _ORDERS,
            "arguments": _ARGUMENTS,
            **dict.fromkeys(("start_expr", "end_expr", "offset_expr", "default_expr", "filter_expr"), _OPTIONAL),
            **dict.fromkeys(("start", "end", "ignore_nulls", "has_ignore_nulls", "exclude_clause", "distinct"), fine),
        },
    },
    "class",
    {"class": fine, "type": fine, "alias": fine, "query_location": fine, "query_location_length": fine},
)

_TABLE = kinds(
    {
        "BASE_TABLE": {
            "schema_name": empty,
            "catalog_name": empty,
            "table_name": _base_table,
            "at_clause": empty,
            "qualified_name": _path,
        },
        "JOIN": {
            "left": _joined,
            "right": _joined,
            "condition": _OPTIONAL,
            "using_columns": names,
            "duplicate_eliminated_columns": empty,
            "delim_flipped": empty,
            "ranking_expression": empty,
            **dict.fromkeys(("join_type", "ref_type", "is_implicit", "nearest_count"), fine),
            **dict.fromkeys(("nearest_order_type", "nearest_approx"), fine),
        },
        "SUBQUERY": {"subquery": _subquery},
        "EXPRESSION_LIST": {"expected_names": empty, "expected_types": empty, "values": each(_EXPRESSIONS)},
        "TABLE_FUNCTION": {"function": _table_function, "with_ordinality": fine},
        "EMPTY": {},
    },
    "type",
    {
        "type": fine,
        "alias": fine,
        "sample": empty,
        "query_location": fine,
        "query_location_length": fine,
        "column_name_alias": names,
    },
)

_MODIFIER = kinds(
    {
        "ORDER_MODIFIER": {"orders": _ORDERS},
        "DISTINCT_MODIFIER": {"distinct_on_targets": _EXPRESSIONS},
        "LIMIT_MODIFIER": {"limit": _OPTIONAL, "offset": _OPTIONAL, "limit_type": one_of("ROW_COUNT")},
    },
    "type",
    {"type": fine},
)

_QUERY = kinds(
    {
        "SELECT_NODE": {
            "select_list": _EXPRESSIONS,
            "from_table": _TABLE,
            "group_expressions": _EXPRESSIONS,
            "group_sets": each(each(fine)),
            "aggregate_handling": fine,
            "sample": empty,
            **dict.fromkeys(("where_clause", "having", "qualify"), _OPTIONAL),
        },
        "SET_OPERATION_NODE": {
            "setop_type": fine,
            "setop_all": fine,
            "left": maybe(_Q),
            "right": maybe(_Q),
            "children": each(_Q),
        },
        "RECURSIVE_CTE_NODE": {
            "cte_name": fine,
            "union_all": fine,
            "left": _Q,
            "right": _Q,
            "aliases": names,
            "key_targets": empty,
        },
    },
    "type",
    {"type": fine, "modifiers": each(_MODIFIER)},
)

_CTE = record("WITH", aliases=names, materialized=fine, key_targets=empty, payload_aggregates=empty, query_node=_query)
