"""The formats of lake tables in a pipeline file: what is published, how, and where it is registered."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import cast

from headwater.config import Config, GlueConfig
from headwater.config.reader import File, Plain


def read_formats(entry: Mapping[str, Plain], default: tuple[str, ...]) -> tuple[str, ...]:
    """The views, each once, in the order given. Delta is not one: it is always there."""
    given = cast(Sequence[str], entry.get("format", default))
    return tuple(dict.fromkeys(name for name in given if name != "delta"))


def read_glue(lake: Mapping[str, Plain], url: str, file: File) -> GlueConfig | None:
    """The Glue catalogue, if one is named."""
    given = cast(Mapping[str, Plain], lake.get("glue", {}))
    if not given:
        return None
    if not url.startswith("s3://"):
        message = "`lake.glue`: the catalogue can only name files in S3, and the store is a folder"
        raise file.refuse_at("lake.glue", message, "store: s3://bucket/prefix   (or take lake.glue out)")
    return replace(GlueConfig(""), **{name: str(value) for name, value in given.items()})


def write_formats(formats: tuple[str, ...]) -> object:
    """The formats of a table as a file says them."""
    return list(formats) or "delta"


def write_lake(config: Config) -> dict[str, object]:
    """The section `lake`; empty where all is as it is without one."""
    lake: dict[str, object] = {"compact": config.compact} if config.compact != "auto" else {}
    lake |= {"format": write_formats(config.formats)} if config.formats else {}
    packed = config.csv_compression
    lake |= {"csv_compression": packed} if packed != "gzip" else {}
    if config.glue is not None:
        glue = {name: getattr(config.glue, name) for name in config.glue.__slots__}
        lake["glue"] = {name: value for name, value in glue.items() if value}
    return lake
