"""The entries of `tables` in a pipeline file, what stands above them for all tables, and back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any, cast

from headwater.casts import Cast, read_cast
from headwater.config import (
    CastErrors,
    Compression,
    Config,
    CsvCompression,
    Files,
    HistoryNames,
    Mask,
    MaskKind,
    Mode,
    Policies,
    TableSpec,
    parse_column,
)
from headwater.config.formats import read_formats, write_formats
from headwater.config.patterns import parse_pattern
from headwater.config.quality import read_quality, write_quality
from headwater.config.reader import File, Plain
from headwater.errors import ConfigError
from headwater.model import TableId
from headwater.partition import parse as parse_layout
from headwater.predicate import parse_predicate


def read_tables(doc: Mapping[str, Plain], file: File) -> tuple[tuple[str, ...], Mapping[str, TableSpec]]:
    """The patterns, and the settings of those that have some. Raises ConfigError."""
    entries = doc.get("tables", [{"name": "*.*"}])
    patterns: list[str] = []
    overrides: dict[str, TableSpec] = {}
    default = TableSpec(TableId("", ""), cast(Mode, doc.get("mode", "history")))
    lake = section(doc, "lake")
    default = replace(
        default,
        history=read_history(doc, HistoryNames(), "", file),
        formats=read_formats(lake, ()),
        csv_compression=cast(CsvCompression, lake.get("csv_compression", "gzip")),
        policies=read_policies(doc, Policies()),
    )
    for number, entry in enumerate(cast(Sequence[Mapping[str, Plain]], entries)):
        place = f"tables[{number}]"
        pattern = _pattern(str(entry["name"]), file, place)
        if pattern in patterns:
            raise file.refuse_at(place, f"{pattern!r} stands in `tables` a second time", "keep one")
        patterns.append(pattern)
        if len(entry) > 1:
            overrides[pattern] = _override(entry, default, file, place)
    if all(p.startswith("!") for p in patterns):
        raise file.refuse_at(
            "tables", "`tables` only leaves tables out", 'add what to copy first, for example "*.*"'
        )
    return tuple(patterns), overrides


def _pattern(text: str, file: File, place: str) -> str:
    try:
        parse_pattern(text)
    except ConfigError as failed:
        raise file.refuse_at(place, f"`{place}`: {failed}", failed.hint) from None
    return text


def _override(entry: Mapping[str, Plain], default: TableSpec, file: File, place: str) -> TableSpec:
    pattern = parse_pattern(str(entry["name"]))
    if pattern.leave_out:
        raise file.refuse_at(place, f"`{place}`: a table that is left out has no settings", "take them out")
    table = TableId(pattern.namespace.text, pattern.name.text)
    mode = cast(Mode, entry.get("mode", default.mode))
    masks = {column: _mask(given, file, f"{place}.masks.{column}") for column, given in _masks(entry).items()}
    columns = _columns(entry, file, place)
    history = read_history(entry, default.history, f"{place}.", file)
    if "as" in entry and pattern.exact is None:
        message = f"`{place}.as` names one table, and {entry['name']} may be several"
        raise file.refuse_at(f"{place}.as", message, "name: public.orders   (or, for all tables: names)")
    made = TableSpec(
        table,
        mode,
        history,
        called=str(entry.get("as", "")),
        policies=read_policies(entry, default.policies),
        quality=read_quality(entry, file, place),
        columns=columns,
        masks=masks,
        files=read_files(entry),
        formats=read_formats(entry, default.formats),
        csv_compression=cast(CsvCompression, entry.get("csv_compression", default.csv_compression)),
        **_choices(entry, file, place),
    )
    _refuse_choices(made, file, place)
    made = _placed(made, entry, file, f"{place}.partition")
    return _with_casts(made, entry, file, place)


def _with_casts(spec: TableSpec, entry: Mapping[str, Plain], file: File, place: str) -> TableSpec:
    given = cast(Mapping[str, Mapping[str, Plain]], section(entry, "cast"))
    places = {column: f"{place}.cast.{column}" for column in given}
    return replace(
        spec,
        casts={column: _cast(words, file, places[column]) for column, words in given.items()},
        on_cast_error=cast(CastErrors | None, entry.get("on_cast_error")),
        cast_lines={column: file.place_of(at) for column, at in places.items()},
    )


def _cast(given: Mapping[str, Plain], file: File, place: str) -> Cast:
    """One type change: `{cast: text}` is the short form."""
    try:
        return read_cast(str(given["cast"]) if "cast" in given else given)
    except ConfigError as failed:
        raise file.refuse_at(place, f"`{place}`: {failed}", failed.hint) from None


def read_files(entry: Mapping[str, Plain]) -> Files:
    """How files are written, out of `lake`."""
    given = section(entry, "lake")
    compression = cast(Compression, given.get("compression", ""))
    return Files(compression, str(given.get("file_size", "")), cast(int, given.get("slices", 0)))


def _placed(spec: TableSpec, entry: Mapping[str, Plain], file: File, place: str) -> TableSpec:
    if "partition" not in entry:
        return spec
    try:
        layout = parse_layout(str(entry["partition"]))
    except ConfigError as failed:
        raise file.refuse_at(place, f"`{place}`: {failed}", failed.hint) from None
    return replace(spec, partition=layout, partition_at=file.place_of(place))


def _refuse_choices(made: TableSpec, file: File, place: str) -> None:
    if made.skip_load and made.initial_where:
        message = f"`{place}`: `initial_where` filters the load that `initial_load: skip` leaves out"
        raise file.refuse_at(f"{place}.initial_where", message, "keep one of the two")
    if not made.deltas and (made.skip_load or made.initial_where):
        message = f"`{place}`: without deltas each run reads the table whole, and by `where` alone"
        raise file.refuse_at(
            f"{place}.deltas", message, "take deltas, or initial_load and initial_where, out"
        )


def _choices(entry: Mapping[str, Plain], file: File, place: str) -> dict[str, Any]:
    """Which rows are copied, and by which key."""
    key = tuple(str(c) for c in cast(Sequence[Plain], entry.get("key", ())))
    if len(set(key)) < len(key):
        raise file.refuse_at(f"{place}.key", f"`{place}.key` names a column twice", "keep one")
    filters = {name: _filter(entry, name, file, place) for name in ("where", "initial_where")}
    return {
        "key": key,
        **filters,
        "skip_load": entry.get("initial_load") == "skip",
        "deltas": bool(entry.get("deltas", True)),
        "views": bool(entry.get("views", False)),
    }


def _filter(entry: Mapping[str, Plain], name: str, file: File, place: str) -> str:
    text = str(entry.get(name, ""))
    try:
        return str(parse_predicate(text)) if text else ""
    except ConfigError as failed:
        raise file.refuse_at(f"{place}.{name}", f"`{place}.{name}`: {failed}", failed.hint) from None


def read_policies(entry: Mapping[str, Plain], default: Policies) -> Policies:
    """The policies an entry names, over those above it."""
    given = {name: entry[name] for name in Policies.__slots__ if name in entry}
    return replace(default, **cast(Mapping[str, Any], given))


def write_policies(policies: Policies, default: Policies) -> dict[str, object]:
    """What differs from the policies above."""
    values = {name: getattr(policies, name) for name in Policies.__slots__}
    return {name: value for name, value in values.items() if value != getattr(default, name)}


def _masks(entry: Mapping[str, Plain]) -> Mapping[str, Mapping[str, Plain]]:
    return cast(Mapping[str, Mapping[str, Plain]], section(entry, "masks"))


def _mask(given: Mapping[str, Plain], file: File, place: str) -> Mask:
    """One mask: `{masks: kind}` is the short form, else one kind with its number."""
    if len(given) != 1:
        raise file.refuse_at(place, f"`{place}`: one mask for one column", "for example: {redact: 4}")
    ((name, value),) = given.items()
    return Mask(cast(MaskKind, value)) if name == "masks" else Mask(cast(MaskKind, name), cast(int, value))


def _columns(entry: Mapping[str, Plain], file: File, place: str) -> tuple[str, ...]:
    columns = tuple(str(c) for c in cast(Sequence[Plain], entry.get("columns", ())))
    for number, column in enumerate(columns):
        try:
            parse_column(column)
        except ConfigError as failed:
            at = f"{place}.columns[{number}]"
            raise file.refuse_at(at, f"`{at}`: {failed}", failed.hint) from None
    return columns


def refuse_no_key(doc: Mapping[str, Plain], overrides: Mapping[str, TableSpec], file: File) -> None:
    """Masks that need a key need `mask_key`."""
    for number, entry in enumerate(cast(Sequence[Mapping[str, Plain]], doc.get("tables", ()))):
        spec = overrides.get(str(entry["name"]), TableSpec(TableId("", "")))
        for column, mask in spec.masks.items():
            if mask.kind in ("hash", "tokenize") and "mask_key" not in doc:
                place = f"tables[{number}].masks.{column}"
                hint = "mask_key: env:HEADWATER_MASK_KEY   (a key: openssl rand -hex 32)"
                raise file.refuse_at(place, f"`{place}`: {mask.kind} needs `mask_key`", hint)


def read_history(entry: Mapping[str, Plain], default: HistoryNames, place: str, file: File) -> HistoryNames:
    """The names of the history columns an entry gives, over those above it."""
    given = section(entry, "history")
    names = HistoryNames(
        str(given.get("valid_from", default.valid_from)),
        str(given.get("valid_to", default.valid_to)),
        str(given.get("current", default.current)),
        cast(datetime | None, given.get("open_end", default.open_end)),
    )
    three = [n.casefold() for n in (names.valid_from, names.valid_to, names.current)]
    if len(set(three)) < len(three) or any(n.startswith("_hw_") for n in three):
        message = "`history`: three different names are needed, and none may begin with _hw_"
        raise file.refuse_at(
            f"{place}history", message, "history: {valid_from: start_date, valid_to: end_date}"
        )
    return names


def write_table(pattern: str, config: Config, plain: HistoryNames) -> object:
    """The entry of a pattern."""
    spec = config.overrides.get(pattern)
    if spec is None:
        return pattern
    entry: dict[str, object] = {"name": pattern, "mode": spec.mode}
    entry |= {"history": write_history(spec.history)} if spec.history != config.history else {}
    entry |= {"columns": list(spec.columns)} if spec.columns else {}
    entry |= {"as": spec.called} if spec.called else {}
    entry |= write_policies(spec.policies, config.policies) | write_quality(spec.quality)
    masks = {column: {m.kind: m.keep} if m.keep else m.kind for column, m in spec.masks.items()}
    entry |= {"masks": masks} if masks else {}
    entry |= {"key": list(spec.key)} if spec.key else {}
    entry |= {name: text for name in ("where", "initial_where") if (text := getattr(spec, name))}
    entry |= {"initial_load": "skip"} if spec.skip_load else {}
    entry |= {"deltas": False} if not spec.deltas else {}
    entry |= {"views": True} if spec.views else {}
    casts = {column: its.letters() or its.words() for column, its in spec.casts.items()}
    entry |= {"cast": casts} if casts else {}
    entry |= {"on_cast_error": spec.on_cast_error} if spec.on_cast_error else {}
    entry |= {"partition": str(spec.partition)} if spec.partition else {}
    files = write_files(spec.files)
    entry |= {"lake": files} if files else {}
    entry |= {"format": write_formats(spec.formats)} if spec.formats != config.formats else {}
    packed = spec.csv_compression
    return entry | ({"csv_compression": packed} if packed != config.csv_compression else {})


def write_files(files: Files) -> dict[str, object]:
    """The settings of `lake` that are given."""
    values = {"compression": files.compression, "file_size": files.size, "slices": files.slices}
    return {name: value for name, value in values.items() if value}


def write_history(names: HistoryNames) -> dict[str, object]:
    """The names of the history columns."""
    return {
        "valid_from": names.valid_from,
        "valid_to": names.valid_to,
        "current": names.current,
        "open_end": names.open_end,
    }


def section(doc: Mapping[str, Plain], name: str) -> Mapping[str, Plain]:
    """A mapping of an entry; empty where there is none."""
    found = doc.get(name, {})
    return found if isinstance(found, Mapping) else {}
