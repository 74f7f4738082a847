"""Connecting: TLS verified unless told otherwise, the same settings everywhere, no secret in any error."""

from __future__ import annotations

import traceback
from collections.abc import Callable
from pathlib import Path
from urllib.parse import quote

import pytest

from headwater.demo.server import EmbeddedPostgres
from headwater.errors import ConfigError, HeadwaterError, SourceError
from headwater.sources.postgres import PostgresSource, connect
from headwater.sources.postgres.connect import make_server
from headwater.sources.postgres.values import SETTINGS
from postgres.rig import following, opened, table
from servers import free_ports
from servers.postgres import Database
from servers.tls import Certificates

pytestmark = pytest.mark.live
CANARY = "c4n%ary/S3cret"


def plain(url: str, host: str = "127.0.0.1") -> str:
    return url.replace("?sslmode=disable", "").replace("@127.0.0.1", f"@{host}")


def refused(url: str, **options: object) -> HeadwaterError:
    with opened(url, **options) as source, pytest.raises(SourceError) as caught:
        source.tables()
    assert caught.value.hint
    return caught.value


def test_a_server_without_tls_is_refused_unless_told_otherwise(pg: Database) -> None:
    assert "sslmode=disable" in refused(plain(pg.url)).hint
    for source in (pg.url, plain(pg.url) + "?sslmode=prefer"):
        with opened(source) as fine:
            assert fine.tables() == []
    with opened(plain(pg.url), sslmode="disable") as fine:
        assert fine.tables() == []


def test_a_unix_socket_needs_no_tls(pg: Database) -> None:
    server = pg.server
    with opened(
        "",
        host=str(server.socket_folder),
        port=server.port,
        user="postgres",
        password=server.password,
        dbname=pg.name,
    ) as source:
        assert source.tables() == []


