"""The JSON Schema of `headwater.yml`, for editors; the reader is stricter and says more."""

from __future__ import annotations

from collections.abc import Mapping

import yaml

from headwater.config.fields import FILE, Field

Schema = Mapping[str, object]


def json_schema() -> Schema:
    """The schema of the whole file."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "headwater.yml",
        **_schema(FILE),
    }


def _schema(field: Field) -> Schema:
    about: dict[str, object] = {"description": field.says}
    if field.example:
        about["examples"] = [_example(field)]
    whole = {**about, **_kind(field)}
    if field.short is None:
        return whole
    return {**about, "anyOf": [_schema(field.short), whole]}


_SIMPLE: Mapping[str, Schema] = {
    "flag": {"type": "boolean"},
    "moment": {"type": ["string", "null"]},
    "plain": {"type": "object"},
    "secret": {"type": "string", "pattern": "^(env:[A-Za-z_][A-Za-z0-9_]*|file:.+)$"},
}


def _kind(field: Field) -> Schema:
    match field.kind:
        case "mapping":
            return _mapping(field)
        case "list":
            items = _schema(field.item) if field.item is not None else {}
            return {"type": "array", "minItems": 1, "items": items}
        case "number":
            return {"type": "integer", "minimum": 1, "maximum": field.highest}
        case "text" | "path":
            return _text(field)
    return _SIMPLE[field.kind]


def _text(field: Field) -> Schema:
    if field.choices:
        # YAML reads a bare null as nothing, and a bare off as false.
        bare = [value for word, value in (("null", None), ("off", False)) if word in field.choices]
        return {"enum": [*field.choices, *bare]}
    return {"type": "string", **({} if field.blank else {"minLength": 1})} | (
        {"pattern": f"^(?:{field.pattern})$"} if field.pattern else {}
    )


def _mapping(field: Field) -> Schema:
    if field.each is not None:
        return {"type": "object", "minProperties": 1, "additionalProperties": _schema(field.each)}
    return {
        "type": "object",
        "additionalProperties": False,
        "required": [f.name for f in field.fields if f.required],
        "properties": {f.name: _schema(f) for f in field.fields},
    }


def _example(field: Field) -> object:
    if field.kind in ("mapping", "list", "number", "flag", "plain"):
        return yaml.safe_load(field.example)
    return field.example
