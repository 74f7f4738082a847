"""What schemas say under masks, which settings are refused, and that no column slips through renamed."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pyarrow as pa
import pytest

from headwater.config import Mask, TableSpec, parse
from headwater.errors import ConfigError, PreflightFailed
from headwater.handoff.properties import _described
from headwater.masking.rules import (
    changed,
    describe,
    find_problems,
    mask_schema,
    read_mask,
    unmask,
    write_mask,
)
from headwater.model import Column, TableId, TableSchema
from masking.batches import TABLE, schema_of, spec_of

SCHEMA = schema_of(
    ("email", pa.string(), "text"),
    ("born", pa.date32(), "date"),
    ("note", pa.string(), "character varying(9)"),
)
HASHED = spec_of(email=Mask("hash"))


def renamed(schema: TableSchema, **names: str) -> TableSchema:
    """The schema with columns under other names; origins stay."""
    columns = [
        replace(c, name=names.get(c.name, c.name), source_name=names.get(c.name, c.name))
        for c in schema.columns
    ]
    return replace(schema, columns=tuple(columns))


def with_origins(schema: TableSchema, **origins: str) -> TableSchema:
    return replace(
        schema, columns=tuple(replace(c, origin=origins.get(c.name, c.origin)) for c in schema.columns)
    )


def marks(schema: TableSchema) -> dict[str, str]:
    return {c.source_name: c.mask for c in schema.columns} | {
        c.source_name: "left out" for c in schema.left_out
    }


@pytest.mark.parametrize(
    "mask",
    [Mask("null"), Mask("hash"), Mask("tokenize"), Mask("redact"), Mask("redact", 12), Mask("truncate", 3)],
)
def test_a_mask_is_written_and_read_back(mask: Mask) -> None:
    assert read_mask(write_mask(mask, "0a1b")) == mask


def test_what_schemas_say() -> None:
    spec = spec_of(email=Mask("hash"), born=Mask("redact", 2), note=Mask("drop"))
    made = mask_schema(SCHEMA, spec, "0a1b")
    assert made == TableSchema(
        TABLE,
        (
            SCHEMA.columns[0],
            replace(SCHEMA.columns[1], mask="hash:0a1b"),
            replace(SCHEMA.columns[2], type=pa.string(), mask="redact:2"),
        ),
        ("id",),
        (SCHEMA.columns[3],),
    )
    assert TableSchema.from_json(made.to_json()) == made
    assert made.fingerprint() != mask_schema(SCHEMA, spec, "0a1c").fingerprint() != SCHEMA.fingerprint()
    assert describe(made) == ["email hash", "born redact 2", "note left out"]
    assert [c.name for c in made.unmasked().columns] == ["id"]
    assert {c.source_name for c in unmask(made).columns} == {c.source_name for c in SCHEMA.columns}


def test_the_models_say_what_is_masked() -> None:
    described = _described(mask_schema(SCHEMA, HASHED, "0a1b").columns[1])
    assert described["description"] == "`text`, masked by `hash`"


def test_a_table_without_settings_is_itself() -> None:
    assert mask_schema(SCHEMA, spec_of(), "") is SCHEMA
    assert mask_schema(SCHEMA, spec_of(), "", SCHEMA, SCHEMA) is SCHEMA


@pytest.mark.parametrize(
    ("columns", "kept"),
    [
        ((), ["id", "email", "born", "note"]),
        (("id", "e*"), ["id", "email"]),
        (("!n*",), ["id", "email", "born"]),
        (("*", "!email", "!note"), ["id", "born"]),
        (("id", "note", "!note"), ["id"]),
        (('"id"', '"no*"'), ["id"]),
    ],
)
def test_chosen_columns(columns: tuple[str, ...], kept: list[str]) -> None:
    assert [c.name for c in mask_schema(SCHEMA, spec_of(*columns), "").columns] == kept


def test_a_column_that_is_not_chosen_is_not_brought_back_by_its_mask() -> None:
    spec = spec_of("!email", email=Mask("hash"))
    assert marks(mask_schema(SCHEMA, spec, "k"))["email"] == "left out"


@pytest.mark.parametrize(
    ("before", "after", "names"),
    [
        (HASHED, HASHED, []),
        (spec_of(), HASHED, ["email"]),
        (HASHED, spec_of(), ["email"]),
        (HASHED, spec_of(email=Mask("drop")), ["email"]),
        (spec_of("!email", "!note"), spec_of("!email"), ["note"]),
        (spec_of(note=Mask("redact", 2)), spec_of(note=Mask("redact", 3)), ["note"]),
    ],
)
def test_changed_masks(before: TableSpec, after: TableSpec, names: list[str]) -> None:
    assert changed(mask_schema(SCHEMA, before, "k"), mask_schema(SCHEMA, after, "k")) == names


def test_another_key_is_another_mask_and_columns_of_the_source_alone_are_none() -> None:
    stored = mask_schema(SCHEMA, HASHED, "k")
    assert changed(stored, mask_schema(SCHEMA, HASHED, "l")) == ["email"]
    less = replace(SCHEMA, columns=SCHEMA.columns[:2])
    assert changed(stored, mask_schema(less, HASHED, "k")) == []


def test_a_type_changes_what_people_read_but_not_a_hash() -> None:
    wider = replace(SCHEMA, columns=(*SCHEMA.columns[:3], replace(SCHEMA.columns[3], native="text")))
    for mask, names in ((Mask("hash"), []), (Mask("truncate", 2), ["note"]), (Mask("tokenize"), ["note"])):
        spec = spec_of(note=mask)
        assert changed(mask_schema(SCHEMA, spec, "k"), mask_schema(wider, spec, "k")) == names


@pytest.mark.parametrize("how", [Mask("hash"), Mask("drop"), Mask("null"), Mask("redact", 4)])
@pytest.mark.parametrize("origin", ["7.1", "7", ""])
def test_a_masked_column_does_not_pass_under_a_new_name(how: Mask, origin: str) -> None:
    spec = spec_of(email=how)
    stored = mask_schema(SCHEMA, spec, "k")
    now = with_origins(renamed(SCHEMA, email="mail"), mail=origin)
    with pytest.raises(PreflightFailed, match="mail has no mask, but may be the column email") as failed:
        mask_schema(now, spec, "k", stored, now)
    again = f"{{{how.kind}: 4}}" if how.keep else how.kind
    assert failed.value.hint == f"add to the table's masks: {{mail: {again}}}"
    assert marks(mask_schema(now, spec_of(mail=how), "k", stored, now))["mail"]


def test_names_that_were_swapped() -> None:
    stored = mask_schema(SCHEMA, HASHED, "k")
    with pytest.raises(PreflightFailed, match="note has no mask, but may be the column email"):
        mask_schema(renamed(SCHEMA, email="note", note="email"), HASHED, "k", stored, SCHEMA)


def test_a_new_column_beside_a_dropped_masked_one_is_new() -> None:
    stored = mask_schema(SCHEMA, HASHED, "k")
    now = with_origins(renamed(SCHEMA, email="other"), other="7.5")
    assert marks(mask_schema(now, HASHED, "k", stored, now))["other"] == ""


def test_an_old_name_keeps_its_mask_when_the_file_has_forgotten_it() -> None:
    now = renamed(SCHEMA, email="mail", note="text")
    stored = mask_schema(SCHEMA, spec_of("!note", email=Mask("redact", 2)), "k")
    in_stream = with_origins(SCHEMA, email="7", note="7")
    made = mask_schema(in_stream, spec_of("!text", mail=Mask("hash")), "k", stored, now)
    assert marks(made) == {"id": "", "email": "redact:2", "born": "", "note": "left out"}


def test_a_name_between_two_renames_is_left_out() -> None:
    stored = mask_schema(SCHEMA, HASHED, "k")
    now = renamed(SCHEMA, email="post")
    between = with_origins(renamed(SCHEMA, email="mail"), mail="7")
    made = mask_schema(between, spec_of(post=Mask("hash")), "k", stored, now)
    assert marks(made) == {"id": "", "born": "", "note": "", "mail": "left out"}
    # Should it be there after all (the source was looked at before the rename), it is not let in unmasked.
    with pytest.raises(PreflightFailed, match="mail has no mask, but may be the column that was renamed"):
        mask_schema(renamed(SCHEMA, email="mail"), HASHED, "k", made, renamed(SCHEMA, email="mail"))
    assert mask_schema(between, HASHED, "k", made, now) == made == TableSchema.from_json(made.to_json())
    hashed = mask_schema(between, spec_of(mail=Mask("hash")), "k", stored, now)
    assert marks(hashed)["mail"] == "hash:k"
    # A column that came and went beside the masked one is nothing to worry about.
    beside = replace(SCHEMA, columns=(*SCHEMA.columns, Column("tmp", pa.string(), origin="7")))
    assert marks(mask_schema(beside, HASHED, "k", stored, SCHEMA))["tmp"] == ""


def test_a_mask_taken_away_from_a_column_that_is_there_is_away() -> None:
    stored = mask_schema(SCHEMA, HASHED, "k")
    assert mask_schema(SCHEMA, spec_of(), "k", stored, SCHEMA) == SCHEMA


def config_of(tables: str) -> Any:
    return parse(
        f'pipeline: a\nsource: {{kind: postgres, url: "postgres://h/d"}}\nstore: l\nmask_key: env:K\n{tables}'
    )


OTHER = TableId("public", "other")
SCHEMAS = {
    TABLE: SCHEMA,
    OTHER: TableSchema(OTHER, (Column("id", pa.int64()), Column("e2", pa.string())), ("id",)),
}


@pytest.mark.parametrize(
    ("entry", "problems"),
    [
        ("{name: public.people, masks: {email: hash, id: tokenize}}", []),
        ("{name: public.people, masks: {id: hash}}", []),
        ("{name: 'public.*', masks: {email: hash}}", []),
        ("{name: 'hr.*', masks: {email: hash}}", []),
        ("{name: public.people, masks: {emial: hash}}",
         ["public.people has no column emial, which its masks name; did you mean email?"]),
        ("{name: public.people, masks: {xyz: null}}",
         ["public.people has no column xyz, which its masks name; one of: born, email, id, note"]),
        ("{name: 'public.*', masks: {emial: hash}}",
         ["public.other has no column emial, which its masks name, nor has another table of public.*;"
          " did you mean email?"]),
        ("{name: public.people, columns: [id, 'z*']}",
         ["public.people has no column z*, which its columns name; one of: born, email, id, note"]),
        *((f"{{name: public.people, masks: {{id: {mask}}}}}",
           [f"public.people the key column id cannot be {said}: rows could not be told apart;"
            " masks: {id: hash}   (or tokenize, or no mask)"])
          for mask, said in (("null", "masked by null"), ("redact", "masked by redact"), ("drop", "left out"),
                             ("{truncate: 3}", "masked by truncate 3"))),
        ("{name: public.people, columns: [email]}",
         ["public.people the key column id cannot be left out: rows could not be told apart;"
          " masks: {id: hash}   (or tokenize, or no mask)"]),
    ],
)  # fmt: skip
def test_problems(entry: str, problems: list[str]) -> None:
    schemas = dict(sorted(SCHEMAS.items()))
    found = find_problems(config_of(f"tables: [{entry}]"), schemas, list(schemas))
    assert [f"{p.table} {p.what}; {p.hint}" for p in found] == problems


def test_a_table_of_which_nothing_is_left() -> None:
    bare = {TABLE: replace(SCHEMA, key=())}
    (problem,) = find_problems(config_of("tables: [{name: public.people, columns: ['!*']}]"), bare, [TABLE])
    assert (problem.what, problem.hint) == ("no column is left of it", 'leave it out: "!public.people"')


def test_other_tables_are_not_judged() -> None:
    config = config_of("tables: [{name: public.people, masks: {nope: null}}]")
    assert find_problems(config, SCHEMAS, [OTHER]) == []
    with pytest.raises(ConfigError):
        config_of("tables: [{name: public.people, masks: {nope: nope}}]")
