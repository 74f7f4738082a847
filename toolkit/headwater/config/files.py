"""From a pipeline file to a `Config` and back."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import cast

import yaml

from headwater.config import (
    Case,
    Compact,
    Config,
    CsvCompression,
    DbtConfig,
    HistoryNames,
    Mode,
    Names,
    Policies,
    WarehouseConfig,
)
from headwater.config.fields import FILE
from headwater.config.formats import read_formats, read_glue, write_lake
from headwater.config.quality import read_quality, write_quality
from headwater.config.reader import File, Plain, holds_password, read
from headwater.config.tables import (
    read_files,
    read_history,
    read_policies,
    read_tables,
    refuse_no_key,
    section,
    write_files,
    write_history,
    write_policies,
    write_table,
)
from headwater.errors import ConfigError
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
    source = _source(section(doc, "source"), file, base)
    store = dict(section(doc, "store"))
    url = store_url(str(store.pop("url")), base, file)
    tables, overrides = read_tables(doc, file)
    refuse_no_key(doc, overrides, file)
    lake = section(doc, "lake")
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
        history=read_history(doc, HistoryNames(), "", file),
        compact=cast(Compact, lake.get("compact", "auto")),
        files=read_files(doc),
        formats=formats,
        csv_compression=cast(CsvCompression, lake.get("csv_compression", "gzip")),
        glue=glue,
        policies=read_policies(doc, Policies()),
        quality=read_quality(doc, file),
        warehouse=_warehouse(section(doc, "warehouse"), base, file) if "warehouse" in doc else None,
        names=_names(section(doc, "names")),
        dbt=_dbt(section(doc, "dbt"), base),
        mask_key=_reference(str(doc["mask_key"]), base) if "mask_key" in doc else "",
        sign_key=_reference(str(sign), base) if (sign := section(doc, "verify").get("sign")) else "",
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
    doc["tables"] = [write_table(p, config, plain) for p in config.tables]
    doc |= {"mode": config.mode} if config.mode != "history" else {}
    doc |= {"history": write_history(config.history)} if config.history != plain else {}
    lake = write_lake(config) | write_files(config.files)
    doc |= {"lake": lake} if lake else {}
    doc |= write_policies(config.policies, Policies()) | write_quality(config.quality)
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
    doc |= {"verify": {"sign": _reference_back(config.sign_key, base)}} if config.sign_key else {}
    doc |= {"state": _relative(config.state, base)} if config.state else {}
    doc |= {"memory_limit": config.memory_limit} if config.memory_limit != "1GB" else {}
    text = yaml.safe_dump(doc, sort_keys=False, allow_unicode=True, width=100)
    if not _BREAKS.isdisjoint(text):
        # PyYAML writes these as they are, and reads them back as a space.
        text = yaml.safe_dump(doc, sort_keys=False, allow_unicode=False, width=100)
    return text


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


def _written(
    made: WarehouseConfig | DbtConfig, default: WarehouseConfig | DbtConfig, base: Path | None, path: str
) -> dict[str, object]:
    values = {name: getattr(made, name) for name in made.__slots__}
    kept = {k: v for k, v in values.items() if k == path or v != getattr(default, k)}
    return {k: _relative(str(v), base) if k == path else v for k, v in kept.items()}
