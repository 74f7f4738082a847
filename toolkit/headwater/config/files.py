"""From a pipeline file to a `Config` and back."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any, cast

import yaml

from headwater.casts import Cast, read_cast
from headwater.config import (
    Case,
    CastErrors,
    Compact,
    Compression,
    Config,
    CsvCompression,
    DbtConfig,
    Files,
    HistoryNames,
    Mask,
    MaskKind,
    Mode,
    Names,
    Policies,
    TableSpec,
    WarehouseConfig,
    parse_column,
)
from headwater.config.fields import FILE
from headwater.config.formats import read_formats, read_glue, write_formats, write_lake
from headwater.config.patterns import parse_pattern
from headwater.config.reader import File, Plain, holds_password, read
from headwater.errors import ConfigError
from headwater.model import TableId
from headwater.partition import parse as parse_layout
from headwater.predicate import parse_predicate
from headwater.secrets import Secret

#: Where `init` says the source's password goes.
PASSWORD_VARIABLE = "HEADWATER_SOURCE_PASSWORD"

_BREAKS = frozenset("\x85\u2028\u2029\ufeff")

_INIT = "headwater init   (writes one to start from)"


def load_file(path: Path) -> Config:
    """Read and check a file."""
    return parse_text(decode(path, read_bytes(path)), str(path), path.resolve().parent)


def read_bytes(path: Path) -> bytes:
    """A file as it is."""
    try:
        return path.read_bytes()
    except FileNotFoundError:
        raise ConfigError(f"there is no {path}", hint=_INIT) from None
    except (OSError, ValueError) as failed:
        reason = failed.strerror if isinstance(failed, OSError) else "its name holds a NUL byte"
        raise ConfigError(f"{path} cannot be read: {reason}", hint="headwater -c PATH ...") from None


def decode(path: Path, data: bytes) -> str:
    """A file's text, without a byte order mark."""
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as failed:
        line = data[: failed.start].count(b"\n") + 1
        raise ConfigError(f"{path}:{line}: not UTF-8 text", hint="save the file as UTF-8") from None


def parse_text(text: str, name: str, folder: Path) -> Config:
    """Check a text."""
    file = File(name)
    doc = read(text, FILE, file)
    base = folder.resolve()
    source = _source(_section(doc, "source"), file, base)
    store = dict(_section(doc, "store"))
    url = store_url(str(store.pop("url")), base, file)
    tables, overrides = _tables(doc, file)
    _refuse_no_key(doc, overrides, file)
    lake = _section(doc, "lake")
    formats = read_formats(lake, ())
    glue = read_glue(lake, url, file)
    return Config(
        name=str(doc["pipeline"]),
        source=source,
        store=url,
        store_options=_store_options(store, url, file, base),
        tables=tables,
        overrides=overrides,
        mode=cast(Mode, doc.get("mode", "history")),
        history=_history(doc, HistoryNames(), "", file),
        compact=cast(Compact, lake.get("compact", "auto")),
        files=_files(doc),
        formats=formats,
        csv_compression=cast(CsvCompression, lake.get("csv_compression", "gzip")),
        glue=glue,
        policies=_policies(doc, Policies()),
        warehouse=_warehouse(_section(doc, "warehouse"), base, file) if "warehouse" in doc else None,
        names=_names(_section(doc, "names")),
        dbt=_dbt(_section(doc, "dbt"), base),
        mask_key=_reference(str(doc["mask_key"]), base) if "mask_key" in doc else "",
        state=_path(str(doc["state"]), base) if "state" in doc else "",
        memory_limit=str(doc.get("memory_limit", "1GB")),
    )


def store_url(text: str, base: Path, file: File) -> str:
    """An absolute folder, or s3://bucket/prefix without a slash at its end."""
    scheme, found, rest = text.partition("://")
    if not found:
        return _path(text, base)
    if scheme == "file" and rest.startswith("/") and "%" not in rest:
        return _path(rest, base)
    if scheme == "s3" and rest.strip("/") and not rest.startswith("/"):
        return f"s3://{rest.rstrip('/')}"
    place = "store.url" if "store.url" in file.lines else "store"
    raise file.refuse_at(
        place, "`store`: not a place we can write to", "a folder such as ./lake, or s3://bucket/prefix"
    )


