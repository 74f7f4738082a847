"""Fixtures for every test: databases, S3 buckets, and a clean environment."""

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from headwater.demo.server import EmbeddedPostgres
from servers.postgres import Database, make_server, run_tls_server
from servers.s3 import Bucket, S3Server, run_ceph, run_moto
from servers.tls import Certificates, make_certificates

# Two busy cores make every deadline a coin toss.
settings.register_profile("headwater", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("headwater")

# A developer's own database or cloud account is never what a test means.
for _name in [name for name in os.environ if name.startswith(("PG", "AWS_"))]:
    del os.environ[_name]
os.environ["AWS_EC2_METADATA_DISABLED"] = "true"


@pytest.fixture(scope="session")
def pg_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[int], EmbeddedPostgres]]:
    """Return a shared, running server of a major version: `pg_server(15)`."""
    running: dict[int, EmbeddedPostgres] = {}

    def get(version: int) -> EmbeddedPostgres:
        if version not in running:
            server = make_server(tmp_path_factory.mktemp(f"pg{version}"), version)
            server.start()
            running[version] = server
        return running[version]

    yield get
    for server in running.values():
        server.remove()


@pytest.fixture
def pg_version() -> int:
    """The version behind `pg`; for others: `@pytest.mark.parametrize("pg_version", [15, 16, 18])`."""
    return 15


@pytest.fixture
def pg(pg_server: Callable[[int], EmbeddedPostgres], pg_version: int) -> Iterator[Database]:
    """A new database on the shared server, dropped after the test with its slots, sessions and roles."""
    database = Database(pg_server(pg_version))
    database.create()
    yield database
    database.drop()


@pytest.fixture
def pg_own(tmp_path: Path) -> Iterator[Callable[..., EmbeddedPostgres]]:
    """Start a server that the test may break: `pg_own(15, max_slot_wal_keep_size="32MB")`."""
    with ExitStack() as cleanup:

        def start(version: int = 15, **options: str | int) -> EmbeddedPostgres:
            server = make_server(tmp_path / f"pg-{len(list(tmp_path.iterdir()))}", version, **options)
            cleanup.callback(server.remove)
            server.start()
            return server

        yield start


@pytest.fixture(scope="session")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    """A certificate authority (`certificates.ca` is the file to trust) and what it issued."""
    return make_certificates(tmp_path_factory.mktemp("ca"))


@pytest.fixture(scope="session")
def pg_tls(
    tmp_path_factory: pytest.TempPathFactory, certificates: Certificates
) -> Iterator[Callable[[str], EmbeddedPostgres]]:
    """Return a shared server with a `good`, `wrong_host` or `expired` certificate: `pg_tls("good")`."""
    running: dict[str, EmbeddedPostgres] = {}
    with ExitStack() as cleanup:

        def get(kind: str) -> EmbeddedPostgres:
            if kind not in running:
                folder = tmp_path_factory.mktemp(f"tls-{kind}")
                running[kind] = cleanup.enter_context(run_tls_server(folder, certificates, kind))
            return running[kind]

        yield get


@pytest.fixture(scope="session")
def moto() -> Iterator[S3Server]:
    """The moto S3 server: full semantics, accepts any secret."""
    with run_moto() as server:
        yield server


@pytest.fixture(scope="session")
def ceph(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    """A real S3 server (Ceph RGW) that checks signatures."""
    with run_ceph(tmp_path_factory.mktemp("ceph")) as server:
        yield server


@pytest.fixture
def s3(moto: S3Server) -> Bucket:
    """A new bucket on moto."""
    return moto.make_bucket()


@pytest.fixture
def s3_real(ceph: S3Server) -> Bucket:
    """A new bucket on Ceph RGW."""
    return ceph.make_bucket()
