"""PostgreSQL under the suite of all sources."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from contracts.source import SourceContract
from headwater.model import TableId
from headwater.sources.postgres import PostgresSource
from postgres.rig import table
from servers.postgres import Database

_STATEMENTS = {
    "c": "insert into t(id, v) values (%(id)s, %(v)s)",
    "u": "update t set v = %(v)s where id = %(id)s",
    "d": "delete from t where id = %(id)s",
}


@dataclass
class PostgresWorld:
    db: Database
    source: PostgresSource
    table: TableId = table("t")

    def reopen(self) -> PostgresSource:
        self.source.close()
        return PostgresSource(url=self.db.url, slot="hw_test", publication="hw_test")

    def write(self, *changes: tuple[str, int, str | None]) -> None:
        with self.db.connect(autocommit=False) as connection:
            for op, number, text in changes:
                connection.execute(_STATEMENTS[op].encode(), {"id": number, "v": text})


@pytest.mark.live
@pytest.mark.parametrize("pg_version", [15, 16, 18])
class TestPostgres(SourceContract):
    @pytest.fixture
    def world(self, pg: Database) -> Iterator[PostgresWorld]:
        pg.run("create table t(id int primary key, v text)")
        made = PostgresWorld(pg, PostgresSource(url=pg.url, slot="hw_test", publication="hw_test"))
        yield made
        made.source.close()
