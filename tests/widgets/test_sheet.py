"""`show`: any rows as a small table, for people and for readers without a kernel."""

from dataclasses import dataclass
from datetime import UTC, datetime

import duckdb

from headwater_widgets import show


@dataclass
class Row:
    first_name: str
    rows: int
    at: datetime | None = None
    ready: bool = True


def html(*what: object, **more: str) -> str:
    return show(*what, **more)._repr_html_()  # type: ignore[arg-type]


def test_names_and_values_are_text() -> None:
    hostile = "<img src=x onerror=alert(1)>"
    con = duckdb.connect()
    con.execute(f'CREATE TABLE t ("{hostile}" text)')
    con.execute("INSERT INTO t VALUES (?)", [hostile + "\u202e\x00"])
    for page in (html(con.table("t")), html([{hostile: hostile}], title=hostile), html({hostile: hostile})):
        assert "<img" not in page and "&lt;img" in page and "\u202e" not in page and "\x00" not in page


def test_a_null_is_not_an_empty_text_and_a_key_not_a_count() -> None:
    con = duckdb.connect()
    page = html(
        con.sql("SELECT NULL AS a_b, '' AS c, 20131231 AS d, 0.1 + 0.2 AS e, TIMESTAMP '2026-05-01' AS f")
    )
    assert ">NULL<" in page and "><" in page and ">20131231<" in page and ">0.3<" in page and ">a_b<" in page
    assert str(show(con.sql("SELECT 1 AS x, NULL AS y"))).split() == ["x", "y", "1", "NULL"]


def test_columns_are_chosen_by_name_whatever_they_are_called() -> None:
    con = duckdb.connect()
    relation = con.sql("""SELECT 1 AS "select", 2 AS "a""b", 3 AS "c d" """)
    assert str(show(relation, 'a"b', "select")).split() == ['a"b', "select", "2", "1"]


def test_rows_of_ours_read_as_words_and_counts() -> None:
    said = str(show([Row("a", 336776, datetime(2026, 5, 1, tzinfo=UTC)), Row("b", 1, ready=False)]))
    assert "first name" in said and "336,776" in said and "2026-05-01 00:00:00" in said
    assert said.splitlines()[-1].split() == ["b", "1", "no"]
    assert "may_be_a_column" in str(show([{"may_be_a_column": 1}, {"later": 2}])) and "later" in str(
        show([{}, {"later": 2}])
    )


def test_many_rows_are_cut_and_none_are_said() -> None:
    relation = duckdb.connect().sql("FROM range(1000)")
    assert html(relation).count("<tr>") == 21 and "and more rows" in html(relation)
    assert html([{"n": n} for n in range(50)]).count("<tr>") == 21
    assert "none" in html([]) and "none" in str(show([], "a", "b"))
