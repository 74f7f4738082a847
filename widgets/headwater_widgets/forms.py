"""The fields of `headwater.yml` as a form: what `headwater.config.fields` knows is all that is needed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from headwater.config.edit import write_value
from headwater.config.fields import Field

Described = Mapping[str, object]


def describe_fields(fields: Sequence[Field]) -> list[Described]:
    """Fields as the browser needs them; a mapping with fields of its own is a group."""
    return [_describe(field) for field in fields]


def is_group(field: Field) -> bool:
    """Whether a field is shown as one input for each of its own fields."""
    names = {f.name for f in field.fields}
    whole = field.short is None or field.short.name in names
    return field.kind == "mapping" and bool(names) and field.each is None and whole


def group_of(field: Field, value: Any) -> dict[str, Any]:
    """A group's values, also where its short form stands for it."""
    if isinstance(value, dict):
        return dict(value)
    return {field.short.name: value} if field.short is not None and value is not None else {}


def form_values(fields: Sequence[Field], doc: Mapping[str, Any]) -> dict[str, object]:
    """What stands in the inputs: text, or a mapping of texts for a group."""
    values: dict[str, object] = {}
    for field in fields:
        if field.name not in doc:
            continue
        value = doc[field.name]
        if is_group(field):
            values[field.name] = form_values(field.fields, group_of(field, value))
        else:
            values[field.name] = write_value(field, value)
    return values


def find_field(fields: Sequence[Field], place: Sequence[str]) -> Field:
    """The field at a place, such as ("source", "host")."""
    found = next(f for f in fields if f.name == place[0])
    return find_field(found.fields, place[1:]) if len(place) > 1 else found


def _describe(field: Field) -> Described:
    return {
        "name": field.name,
        "says": field.says,
        "example": field.example,
        "kind": "group" if is_group(field) else field.kind,
        "required": field.required,
        "default": field.default,
        "choices": list(field.choices),
        "fields": describe_fields(field.fields) if is_group(field) else [],
    }