def warehouse_path(text: str, base: Path, file: File) -> str:
    """The absolute path of a DuckDB file, from a path or `duckdb:///path` (four slashes: an absolute one)."""
    place = "warehouse.path" if "warehouse.path" in file.lines else "warehouse"
    hint = "for example: warehouse: duckdb:///warehouse.duckdb"
    scheme, found, rest = text.partition("://")
    if found and (scheme != "duckdb" or not rest.startswith("/") or len(rest) == 1):
        raise file.refuse_at(place, f"`{place}`: not a warehouse we know", hint)
    path = rest[1:] if found else text
    if path.endswith(":memory:"):
        raise file.refuse_at(
            place, f"`{place}`: dbt builds in a process of its own, so it needs a file", hint
        )
    return _path(path, base)


def write_text(config: Config, folder: Path | None) -> str:
    """The file that stands for a config."""
    base = folder.resolve() if folder is not None else None
    plain = HistoryNames()
    doc: dict[str, object] = {"pipeline": config.name, "source": _written_source(config.source, base)}
    url = _relative(config.store, base)
    options = {k: _written_option(k, v, base) for k, v in config.store_options.items()}
    doc["store"] = {"url": url} | options if options else url
    doc["tables"] = [_written_table(p, config, plain) for p in config.tables]
    doc |= {"mode": config.mode} if config.mode != "history" else {}
    doc |= {"history": _written_history(config.history)} if config.history != plain else {}
    lake = write_lake(config) | _written_files(config.files)
    doc |= {"lake": lake} if lake else {}
    doc |= _written_policies(config.policies, Policies())
    if config.warehouse is not None:
        doc["warehouse"] = _written(config.warehouse, WarehouseConfig(), base, "path")
    if config.names != Names():
        doc["names"] = {
            n: v for n in Names.__slots__ if (v := getattr(config.names, n)) != getattr(Names(), n)
        }
    default_dbt = DbtConfig(project=str(base / "dbt")) if base is not None else DbtConfig()
    if config.dbt != default_dbt:
        doc["dbt"] = _written(config.dbt, default_dbt, base, "project")
    doc |= {"mask_key": _reference_back(config.mask_key, base)} if config.mask_key else {}
    doc |= {"state": _relative(config.state, base)} if config.state else {}
    doc |= {"memory_limit": config.memory_limit} if config.memory_limit != "1GB" else {}
    text = yaml.safe_dump(doc, sort_keys=False, allow_unicode=True, width=100)
    if not _BREAKS.isdisjoint(text):
        # PyYAML writes these as they are, and reads them back as a space.
        text = yaml.safe_dump(doc, sort_keys=False, allow_unicode=False, width=100)
    return text


def _section(doc: Mapping[str, Plain], name: str) -> Mapping[str, Plain]:
    found = doc.get(name, {})
    return found if isinstance(found, Mapping) else {}


def _source(given: Mapping[str, Plain], file: File, base: Path) -> Mapping[str, object]:
    apart = [name for name in ("host", "port", "user", "dbname") if name in given]
    if "url" in given and apart:
        hint = "keep `url`, or keep host, port, user and dbname"
        raise file.refuse_at(f"source.{apart[0]}", f"`source.{apart[0]}` is in `source.url` already", hint)
    for needed in ("host", "user", "dbname") if "url" not in given else ():
        if needed not in given:
            hint = f"add: {needed}: ...   or: url: postgresql://headwater@db.example.com/shop"
            raise file.refuse_at("source", f"`source.{needed}` is missing", hint)
    source: dict[str, object] = dict(given)
    if "password" in source:
        source["password"] = _reference(str(source["password"]), base)
    if source.get("sslrootcert", "system") != "system":
        source["sslrootcert"] = _path(str(source["sslrootcert"]), base)
    return source


