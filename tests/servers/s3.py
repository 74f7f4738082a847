"""S3 servers: moto for the full semantics, Ceph RGW because it is a real one that checks signatures."""

import shutil
import subprocess
import sys
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import boto3
from botocore.config import Config

from servers import end, free_ports, need, spawn, wait_for

_MOTO = """
import os, sys
from moto.server import ThreadedMotoServer
server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
server.start()
print(server.get_host_and_port()[1], flush=True)
sys.stdin.read()
os._exit(0)
"""


@dataclass(frozen=True)
class Bucket:
    """A bucket and what it takes to reach it."""

    endpoint: str
    key: str
    secret: str
    name: str
    region: str = "us-east-1"

    @property
    def url(self) -> str:
        """The bucket as `s3://name`."""
        return f"s3://{self.name}"

    @property
    def environment(self) -> dict[str, str]:
        """The environment variables that every S3 client understands."""
        return {
            "AWS_ACCESS_KEY_ID": self.key,
            "AWS_SECRET_ACCESS_KEY": self.secret,
            "AWS_REGION": self.region,
            "AWS_DEFAULT_REGION": self.region,
            "AWS_ENDPOINT_URL": self.endpoint,
            "AWS_ALLOW_HTTP": "true",
        }

    def via(self, endpoint: str) -> "Bucket":
        """Return the same bucket reached at another address, a proxy's."""
        return replace(self, endpoint=endpoint)

    def client(self, **options: Any) -> Any:
        """Return a boto3 client that does not retry."""
        return boto3.client(
            "s3",
            endpoint_url=self.endpoint,
            aws_access_key_id=self.key,
            aws_secret_access_key=self.secret,
            region_name=self.region,
            config=Config(s3={"addressing_style": "path"}, retries={"total_max_attempts": 1}, **options),
        )

    def keys(self) -> list[str]:
        """Return the names of all objects, sorted."""
        pages = self.client().get_paginator("list_objects_v2").paginate(Bucket=self.name)
        return sorted(item["Key"] for page in pages for item in page.get("Contents", []))


@dataclass(frozen=True)
class S3Server:
    """A running S3 server with one user."""

    kind: str
    endpoint: str
    key: str
    secret: str

    def make_bucket(self) -> Bucket:
        """Create a bucket with a new name."""
        bucket = Bucket(self.endpoint, self.key, self.secret, f"b-{uuid.uuid4().hex[:12]}")
        bucket.client().create_bucket(Bucket=bucket.name)
        return bucket


@contextmanager
def run_moto() -> Iterator[S3Server]:
    """Run moto in a process of its own, which ends when we do."""
    process = subprocess.Popen(
        [sys.executable, "-c", _MOTO],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    assert process.stdin and process.stdout
    try:
        port = int(process.stdout.readline())
        yield S3Server("moto", f"http://127.0.0.1:{port}", "testkey", "testsecret")
    finally:
        process.stdin.close()
        process.wait(10)
        process.stdout.close()


@contextmanager
def run_ceph(folder: Path) -> Iterator[S3Server]:
    """Run a Ceph monitor, an in-memory OSD and the S3 gateway: about 12 s and 1 GB."""
    programs = ("ceph-mon", "ceph-osd", "radosgw", "radosgw-admin", "monmaptool", "ceph")
    need(all(map(shutil.which, programs)), "make setup  (apt-get install ceph-mon ceph-osd radosgw)")
    mon2, mon1, rgw = free_ports(3)
    config = _write_ceph_config(folder, mon2, mon1)
    log = folder / "log" / "daemons.log"
    daemons: list[subprocess.Popen[bytes]] = []

    def call(*command: str) -> None:
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 0, f"{command}: {done.stderr[-2000:]}"

    try:
        monmap, fsid, osd = str(folder / "monmap"), str(uuid.uuid4()), str(uuid.uuid4())
        addresses = f"[v2:127.0.0.1:{mon2},v1:127.0.0.1:{mon1}]"
        call("monmaptool", "--create", "--fsid", fsid, "--addv", "a", addresses, monmap)
        call("ceph-mon", "-c", config, "--fsid", fsid, "--mkfs", "-i", "a", "--monmap", monmap)
        daemons.append(spawn(["ceph-mon", "-f", "-c", config, "--fsid", fsid, "-i", "a"], log))
        call("ceph", "-c", config, "--connect-timeout", "30", "osd", "new", osd)
        call("ceph-osd", "-c", config, "--fsid", fsid, "-i", "0", "--mkfs", "--osd-uuid", osd)
        daemons.append(spawn(["ceph-osd", "-f", "-c", config, "--fsid", fsid, "-i", "0"], log))
        user = (
            "--uid",
            "test",
            "--display-name",
            "test",
            "--access-key",
            "testkey",
            "--secret",
            "testsecret",
        )
        call("radosgw-admin", "-c", config, "user", "create", *user)
        frontend = f"beast endpoint=127.0.0.1:{rgw}"
        daemons.append(
            spawn(["radosgw", "-f", "-c", config, "-n", "client.admin", "--rgw-frontends", frontend], log)
        )
        server = S3Server("ceph", f"http://127.0.0.1:{rgw}", "testkey", "testsecret")
        wait_for(lambda: _answers(server), "the Ceph S3 gateway", 60)
        yield server
    finally:
        for daemon in reversed(daemons):
            end(daemon)


def _answers(server: S3Server) -> bool:
    try:
        Bucket(server.endpoint, server.key, server.secret, "").client().list_buckets()
    except Exception:
        return False
    return True


def _write_ceph_config(folder: Path, mon2: int, mon1: int) -> str:
    """Write ceph.conf for one monitor and one OSD on loopback, without authentication between them."""
    for name in ("mon", "osd", "rgw", "run", "log"):
        (folder / name).mkdir(parents=True)
    (low,) = free_ports(1)
    lines = {
        "mon host": f"[v2:127.0.0.1:{mon2}/0,v1:127.0.0.1:{mon1}/0]",
        "public addr": "127.0.0.1",
        "ms bind port min": min(low, 65000),
        "ms bind port max": min(low, 65000) + 200,
        "auth cluster required": "none",
        "auth service required": "none",
        "auth client required": "none",
        "auth supported": "none",
        # The gateway asks its monitor for encryption by default, which needs authentication.
        "ms mon client mode": "crc",
        "run dir": folder / "run",
        "admin socket": "",
        "log file": folder / "log" / "$name.log",
        "pid file": folder / "run" / "$name.pid",
        "mon data": folder / "mon",
        "osd data": folder / "osd",
        "rgw data": folder / "rgw",
        "crash dir": folder / "run",
        "osd pool default size": 1,
        "osd pool default min size": 1,
        "osd crush chooseleaf type": 0,
        "osd pool default pg num": 4,
        "osd pool default pgp num": 4,
        "osd pool default pg autoscale mode": "off",
        "mon allow pool size one": "true",
        "mon max pg per osd": 1000,
        # A nearly full disk of the machine is nothing to this in-memory store.
        "mon data avail crit": 1,
        "osd objectstore": "memstore",
        "memstore device bytes": 4 << 30,
    }
    config = folder / "ceph.conf"
    config.write_text("[global]\n" + "".join(f"{name} = {value}\n" for name, value in lines.items()))
    return str(config)
