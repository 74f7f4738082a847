"""Iceberg's schema and partition spec of a lake table, under field numbers that stay with their columns."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pyarrow as pa

from headwater.formats.cells import file_layout
from headwater.lake import Held

if TYPE_CHECKING:
    from pyiceberg.partitioning import PartitionSpec
    from pyiceberg.schema import Schema
    from pyiceberg.table.metadata import TableMetadataV2
    from pyiceberg.types import PrimitiveType

_FIRST_PARTITION_FIELD = 1000


@dataclass(frozen=True, slots=True)
class Shape:
    """What a version needs of the metadata.

    anew   old snapshots cannot be read by it: a column has an incompatible type, or partitions are others
    """

    schema: Schema
    spec: PartitionSpec
    last_column: int
    last_partition: int
    anew: bool


def shape_of(held: Held, before: TableMetadataV2 | None) -> Shape:
    """The schema and spec of a lake version that go on from what the metadata had."""
    schema, last_column, odd = _schema(held, before)
    spec, last_partition, moved = _spec(held, schema, before)
    return Shape(schema, spec, last_column, last_partition, before is None or odd or moved)


def iceberg_types(layout: Mapping[str, pa.DataType]) -> dict[str, PrimitiveType]:
    """The Iceberg types of the lake's own files."""
    from pyiceberg import types

    simple: Mapping[pa.DataType, PrimitiveType] = {
        pa.bool_(): types.BooleanType(),
        pa.int8(): types.IntegerType(),
        pa.int16(): types.IntegerType(),
        pa.int32(): types.IntegerType(),
        pa.int64(): types.LongType(),
        pa.float32(): types.FloatType(),
        pa.float64(): types.DoubleType(),
        pa.string(): types.StringType(),
        pa.binary(): types.BinaryType(),
        pa.date32(): types.DateType(),
        pa.timestamp("us"): types.TimestampType(),
        pa.timestamp("us", "UTC"): types.TimestamptzType(),
    }
    return {
        name: types.DecimalType(kind.precision, kind.scale) if pa.types.is_decimal(kind) else simple[kind]
        for name, kind in file_layout(layout).items()
    }


def name_mapping(schema: Schema) -> str:
    """JSON that says which column of a file is which field: the lake's files have names, not numbers."""
    from pyiceberg.table.name_mapping import create_mapping_from_schema

    return create_mapping_from_schema(schema).model_dump_json()


def _schema(held: Held, before: TableMetadataV2 | None) -> tuple[Schema, int, bool]:
    from pyiceberg.schema import Schema
    from pyiceberg.types import NestedField

    wanted = iceberg_types(
        {**held.layout, **{n: pa.string() for n in held.partition if n not in held.layout}}
    )
    known = {field.name: field for field in before.schema().fields} if before else {}
    last, odd, fields = before.last_column_id if before else 0, False, []
    for name, kind in wanted.items():
        field = known.get(name)
        if field is None or not _fits(field.field_type, kind):
            odd = odd or field is not None
            last += 1
            number = last
        else:
            number = field.field_id
        fields.append(NestedField(number, name, kind, required=False))
    for schema in before.schemas if before and not odd else ():
        if list(schema.fields) == fields:
            return schema, last, odd
    number = max((s.schema_id for s in before.schemas), default=-1) + 1 if before else 0
    return Schema(*fields, schema_id=number), last, odd


def _fits(old: object, new: PrimitiveType) -> bool:
    """Whether Iceberg lets a column go from one type to the other."""
    from pyiceberg import types

    if isinstance(old, types.DecimalType) and isinstance(new, types.DecimalType):
        return old.scale == new.scale and old.precision <= new.precision
    wider = {types.IntegerType(): types.LongType(), types.FloatType(): types.DoubleType()}
    return old == new or any(old == narrow and new == wide for narrow, wide in wider.items())


def _spec(held: Held, schema: Schema, before: TableMetadataV2 | None) -> tuple[PartitionSpec, int, bool]:
    from pyiceberg.partitioning import PartitionField, PartitionSpec
    from pyiceberg.transforms import IdentityTransform

    last = (before.last_partition_id if before else None) or _FIRST_PARTITION_FIELD - 1
    sources = [schema.find_field(name).field_id for name in held.partition]
    if before is not None and _sources(before.spec()) == list(zip(held.partition, sources, strict=True)):
        return before.spec(), last, False
    number = max(s.spec_id for s in before.partition_specs) + 1 if before else 0
    fields = [
        PartitionField(source, last + place, IdentityTransform(), name)
        for place, (name, source) in enumerate(zip(held.partition, sources, strict=True), start=1)
    ]
    return PartitionSpec(*fields, spec_id=number), last + len(fields), True


def _sources(spec: PartitionSpec) -> Sequence[tuple[str, int]]:
    return [(field.name, field.source_id) for field in spec.fields]
