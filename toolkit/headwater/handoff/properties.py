"""The YAML beside a table's models: its source, contracts, descriptions, data tests and unit tests."""

from __future__ import annotations

from collections.abc import Sequence

from headwater.handoff.literals import code, rendered
from headwater.handoff.tables import TableModel
from headwater.handoff.unittests import unit_tests
from headwater.handoff.warehouses import Warehouse
from headwater.handoff.yamltext import Node, dump
from headwater.model import Column

_SAID = {
    "_hw_op": "How the row came to be: r (read from the table), c (inserted), u (updated), d (deleted).",
    "_hw_seq": "Place of the change among all changes; grows with each, and is the only order there is.",
    "_hw_at": "When the source committed the change.",
    "_hw_text": "JSON of values, as the source wrote them, that their columns (null then) cannot hold.",
    "_hw_deleted": "Whether the source has deleted the row; then only its key is sure to be known.",
    "_hw_seq_to": "`_hw_seq` of the change that ended this version; null while it is the newest.",
}


def properties(table: TableModel, source: str, staging_schema: str, facts: Warehouse) -> str:
    """The properties file of one table."""
    models = [_base(table, facts), _current(table, facts)]
    if table.versioned:
        models += [_versions(table, facts), _past(table, facts)]
    return "\n".join(
        dump({name: node})
        for name, node in (
            ("version", 2),
            ("sources", [_source(table, source, staging_schema)]),
            ("models", models),
            ("unit_tests", unit_tests(table, source, facts)),
        )
    )


def _source(table: TableModel, source: str, staging_schema: str) -> Node:
    name = code(str(table.schema.table))
    columns = [_described(c) for c in table.schema.columns] + [
        {"name": n, "description": _SAID[n]} for n in ("_hw_op", "_hw_seq", "_hw_at", "_hw_text")
    ]
    return {
        "name": source,
        "description": "What Headwater captured: full rows of every version, as the lake holds them.",
        "schema": staging_schema,
        "tables": [
            {
                "name": table.relation,
                "description": rendered(f"Every change of {name}, deletes included."),
                "config": {"loaded_at_field": "_hw_at"},
                "columns": columns,
            }
        ],
    }


def _base(table: TableModel, facts: Warehouse) -> Node:
    name, keyed = code(str(table.schema.table)), bool(table.schema.key)
    said = (
        f"The newest change of each row of {name}; deleted rows stay, marked `_hw_deleted`."
        if keyed
        else f"Every change of {name}, which has no key."
    )
    columns: list[Node] = [_typed(c, table, facts) for c in table.schema.columns]
    columns += [_meta(n, facts) for n in ("_hw_op", "_hw_seq", "_hw_at", "_hw_text")]
    if keyed:
        columns.append(_meta("_hw_deleted", facts))
    return _model(table.base, said, columns, _unique(table.schema.key))


def _current(table: TableModel, facts: Warehouse) -> Node:
    name, key = code(str(table.schema.table)), table.schema.key
    columns: list[Node] = []
    for column in table.schema.columns:
        found = {**_described(column), "data_type": facts.column_type(column.type)}
        if column.name in key:
            found["data_tests"] = ["unique", "not_null"] if len(key) == 1 else ["not_null"]
        columns.append(found)
    columns += [_meta(n, facts, constrained=False) for n in ("_hw_seq", "_hw_at", "_hw_text")]
    tests = _unique(key) if len(key) > 1 else []
    return _model(table.current, f"The rows of {name} as they are now.", columns, tests, public=True)


def _versions(table: TableModel, facts: Warehouse) -> Node:
    said = f"Every version of each row of {code(str(table.schema.table))}; a delete is one too."
    columns: list[Node] = [_typed(c, table, facts) for c in table.schema.columns]
    columns += _spans(table, facts)
    columns += [_meta(n, facts) for n in ("_hw_op", "_hw_seq", "_hw_seq_to", "_hw_at", "_hw_text")]
    return _model(table.versions, said, columns, _unique((*table.schema.key, "_hw_seq")))


def _past(table: TableModel, facts: Warehouse) -> Node:
    key, names = list(table.schema.key), table.history
    said = (
        f"Every version that the rows of {code(str(table.schema.table))} had, and when: "
        f"a row was so from `{names.valid_from}` until just before `{names.valid_to}`."
    )
    columns: list[Node] = [
        {**_described(c), "data_type": facts.column_type(c.type)} for c in table.schema.columns
    ]
    columns += _spans(table, facts)
    columns += [_meta(n, facts, constrained=False) for n in ("_hw_op", "_hw_seq", "_hw_seq_to", "_hw_text")]
    tests: list[Node] = [
        {"headwater_one_open_version": {"arguments": {"key": key, "current": names.current}}},
        {"headwater_no_overlap": {"arguments": {"key": key}}},
    ]
    return _model(table.past, said, columns, tests, public=True)


def _model(
    name: str, said: str, columns: Sequence[Node], tests: Sequence[Node], *, public: bool = False
) -> Node:
    config: dict[str, Node] = {"contract": {"enforced": True}, "tags": ["headwater"]}
    if public:
        config["access"] = "public"
    found: dict[str, Node] = {"name": name, "description": rendered(said), "config": config}
    if tests:
        found["data_tests"] = tests
    return {**found, "columns": columns}


def _unique(key: Sequence[str]) -> list[Node]:
    return [{"headwater_unique_together": {"arguments": {"columns": list(key)}}}] if key else []


def _described(column: Column) -> dict[str, Node]:
    words = [code(column.native)] if column.native else []
    if column.source_name != column.name:
        words.append(f"called {code(column.source_name)} at the source")
    if column.retired:
        words.append("before its type changed" if column.retired == "retyped" else "dropped at the source")
    if not column.nullable:
        words.append("not null")
    if column.mask:
        words.append(f"masked by {code(column.mask.partition(':')[0])}")
    found: dict[str, Node] = {"name": column.name, "quote": True}
    return {**found, "description": rendered(", ".join(words))} if words else found


def _typed(column: Column, table: TableModel, facts: Warehouse) -> dict[str, Node]:
    found: dict[str, Node] = {
        "name": column.name,
        "quote": True,
        "data_type": facts.column_type(column.type),
    }
    if column.name in table.schema.key:
        found["constraints"] = [{"type": "not_null"}]
    return found


def _meta(name: str, facts: Warehouse, *, constrained: bool = True) -> dict[str, Node]:
    types = {
        "_hw_seq": facts.integer,
        "_hw_seq_to": facts.integer,
        "_hw_at": facts.moment,
        "_hw_deleted": facts.flag,
    }
    found: dict[str, Node] = {
        "name": name,
        "description": _SAID[name],
        "data_type": types.get(name, facts.text),
    }
    return {**found, "constraints": [{"type": "not_null"}]} if constrained and name == "_hw_seq" else found


def _spans(table: TableModel, facts: Warehouse) -> list[Node]:
    names = table.history
    said = "Null" if names.open_end is None else f"{names.open_end:%Y-%m-%d %H:%M:%S}"
    rows = (
        (names.valid_from, "When the row became so: the commit time of the change.", facts.moment),
        (names.valid_to, f"When the next change ended that. {said} while nothing has.", facts.moment),
        (names.current, "Whether the row is so now.", facts.flag),
    )
    return [{"name": n, "quote": True, "description": d, "data_type": t} for n, d, t in rows]
