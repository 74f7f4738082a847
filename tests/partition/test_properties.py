"""Layouts print back; folders are injective and readable again; numbers and dates as Python says them."""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from pathlib import Path

import duckdb
import pyarrow as pa
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from headwater.errors import ConfigError, HeadwaterError
from headwater.folders import LONGEST, Folder, escape, unfold
from headwater.model import Column, TableId, TableSchema
from headwater.partition import CODES, Layout, Segment, Use, folder_sql, parse

DB = duckdb.connect()


def folders(layout: str, values: Sequence[object], kind: pa.DataType) -> list[str]:
    """The folder of each value, in order."""
    schema = TableSchema(TableId("public", "t"), (Column("v", kind),))
    [sql] = folder_sql(parse(layout), schema)
    given = pa.table({"n": range(len(values)), "v": pa.array(values, kind)})
    DB.register("given", given)
    return [row[0] for row in DB.execute(f"SELECT {sql} FROM given ORDER BY n").fetchall()]


def _fixed(without: str) -> st.SearchStrategy[str]:
    letters = st.characters(exclude_characters=without, exclude_categories=("Cc", "Cs"))
    return st.text(letters, min_size=1, max_size=4)


def _uses(spelling: str) -> st.SearchStrategy[Use]:
    most = 1000 if spelling[-1] == "s" else 39
    width = st.integers(1, most) if "%<" in spelling else st.none()
    zeros = st.integers(1, 38) if "." in spelling else st.none()
    return st.builds(Use, st.just(spelling[-1]), width, zeros)


@st.composite
def segments(draw: st.DrawFn, name: str) -> Segment:
    column = draw(
        st.integers(1, 10**8) | st.text(st.characters(exclude_categories=("Cs",)), min_size=1, max_size=6)
    )
    parts: list[str | Use] = [draw(st.sampled_from(list(CODES)).flatmap(_uses))]
    for part in draw(st.lists(_fixed("/=") | st.sampled_from(list(CODES)).flatmap(_uses), max_size=4)):
        if not (isinstance(part, str) and isinstance(parts[-1], str)):
            parts.append(part)
    if draw(st.booleans()):
        parts.insert(0, draw(_fixed("/=")))
    return Segment(column, name, tuple(parts))


@st.composite
def layouts(draw: st.DrawFn) -> Layout:
    names = draw(
        st.lists(
            st.just("") | _fixed("/="), min_size=1, max_size=3, unique_by=lambda n: n.casefold() or object()
        )
    )
    return Layout(tuple(draw(segments(name)) for name in names))


@given(layouts())
def test_a_layout_reads_back_as_it_prints(layout: Layout) -> None:
    text = str(layout)
    assert parse(text) == layout
    assert str(parse(text)) == text


@given(st.text(st.sampled_from(list('/@(%)="17yMis. aé\n')), max_size=14) | st.text(max_size=8))
@example("/@1(%")
@example("/@" + "9" * 5000 + "(a=%s)")
@example("/@1(%" + "9" * 5000 + "s)")
def test_any_text_is_a_layout_or_refused_with_a_hint(text: str) -> None:
    try:
        printed = str(parse(text))
    except ConfigError as refused:
        assert refused.hint
        caret = str(refused).split("\n")[-1]
        assert caret.strip() == "^"
    else:
        assert str(parse(printed)) == printed


TEXTS = (
    st.text(st.characters(exclude_categories=("Cs",)), max_size=60)
    | st.text(st.sampled_from(list("a_.%/=~ é\u0301日😀")), max_size=60)
    | st.sampled_from(["__HIVE_DEFAULT_PARTITION__", "__EMPTY__", "%5F", ".", "..", "", "a" * 150, "a" * 151])
)


@settings(max_examples=25, deadline=None)
@given(
    st.lists(TEXTS | st.none(), min_size=2, max_size=40, unique=True),
    st.sampled_from(["/@1(v=%s)", "/@1(%s)"]),
)
def test_folders_of_text_are_injective_safe_and_readable_again(values: list[str | None], layout: str) -> None:
    found = folders(layout, values, pa.string())
    assert len(set(found)) == len(values)
    for value, folder in zip(values, found, strict=True):
        read = unfold(folder)
        assert read.name == ("v" if "v=" in layout else "")
        assert len(folder.encode()) <= LONGEST + 2
        text = folder.removeprefix("v=")
        assert not set(text) & set('/\\=~ \0\n:*?"<>|') or read.cut
        assert value is None or not text.startswith((".", "_")) or value == ""
        if read.cut:
            assert value is not None and len(escape(value).encode()) > LONGEST
            assert read.value is not None and len(read.value) <= 24
        else:
            assert read.value == value


