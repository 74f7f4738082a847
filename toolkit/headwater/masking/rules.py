"""Which column gets which mask, what its schema says then, what is refused. No I/O, no values."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import pyarrow as pa

from headwater.config import Config, Mask, TableSpec, parse_column, parse_pattern, quote_table
from headwater.config.patterns import is_chosen
from headwater.errors import PreflightFailed
from headwater.masking.functions import KEYED, SHOWN
from headwater.model import Column, TableId, TableSchema

DROP = Mask("drop")
#: Left out because it may be a masked column under a new name; its `Column.mask` in `left_out` says so.
_SUSPECT = Mask("drop", 1)
_RENAMED = "renamed"


def write_mask(mask: Mask, key_id: str) -> str:
    """A mask as `Column.mask` has it: `null`, `redact:4`, `hash:<key id>`."""
    if mask.kind in KEYED:
        return f"{mask.kind}:{key_id}"
    return f"{mask.kind}:{mask.keep}" if mask.keep else mask.kind


def read_mask(text: str) -> Mask:
    """The mask out of `Column.mask`."""
    kind, _, rest = text.partition(":")
    if kind in KEYED or not rest:
        return Mask(kind)  # type: ignore[arg-type]  # written by write_mask alone
    return Mask(kind, int(rest))  # type: ignore[arg-type]


def mask_column(column: Column, mask: Mask, key_id: str) -> Column:
    """The column as it is stored. Its native type and origin stay the source's: a change there is seen."""
    text = write_mask(mask, key_id)
    if mask.kind == "null":
        return replace(column, nullable=True, mask=text)
    return replace(column, type=pa.string(), mask=text)


def mask_schema(
    schema: TableSchema,
    spec: TableSpec,
    key_id: str,
    before: TableSchema | None = None,
    now: TableSchema | None = None,
) -> TableSchema:
    """The source's schema as it is stored.

    before   the stored schema before this one: a masked column that the source renamed must not pass
    now      the source's schema when last looked at: a column that is not in it keeps the mask that it had,
             and is left out, never to be let in without a mask, where it may be a masked one renamed
    Raises PreflightFailed where a masked column may have come back under another name.
    """
    before = before if before and _guarded(before) else None
    if not spec.restricts and before is None:
        return schema
    columns: list[Column] = []
    left_out: list[Column] = []
    for column in schema.columns:
        mask = _choose(column, schema, spec, before, now)
        if mask is None:
            columns.append(column)
        elif mask.kind == DROP.kind:
            left_out.append(replace(column, mask=_RENAMED if mask == _SUSPECT else "", fill=None))
        else:
            columns.append(replace(mask_column(column, mask, key_id), fill=None))
    made = replace(schema, columns=tuple(columns), left_out=tuple(left_out))
    if before is not None:
        _refuse_renamed(before, made)
    return made


def unmask(known: TableSchema) -> TableSchema:
    """A stored schema as its source would compare it: with the columns that were left out."""
    return replace(known, columns=known.columns + known.left_out, left_out=())


def changed(before: TableSchema, after: TableSchema) -> list[str]:
    """The columns (by source name) in both schemas that are not masked alike, sorted.

    A text made from how a type prints is another text when the type changes, so that counts too.
    """
    old, new = _marks(before), _marks(after)
    return sorted(name for name in old.keys() & new.keys() if old[name] != new[name])


def hides_fill(before: TableSchema, own: TableSchema, masked: TableSchema) -> bool:
    """Whether old rows hold something in a column since `before` that only its mask would make of it."""
    known = {c.source_name for c in before.columns}
    filled = {c.source_name for c in own.columns if c.fill is not None} - known
    return any(c.source_name in filled and c.mask not in ("", "null") for c in masked.columns)


def describe(schema: TableSchema) -> list[str]:
    """Each masked column and what became of it: `email hash`, `phone redact 4`, `ssn left out`."""
    masked = [f"{c.source_name} {_shown(read_mask(c.mask))}" for c in schema.columns if c.mask]
    return masked + [f"{c.source_name} left out" for c in schema.left_out]


@dataclass(frozen=True, slots=True)
class Problem:
    """A setting that cannot be followed, and what to write instead."""

    table: TableId
    what: str
    hint: str


def find_problems(
    config: Config, schemas: Mapping[TableId, TableSchema], tables: Sequence[TableId]
) -> list[Problem]:
    """What is wrong with the masks and chosen columns of `tables`; `schemas` are all of the source's own."""
    chosen = [schemas[t] for t in tables if t in schemas]
    found = [p for s in chosen for p in key_problems(s, mask_schema(s, config.spec(s.table), ""))]
    for text, spec in config.overrides.items():
        pattern = parse_pattern(text)
        if spec.restricts and any(pattern.fits(t) for t in tables):
            fitting = [s for t, s in schemas.items() if pattern.fits(t)]
            found += _missing(spec, fitting, text if pattern.exact is None else "")
    return found