def test_the_authority_is_checked(
    pg_tls: Callable[[str], EmbeddedPostgres],
    certificates: Certificates,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    url = plain(pg_tls("good").url, "localhost")
    assert "sslrootcert" in refused(url).hint  # nobody the system trusts has signed it
    with opened(url, sslrootcert=str(certificates.ca)) as source:
        assert source.tables() == []
        assert source._session().pgconn.ssl_in_use
    with opened(f"{url}?sslrootcert={quote(str(certificates.ca))}") as source:
        assert source.tables() == []
    home = tmp_path / ".postgresql"
    home.mkdir()
    (home / "root.crt").write_bytes(certificates.ca.read_bytes())
    monkeypatch.setenv("HOME", str(tmp_path))
    with opened(url) as source:
        assert source.tables() == []
        with source.cut():
            pass


def test_the_system_s_authorities_are_a_file_that_exists() -> None:
    found = connect._system_authorities()
    assert found == "system" or Path(found).is_file()


@pytest.mark.parametrize(("kind", "words"), [("wrong_host", "host name"), ("expired", "sslrootcert")])
def test_a_wrong_certificate_is_refused(
    pg_tls: Callable[[str], EmbeddedPostgres], certificates: Certificates, kind: str, words: str
) -> None:
    url = plain(pg_tls(kind).url, "localhost")
    assert words in refused(url, sslrootcert=str(certificates.ca)).hint


def test_big_rows_over_tls(pg_tls: Callable[[str], EmbeddedPostgres], certificates: Certificates) -> None:
    """OpenSSL keeps decrypted bytes that no poll of the socket shows."""
    db = Database(pg_tls("good"))
    db.create()
    db.run("create table a(id int primary key, v text)")
    db.run("insert into a select i, repeat(md5(i::text), 3000) from generate_series(1, 200) i")
    with following(
        db, "a", url=plain(db.url, "localhost"), sslrootcert=str(certificates.ca), slot="hw_tls"
    ) as follower:
        with follower.source.cut() as cut:
            assert sum(b.rows.num_rows for b in cut.read(table("a"))) == 200
        db.run("insert into a select id + 1000, v || 'x' from a")
        db.run("update a set v = v || 'y'")
        assert len(follower.drain()) == 600
    db.drop()


@pytest.mark.parametrize("pg_version", [15, 18])
def test_every_session_has_the_same_settings(pg: Database) -> None:
    for setting in ("datestyle = 'SQL, DMY'", "timezone = 'Asia/Kolkata'", "search_path = 'nowhere'"):
        pg.run(f"alter database {pg.name} set {setting}")
    pg.run(f"alter database {pg.name} set statement_timeout = '9s'")
    server = make_server(pg.url, {})
    for made in (server.session, server.reader, server.sender):
        connection = made()
        for name, value in {**SETTINGS, "search_path": "pg_catalog"}.items():
            result = connection.pgconn.exec_(f"show {name}".encode())
            assert (result.get_value(0, 0) or b"").decode().split(",")[0] == value, (made, name)
        limit = connection.pgconn.exec_(b"show statement_timeout").get_value(0, 0)
        assert limit == (b"1min" if made == server.session else b"0")
        connection.close()


def test_parameters_win_over_the_url_and_its_options_stay() -> None:
    server = make_server("postgresql://u:p@h:1/d?options=-c%20jit%3Doff", {"port": 2, "user": None})
    assert (server.params["host"], server.params["port"], server.params["user"]) == ("h", "2", "u")
    assert server.params["sslmode"] == "verify-full"
    assert "p" not in repr(server).replace("repr", "").replace(
        "Server", ""
    ).lower() or "password" not in repr(server)
    assert make_server("postgresql://h/d?sslmode=verify-ca", {}).params.get("sslrootcert") is None
    with pytest.raises(ConfigError, match="no database"):
        make_server("postgresql://h", {})


def test_no_error_shows_the_password(pg: Database, capsys: pytest.CaptureFixture[str]) -> None:
    pg.run("create table a(id int primary key)")
    (dead,) = free_ports(1)
    name, _ = pg.add_role("login")
    here = f"127.0.0.1:{pg.server.port}/{pg.name}"
    shown: list[str] = []

    def fail(act: Callable[[], object]) -> None:
        try:
            act()
        except HeadwaterError as error:
            shown.extend([str(error), error.hint, repr(error), "".join(traceback.format_exception(error))])
        else:
            pytest.fail("did not fail")

    def use(url: str | None, **options: object) -> Callable[[], object]:
        return lambda: PostgresSource(url=url, slot="s", publication="p", **options).tables()  # type: ignore[arg-type]

    encoded = quote(CANARY, safe="")
    for url in (
        f"postgresql://postgres:{CANARY}@{here}",  # %ar is no escape: the driver quotes it
        f"postgresql://postgres:{encoded}@{here}?nonsense={encoded}",
        f"postgresql://postgres:{encoded}@{here}",
        f"postgresql://postgres:{encoded}@{here}?sslmode=disable",
        f"postgresql://postgres:{encoded}@127.0.0.1:{dead}/x?sslmode=disable",
        f"postgresql://postgres:{encoded}@no.such.host.invalid/x",
        f"postgresql://postgres:{encoded}@{here}?sslmode={encoded}",
        f"host=127.0.0.1 password='{CANARY} port=x",
    ):
        fail(use(url))
    parts = {"host": "127.0.0.1", "port": pg.server.port, "dbname": pg.name, "sslmode": "disable"}
    fail(use(None, password=CANARY, user=name, **parts))
    pg.run(f"alter role {name} password '{CANARY}'")
    weak = PostgresSource(user=name, password=CANARY, slot="s", publication="p", **parts)  # type: ignore[arg-type]
    assert weak.tables()
    fail(lambda: weak.prepare([table("a")], None))
    fail(weak.head)
    fail(lambda: weak.cut().__enter__())
    shown.extend([repr(weak), repr(vars(weak)), *capsys.readouterr()])
    weak.close()
    text = "\n".join(shown)
    for secret in (CANARY, encoded, "S3cret", "ary/"):
        assert secret not in text