def _store_options(given: Mapping[str, Plain], url: str, file: File, base: Path) -> Mapping[str, str]:
    if given and not url.startswith("s3://"):
        name = next(iter(given))
        raise file.refuse_at(
            f"store.{name}", f"`store.{name}` is for buckets; a folder has no options", "store: ./lake"
        )
    if "sse_kms_key_id" in given and given.get("sse") != "aws:kms":
        raise file.refuse_at(
            "store.sse_kms_key_id", "`store.sse_kms_key_id` needs `sse`", "add: sse: aws:kms"
        )
    return {k: str(v).lower() if isinstance(v, bool) else _reference(str(v), base) for k, v in given.items()}


def _tables(doc: Mapping[str, Plain], file: File) -> tuple[tuple[str, ...], Mapping[str, TableSpec]]:
    entries = doc.get("tables", [{"name": "*.*"}])
    patterns: list[str] = []
    overrides: dict[str, TableSpec] = {}
    default = TableSpec(TableId("", ""), cast(Mode, doc.get("mode", "history")))
    lake = _section(doc, "lake")
    default = replace(
        default,
        history=_history(doc, HistoryNames(), "", file),
        formats=read_formats(lake, ()),
        csv_compression=cast(CsvCompression, lake.get("csv_compression", "gzip")),
        policies=_policies(doc, Policies()),
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
    history = _history(entry, default.history, f"{place}.", file)
    if "as" in entry and pattern.exact is None:
        message = f"`{place}.as` names one table, and {entry['name']} may be several"
        raise file.refuse_at(f"{place}.as", message, "name: public.orders   (or, for all tables: names)")
    made = TableSpec(
        table,
        mode,
        history,
        called=str(entry.get("as", "")),
        policies=_policies(entry, default.policies),
        columns=columns,
        masks=masks,
        files=_files(entry),
        formats=read_formats(entry, default.formats),
        csv_compression=cast(CsvCompression, entry.get("csv_compression", default.csv_compression)),
        **_choices(entry, file, place),
    )
    _refuse_choices(made, file, place)
    made = _placed(made, entry, file, f"{place}.partition")
    return _with_casts(made, entry, file, place)


def _with_casts(spec: TableSpec, entry: Mapping[str, Plain], file: File, place: str) -> TableSpec:
    given = cast(Mapping[str, Mapping[str, Plain]], _section(entry, "cast"))
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


def _files(entry: Mapping[str, Plain]) -> Files:
    given = _section(entry, "lake")
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


def _policies(entry: Mapping[str, Plain], default: Policies) -> Policies:
    given = {name: entry[name] for name in Policies.__slots__ if name in entry}
    return replace(default, **cast(Mapping[str, Any], given))


def _written_policies(policies: Policies, default: Policies) -> dict[str, object]:
    values = {name: getattr(policies, name) for name in Policies.__slots__}
    return {name: value for name, value in values.items() if value != getattr(default, name)}


def _masks(entry: Mapping[str, Plain]) -> Mapping[str, Mapping[str, Plain]]:
    return cast(Mapping[str, Mapping[str, Plain]], _section(entry, "masks"))


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


def _refuse_no_key(doc: Mapping[str, Plain], overrides: Mapping[str, TableSpec], file: File) -> None:
    """Masks that need a key need `mask_key`."""
    for number, entry in enumerate(cast(Sequence[Mapping[str, Plain]], doc.get("tables", ()))):
        spec = overrides.get(str(entry["name"]), TableSpec(TableId("", "")))
        for column, mask in spec.masks.items():
            if mask.kind in ("hash", "tokenize") and "mask_key" not in doc:
                place = f"tables[{number}].masks.{column}"
                hint = "mask_key: env:HEADWATER_MASK_KEY   (a key: openssl rand -hex 32)"
                raise file.refuse_at(place, f"`{place}`: {mask.kind} needs `mask_key`", hint)


def _history(entry: Mapping[str, Plain], default: HistoryNames, place: str, file: File) -> HistoryNames:
    given = _section(entry, "history")
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


def _warehouse(given: Mapping[str, Plain], base: Path, file: File) -> WarehouseConfig:
    made = replace(WarehouseConfig(), **given)  # type: ignore[arg-type]
    if made.schema == made.staging_schema:
        message = "`warehouse.schema` and `warehouse.staging_schema` must differ"
        raise file.refuse_at("warehouse", message, "staging_schema: headwater_staging")
    return replace(made, path=warehouse_path(made.path, base, file))


def _names(given: Mapping[str, Plain]) -> Names:
    current, history = str(given.get("current", "")), str(given.get("history", ""))
    return Names(current, history, cast(Case, given.get("case", "unique")))


def _dbt(given: Mapping[str, Plain], base: Path) -> DbtConfig:
    made = replace(DbtConfig(), **{k: str(v) for k, v in given.items()})
    return replace(made, project=_path(made.project, base))


def _path(text: str, base: Path) -> str:
    # Joined without resolving links, so that what is printed is what the user wrote.
    return os.path.normpath(base / os.path.expanduser(text))


def _reference(text: str, base: Path) -> str:
    return f"file:{_path(text.removeprefix('file:'), base)}" if text.startswith("file:") else text


def _written_option(name: str, value: str, base: Path | None) -> object:
    if name == "path_style":
        return value == "true"
    return int(value) if name == "timeout" else _reference_back(value, base)


def _reference_back(text: str, base: Path | None) -> str:
    return f"file:{_relative(text.removeprefix('file:'), base)}" if text.startswith("file:") else text


def _relative(text: str, base: Path | None) -> str:
    if base is None or not Path(text).is_relative_to(base) or text == str(base):
        return text
    return f"./{Path(text).relative_to(base)}"


def _written_source(source: Mapping[str, object], base: Path | None) -> dict[str, object]:
    written: dict[str, object] = {}
    for name, value in source.items():
        if isinstance(value, Secret):
            written[name] = f"env:{PASSWORD_VARIABLE}"
        elif name == "password":
            written[name] = _reference_back(str(value), base)
        elif name == "sslrootcert":
            written[name] = _relative(str(value), base)
        else:
            written[name] = value
    if holds_password(str(written.get("url", ""))):
        raise ConfigError("the source's URL has a password in it", hint=f"password: env:{PASSWORD_VARIABLE}")
    return written


def _written_table(pattern: str, config: Config, plain: HistoryNames) -> object:
    spec = config.overrides.get(pattern)
    if spec is None:
        return pattern
    entry: dict[str, object] = {"name": pattern, "mode": spec.mode}
    entry |= {"history": _written_history(spec.history)} if spec.history != config.history else {}
    entry |= {"columns": list(spec.columns)} if spec.columns else {}
    entry |= {"as": spec.called} if spec.called else {}
    entry |= _written_policies(spec.policies, config.policies)
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
    files = _written_files(spec.files)
    entry |= {"lake": files} if files else {}
    entry |= {"format": write_formats(spec.formats)} if spec.formats != config.formats else {}
    packed = spec.csv_compression
    return entry | ({"csv_compression": packed} if packed != config.csv_compression else {})


def _written_files(files: Files) -> dict[str, object]:
    values = {"compression": files.compression, "file_size": files.size, "slices": files.slices}
    return {name: value for name, value in values.items() if value}


def _written_history(names: HistoryNames) -> dict[str, object]:
    return {
        "valid_from": names.valid_from,
        "valid_to": names.valid_to,
        "current": names.current,
        "open_end": names.open_end,
    }


def _written(
    made: WarehouseConfig | DbtConfig, default: WarehouseConfig | DbtConfig, base: Path | None, path: str
) -> dict[str, object]:
    values = {name: getattr(made, name) for name in made.__slots__}
    kept = {k: v for k, v in values.items() if k == path or v != getattr(default, k)}
    return {k: _relative(str(v), base) if k == path else v for k, v in kept.items()}