def key_problems(schema: TableSchema, masked: TableSchema) -> Iterator[Problem]:
    """Masks under which two rows could have one key, and tables without a column."""
    for column in (*masked.columns, *masked.left_out):
        mask = _mask_of(column) if column.mask or column in masked.left_out else None
        if column.name in schema.key and mask is not None and mask.kind not in KEYED:
            way = "left out" if mask.kind == DROP.kind else f"masked by {_shown(mask)}"
            yield Problem(
                schema.table,
                f"the key column {column.source_name} cannot be {way}: rows could not be told apart",
                f"masks: {{{column.source_name}: hash}}   (or tokenize, or no mask)",
            )
    if masked.left_out and not masked.columns:
        yield Problem(
            schema.table, "no column is left of it", f'leave it out: "!{quote_table(schema.table)}"'
        )


def _missing(spec: TableSpec, fitting: Sequence[TableSchema], pattern: str) -> Iterator[Problem]:
    """Names that no column has: of a pattern, in none of its tables."""
    names = sorted({c.source_name for s in fitting for c in s.columns})
    where = f"nor has another table of {pattern}" if pattern else ""
    for name in spec.masks:
        if name not in names:
            what = " ".join(f"has no column {name}, which its masks name, {where}".split()).rstrip(",")
            yield Problem(fitting[0].table, what, _near(name, names))
    for text in spec.columns:
        part, _ = parse_column(text)
        if not any(part.fits(n) for n in names):
            what = " ".join(f"has no column {text}, which its columns name, {where}".split()).rstrip(",")
            yield Problem(fitting[0].table, what, _near(part.text, names))


def _near(name: str, names: Sequence[str]) -> str:
    spelt = {n.lower(): n for n in names}
    near = difflib.get_close_matches(name.lower(), spelt, n=1, cutoff=0.6)
    return f"did you mean {spelt[near[0]]}?" if near else "one of: " + ", ".join(names[:20])


def _configured(column: Column, spec: TableSpec) -> Mask | None:
    """The mask that the configuration gives; DROP too for a column that is not chosen."""
    return spec.masks.get(column.source_name) if is_chosen(column.source_name, spec.columns) else DROP


def _guarded(schema: TableSchema) -> tuple[Column, ...]:
    """The columns of a stored schema whose values were not stored as they are."""
    return tuple(c for c in schema.columns if c.mask) + schema.left_out


def _choose(
    column: Column, schema: TableSchema, spec: TableSpec, before: TableSchema | None, now: TableSchema | None
) -> Mask | None:
    """The mask of one column. Of one that the source has no more, the configuration may have forgotten it."""
    configured = _configured(column, spec)
    if before is None or now is None or any(_key(c) == _key(column) for c in now.columns):
        return configured
    guarded = _guarded(before)
    for old in guarded:
        if old.source_name == column.source_name:
            return _mask_of(old)
    renamed = any(_may_have_become(old, column, before, schema) for old in guarded)
    return configured or (_SUSPECT if renamed else None)


def _may_have_become(old: Column, column: Column, before: TableSchema, after: TableSchema) -> bool:
    """Whether a column that went may be the one that came."""
    came = column.source_name not in {c.source_name for c in (*before.columns, *before.left_out)}
    gone = old.source_name not in {c.source_name for c in (*after.columns, *after.left_out)}
    return came and gone and _may_be_same(old.origin, column.origin)


def _key(column: Column) -> tuple[str, str]:
    return column.source_name, column.origin


def _mask_of(guarded: Column) -> Mask:
    if guarded.mask == _RENAMED:
        return _SUSPECT
    return read_mask(guarded.mask) if guarded.mask else DROP


def _refuse_renamed(before: TableSchema, after: TableSchema) -> None:
    """Raise when a column that was masked may go on under a name without a mask."""
    for column in after.columns:
        for old in _guarded(before) if not column.mask else ():
            if old.source_name == column.source_name:
                same = old.mask == _RENAMED
            else:
                same = _may_have_become(old, column, before, after) or _is_same(old, column)
            if same:
                name = old.source_name if old.source_name != column.source_name else "that was renamed"
                raise PreflightFailed(
                    f"{after.table}: {column.source_name} has no mask, but may be the column {name},"
                    " which had one",
                    hint=f"add to the table's masks: {{{column.source_name}: {_again(old)}}}",
                )


def _again(old: Column) -> str:
    mask = _mask_of(old)
    return f"{{{mask.kind}: {mask.keep}}}" if mask.keep and mask != _SUSPECT else mask.kind


def _may_be_same(one: str, other: str) -> bool:
    """Whether two origins may be one column's: parts between dots, and one may know less than the other."""
    pairs = zip(one.split("."), other.split("."), strict=False)
    return not (one and other) or all(a == b for a, b in pairs)


def _is_same(one: Column, other: Column) -> bool:
    """Whether two columns are surely one: an origin without a part for the column says too little."""
    return "." in one.origin and one.origin == other.origin


def _marks(schema: TableSchema) -> dict[str, str]:
    marks = {c.source_name: _mark(c) for c in schema.columns}
    return marks | {c.source_name: DROP.kind for c in schema.left_out}


def _mark(column: Column) -> str:
    by_type = column.mask and read_mask(column.mask).kind in SHOWN
    return f"{column.mask} of {column.native}" if by_type else column.mask


def _shown(mask: Mask) -> str:
    return f"{mask.kind} {mask.keep}" if mask.keep else mask.kind