@settings(max_examples=25, deadline=None)
@given(
    st.lists(
        st.text(st.characters(codec="latin-1", exclude_characters="\0"), min_size=1, max_size=20),
        min_size=1,
        max_size=20,
    )
)
def test_the_fixed_text_is_escaped_as_values_are(values: list[str]) -> None:
    # No layout has a NUL in its text; DuckDB escapes all of a value that has one.
    assert folders("/@1(%s)", values, pa.string()) == [escape(v) for v in values]


def test_long_values_that_begin_alike_have_folders_of_their_own() -> None:
    values = ["x" * 200 + str(n) for n in range(500)]
    found = folders("/@1(v=%s)", values, pa.string())
    assert len(set(found)) == 500
    assert all(unfold(folder) == Folder("v", "x" * 24, cut=True) for folder in found)


@settings(max_examples=25, deadline=None)
@given(
    st.lists(st.integers(-(2**63), 2**63 - 1) | st.integers(-1000, 1000), min_size=1, max_size=30),
    st.integers(1, 39), st.integers(1, 38),
)  # fmt: skip
def test_numbers(values: list[int], width: int, zeros: int) -> None:
    kind = pa.int64()
    cut = [abs(v) // 10**zeros * 10**zeros * (-1 if v < 0 else 1) for v in values]
    assert folders("/@1(%i)", values, kind) == [str(v) for v in values]
    assert folders(f"/@1(%{width}i)", values, kind) == [f"{v:0{width}d}" for v in values]
    assert folders(f"/@1(%.{zeros}i)", values, kind) == [str(v) for v in cut]
    assert folders(f"/@1(%{width}.{zeros}i)", values, kind) == [f"{v:0{width}d}" for v in cut]
    whole = [f"{v:0{width}d}" for v in cut]
    assert folders(f"/@1(%{width}.{zeros}i)", values, pa.decimal128(38, 0)) == whole


@settings(max_examples=25, deadline=None)
@given(st.lists(st.datetimes(), min_size=1, max_size=30))
def test_dates_and_times(values: list[dt.datetime]) -> None:
    def said(v: dt.datetime) -> str:
        quarter, half = (v.month - 1) // 3, (v.month - 1) // 6
        parts = [
            f"{v.year:04}",
            v.month,
            v.day,
            v.hour,
            quarter * 3 + 1,
            quarter * 3 + 3,
            half * 6 + 1,
            half * 6 + 6,
        ]
        return "-".join(f"{part:0>2}" for part in map(str, parts))

    layout = "/@1(%y-%M-%d-%H-%q-%Q-%r-%R)"
    assert folders(layout, values, pa.timestamp("us")) == [said(v) for v in values]
    utc = [v.replace(tzinfo=dt.UTC) for v in values]
    assert folders(layout, utc, pa.timestamp("us", "UTC")) == [said(v) for v in values]
    days = [dt.datetime(v.year, v.month, v.day) for v in values]
    assert folders(layout, [v.date() for v in values], pa.date32()) == [said(v) for v in days]


@pytest.mark.parametrize("name", ["v=", "", "v=%", "v=%ZZ", "v=%C3", "v=%e9", "=a"])
def test_other_folders_are_refused(name: str) -> None:
    with pytest.raises(HeadwaterError, match="no layout writes"):
        unfold(name)


def test_duckdb_reads_the_folders_as_hive_partitions(tmp_path: Path) -> None:
    values = ["a/b", "é日", "x y", "%41", "..", "_a", None, "a=b", "😀"]
    for number, folder in enumerate(folders("/@1(v=%s)", values, pa.string())):
        (tmp_path / folder).mkdir()
        DB.execute(f"COPY (SELECT {number} AS n) TO '{tmp_path / folder}/f.parquet'")
    found = DB.execute(
        f"SELECT v FROM read_parquet('{tmp_path}/*/f.parquet', hive_partitioning = true,"
        " hive_types = {'v': VARCHAR}) ORDER BY n"
    ).fetchall()
    assert [row[0] for row in found] == values
