"""Disks and networks that fail, settings that are wrong: a named error with a hint, never a wrong answer."""

import hashlib
import http.client
import http.server
import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pytest

from headwater.errors import ConfigError, Corrupt, HeadwaterError, StorageError
from headwater.model import ChangeBatch, Position
from headwater.raw import RawLog
from headwater.storage import Storage
from raw.batches import SCHEMA, make_batch, open_bucket, with_meta
from servers import need
from servers.proxy import HttpProxy, TcpProxy
from servers.s3 import Bucket

SECRET = "canary-5f2e-secret"
TOKEN = "canary-77aa-token"


@pytest.fixture
def proxy(s3: Bucket) -> Iterator[HttpProxy]:
    with HttpProxy(s3.endpoint) as proxy:
        yield proxy


def say(error: BaseException) -> str:
    """All that a user could see of an error."""
    import traceback

    return "".join(traceback.format_exception(error)) + repr(error) + getattr(error, "hint", "")


# ---------------------------------------------------------------- disks


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 2 MB."""
    need(os.geteuid() == 0, "run as root (mount -t tmpfs)")
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(disk)], check=False)
    need(mounted.returncode == 0, "the right to mount a tmpfs")
    yield disk
    subprocess.run(["umount", "-l", str(disk)], check=True)


def test_a_full_disk(small_disk: Path) -> None:
    with Storage.open(str(small_disk / "lake"), cache=small_disk) as storage:
        log = RawLog(storage)
        log.append([log.stage(make_batch(10), 1, 0)], Position("a"), 40)
        noise = pa.array([os.urandom(3 << 20).hex()], pa.string())
        too_big = ChangeBatch(SCHEMA, with_meta(SCHEMA, [pa.array([1], pa.int64()), noise]))
        with pytest.raises(StorageError, match=r"no space left on .*/lake: [012] MB free") as caught:
            log.stage(too_big, 1, 40)
        assert "df" in caught.value.hint
        (filler := small_disk / "filler").write_bytes(b"x" * (os.statvfs(small_disk).f_bavail * 4096))
        with pytest.raises(StorageError, match="no space left"):
            storage.create("raw/x", b"y" * 5000)
        with pytest.raises(StorageError, match="no space left"):
            log.append([], Position("b"), 40)
        filler.unlink()
        left = [p for p in small_disk.rglob("*") if p.is_file() and ".scratch" in p.parts]
        assert [p.suffix for p in left] == [".lock"]
        assert log.append([], Position("b"), 40).seq == 1
    assert [e.position.token for e in RawLog(storage).entries()] == ["a", "b"]
    assert len(list(storage.list("raw/data"))) == 1


@pytest.mark.live
def test_a_full_cache_disk(small_disk: Path, s3: Bucket) -> None:
    with open_bucket(s3, small_disk) as storage:
        s3.client().put_object(Bucket=s3.name, Key="some/where/big", Body=b"x" * (3 << 20))
        with pytest.raises(StorageError, match="no space left on"):
            storage.fetch("big")
        storage.create("small", b"1")
        assert storage.fetch("small").read_bytes() == b"1"


def test_a_file_where_a_folder_should_be(tmp_path: Path) -> None:
    (tmp_path / "lake").write_text("a file")
    storage = Storage.open(str(tmp_path / "lake"), cache=tmp_path)
    for act in (lambda: storage.create("a", b""), lambda: storage.find("a"), storage.scratch):
        with pytest.raises(StorageError, match=r"a file stands where .*/lake needs a folder"):
            act()


def test_no_permission() -> None:
    need(os.geteuid() == 0, "run as root (to become nobody)")
    code = (
        "import os, sys\n"
        "from pathlib import Path\n"
        "from headwater.storage import Storage\n"
        "from headwater.errors import StorageError\n"
        "storage = Storage.open(sys.argv[1], cache=Path('/nowhere'))\n"
        "os.setgid(65534)\n"
        "os.setuid(65534)\n"
        "for act in (lambda: storage.create('a', b''), lambda: storage.find('a'), storage.scratch):\n"
        "    try: act()\n"
        "    except StorageError as failed: print(failed, failed.hint)\n"
    )
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o755)
        lake = Path(folder) / "lake"
        lake.mkdir(mode=0o700)
        done = subprocess.run(
            [sys.executable, "-c", code, str(lake)], capture_output=True, text=True, check=False
        )
    assert done.stdout.count(f"no permission to use {lake}") == 3, done.stderr


def test_a_link_that_leads_out(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "secret").write_text("x")
    storage = Storage.open(str(tmp_path / "lake"), cache=tmp_path)
    storage.create("a", b"")
    (tmp_path / "lake" / "way").symlink_to(outside)
    for act in (
        lambda: storage.find("way/secret"),
        lambda: storage.create("way/new", b""),
        lambda: storage.fetch("way/secret"),
        lambda: storage.delete(["way/secret"]),
    ):
        with pytest.raises(StorageError, match="leads out of"):
            act()
    assert [p.name for p in outside.iterdir()] == ["secret"]


def test_the_store_itself_may_be_a_link(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "lake").symlink_to(tmp_path / "real")
    storage = Storage.open(str(tmp_path / "lake"), cache=tmp_path)
    assert storage.create("a/b", b"1")
    assert (tmp_path / "real/a/b").read_bytes() == b"1"


def test_other_bytes_never_replace_a_file(tmp_path: Path) -> None:
    storage = Storage.open(str(tmp_path / "lake"), cache=tmp_path)
    storage.create("data/f", b"first")
    file = tmp_path / "f"
    file.write_bytes(b"other")
    with pytest.raises(Corrupt, match="data/f: other bytes"):
        storage.upload(file, "data/f")
    assert storage.read("data/f") == b"first"


def test_an_upload_from_another_disk(small_disk: Path, tmp_path: Path) -> None:
    (small_disk / "f").write_bytes(b"far")
    storage = Storage.open(str(tmp_path / "lake"), cache=tmp_path)
    storage.upload(small_disk / "f", "data/f")
    assert storage.read("data/f") == b"far"
    assert not (small_disk / "f").exists()


def test_everything_is_synced_before_it_is_promised(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The order of system calls is the durability: file, then name, then the folder that holds the name."""
    seen: list[str] = []
    real_sync, real_link, real_mkdir = os.fsync, os.link, Path.mkdir

    def name(path: str | Path) -> str:
        return os.path.relpath(path, tmp_path)

    def sync(handle: int) -> None:
        seen.append(f"sync {name(os.readlink(f'/proc/self/fd/{handle}'))}")
        real_sync(handle)

    def link(source: Path, target: Path) -> None:
        seen.append(f"link {name(source)} {name(target)}")
        real_link(source, target)

    def mkdir(path: Path, *args: object, **more: object) -> None:
        seen.append(f"mkdir {name(path)}")
        real_mkdir(path, *args, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(os, "fsync", sync)
    monkeypatch.setattr(os, "link", link)
    monkeypatch.setattr(Path, "mkdir", mkdir)
    storage = Storage.open(str(tmp_path / "lake"), cache=tmp_path)
    storage.create("raw/log/0", b"1")
    durable = [s for s in seen if ".scratch" not in s.split()[-1] or s.startswith("sync")]
    (file,) = [s.split()[1] for s in seen if s.startswith("link")]
    assert durable[:2] == ["mkdir lake", "sync ."]
    assert durable[2:] == [
        f"sync {file}",
        "mkdir lake/raw", "sync lake", "mkdir lake/raw/log", "sync lake/raw",
        f"link {file} lake/raw/log/0", "sync lake/raw/log",
    ]  # fmt: skip
    seen.clear()
    assert not storage.create("raw/log/0", b"2")
    assert seen[-1] == "sync lake/raw/log"


# ---------------------------------------------------------------- networks


@pytest.mark.live
@pytest.mark.parametrize("status", [500, 503])
def test_passing_server_errors(s3: Bucket, proxy: HttpProxy, tmp_path: Path, status: int) -> None:
    with open_bucket(s3.via(proxy.endpoint), tmp_path) as storage:
        for act in (
            lambda: storage.create("entry", b"1"),
            lambda: storage.read("entry"),
            lambda: storage.exists("entry"),
            lambda: list(storage.list()),
            lambda: storage.fetch("entry"),
            lambda: storage.delete(["entry"]),
        ):
            proxy.fail(2, status)
            act()
    assert [seen[2] for seen in proxy.seen].count(status) == 12


@pytest.mark.live
def test_lasting_server_errors(s3: Bucket, proxy: HttpProxy, tmp_path: Path) -> None:
    with open_bucket(s3.via(proxy.endpoint), tmp_path, timeout="0.5") as storage:
        proxy.fail(1000, 503)
        with pytest.raises(StorageError, match="503"):
            storage.create("entry", b"1")
        with pytest.raises(StorageError, match="503"):
            storage.read("entry")


@pytest.mark.live
@pytest.mark.parametrize("times", [1, 2])
def test_a_lost_reply_to_an_entry(s3: Bucket, proxy: HttpProxy, tmp_path: Path, times: int) -> None:
    with open_bucket(s3.via(proxy.endpoint), tmp_path) as storage:
        log = RawLog(storage)
        made = log.stage(make_batch(3), 1, 0)
        proxy.swallow(times, "PUT", "raw/log")
        entry = log.append([made], Position("a"), 12)
        assert [s for m, p, s in proxy.seen if m == "PUT" and "raw/log" in p] == [0] * times + [412]
        assert log.append([], Position("b"), 12).seq == 1
    with open_bucket(s3, tmp_path) as storage:
        assert next(RawLog(storage).entries()) == entry


@pytest.mark.live
def test_a_lost_reply_and_another_writer(s3: Bucket, proxy: HttpProxy, tmp_path: Path) -> None:
    """The first request is lost before the server, the second finds somebody else's entry."""
    from headwater.errors import Conflict

    with open_bucket(s3.via(proxy.endpoint), tmp_path / "1") as slow, open_bucket(s3, tmp_path / "2") as fast:
        one = RawLog(slow)
        one.last()
        RawLog(fast).append([], Position("theirs"), 0)
        proxy.fail(1, 503, "PUT", "raw/log")
        with pytest.raises(Conflict):
            one.append([], Position("ours"), 0)
        assert [e.position.token for e in RawLog(fast).entries()] == ["theirs"]


@pytest.mark.live
def test_turned_down_although_nothing_is_there(s3: Bucket, proxy: HttpProxy, tmp_path: Path) -> None:
    """409: a competing put was under way. Only asking tells whether it won."""
    with open_bucket(s3.via(proxy.endpoint), tmp_path) as storage:
        proxy.fail(2, 409, "PUT")
        assert storage.create("entry", b"1")
        proxy.fail(1, 409, "PUT")
        assert not storage.create("entry", b"2")
    assert s3.client().get_object(Bucket=s3.name, Key="some/where/entry")["Body"].read() == b"1"


@pytest.mark.live
def test_a_lost_reply_to_data(s3: Bucket, proxy: HttpProxy, tmp_path: Path) -> None:
    with open_bucket(s3.via(proxy.endpoint), tmp_path) as storage:
        log = RawLog(storage)
        proxy.swallow(2, "PUT", "raw/data")
        made = log.stage(make_batch(3), 1, 0)
        assert log.fetch(made).stat().st_size == made.bytes
        big = storage.scratch() / "big"
        content = os.urandom(20 << 20)
        big.write_bytes(content)
        proxy.swallow(1, "POST", "big?uploadId")
        proxy.fail(1, 500, "PUT", "big?partNumber")
        storage.upload(big, "big")
        digest = hashlib.sha256(content).hexdigest()
        assert storage.fetch("big", sha256=digest, size=len(content)).is_file()


@pytest.mark.live
def test_a_cut_and_a_stalled_line(s3: Bucket, tmp_path: Path) -> None:
    content = os.urandom(5 << 20)
    s3.client().put_object(Bucket=s3.name, Key="some/where/big", Body=content)
    with (
        TcpProxy(int(s3.endpoint.rpartition(":")[2])) as line,
        open_bucket(s3.via(f"http://127.0.0.1:{line.port}"), tmp_path, timeout="1") as storage,
    ):
        line.cut_after(2 << 20)
        digest = hashlib.sha256(content).hexdigest()
        assert storage.fetch("big", sha256=digest, size=len(content)).read_bytes() == content
        line.stall()
        with pytest.raises(StorageError):
            storage.read("big")
        line.resume()
        line.cut()
        with pytest.raises(StorageError):
            storage.create("entry", b"1")
        line.resume()
        assert storage.create("entry", b"1")


@pytest.mark.live
def test_nobody_listens(tmp_path: Path) -> None:
    bucket = Bucket("http://127.0.0.1:9", "key", SECRET, "some-bucket")
    with (
        open_bucket(bucket, tmp_path, timeout="0.3", session_token=TOKEN) as storage,
        pytest.raises(StorageError, match="some-bucket") as caught,
    ):
        storage.create("entry", b"1")
    assert SECRET not in say(caught.value)
    assert TOKEN not in say(caught.value)


@pytest.mark.live
def test_a_wrong_secret(s3_real: Bucket, tmp_path: Path) -> None:
    """A real server repeats the request in its answer; nothing of that may reach the user."""
    wrong = Bucket(s3_real.endpoint, s3_real.key, SECRET, s3_real.name)
    with open_bucket(wrong, tmp_path) as storage:
        for act in (
            lambda: storage.create("entry", b"1"),
            lambda: storage.read("entry"),
            lambda: list(storage.list()),
            lambda: storage.exists("entry"),
            lambda: storage.delete(["entry"]),
        ):
            with pytest.raises(StorageError) as caught:
                act()
            assert "secret" in caught.value.hint
            assert SECRET not in say(caught.value)
            assert "StringToSign" not in say(caught.value)
    unknown = Bucket(s3_real.endpoint, "nobody", "x", s3_real.name)
    with open_bucket(unknown, tmp_path) as storage, pytest.raises(StorageError) as caught:
        storage.create("entry", b"1")
    assert "key" in caught.value.hint


def test_an_answer_that_repeats_our_secrets(tmp_path: Path) -> None:
    """What AWS says to a bad signature holds the request's headers, a session token among them."""

    class Parrot(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = (
                "<Error><Code>SignatureDoesNotMatch</Code><Message>no</Message><AWSAccessKeyId>canary-key"
                f"</AWSAccessKeyId><StringToSign>{SECRET}</StringToSign>"
                f"<CanonicalRequest>x-amz-security-token:{TOKEN}</CanonicalRequest></Error>"
            ).encode()
            self.send_response(403)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        do_PUT = do_GET

        def log_message(self, format: str, *words: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Parrot) as server:
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        bucket = Bucket(f"http://127.0.0.1:{server.server_port}", "canary-key", "other", "some-bucket")
        with open_bucket(bucket, tmp_path, session_token="other") as storage:
            for act in (
                lambda: storage.read("a"),
                lambda: storage.create("a", b""),
                lambda: list(storage.list()),
            ):
                with pytest.raises(StorageError, match="SignatureDoesNotMatch") as caught:
                    act()
                assert "canary" not in say(caught.value)
        server.shutdown()


@pytest.mark.live
def test_a_server_without_put_if_absent_is_refused(
    s3: Bucket, proxy: HttpProxy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = proxy.forward

    def deaf(method: str, path: str, headers: dict[str, str], body: bytes) -> http.client.HTTPResponse:
        kept = {name: value for name, value in headers.items() if name.lower() != "if-none-match"}
        return real(method, path, kept, body)

    monkeypatch.setattr(proxy, "forward", deaf)
    with open_bucket(s3.via(proxy.endpoint), tmp_path) as storage:
        for _ in range(2):
            with pytest.raises(StorageError, match="ignores If-None-Match") as caught:
                RawLog(storage).append([], Position("a"), 0)
            assert caught.value.hint
    assert not any("raw/log" in key for key in list(s3.keys()))


@pytest.mark.live
def test_no_such_bucket(s3: Bucket, tmp_path: Path) -> None:
    missing = Bucket(s3.endpoint, s3.key, s3.secret, "not-there-at-all")
    with open_bucket(missing, tmp_path) as storage:
        for act in (
            lambda: storage.create("entry", b"1"),
            lambda: storage.read("entry"),
            lambda: list(storage.list()),
            lambda: RawLog(storage).last(),
        ):
            with pytest.raises(StorageError, match="NoSuchBucket") as caught:
                act()
            assert "not-there-at-all" in caught.value.hint


@pytest.mark.live
def test_encryption_at_rest_is_asked_for(s3: Bucket, tmp_path: Path) -> None:
    with open_bucket(s3, tmp_path, sse="aws:kms", sse_kms_key_id="key-7") as storage:
        storage.create("entry", b"1")
        file = storage.scratch() / "f"
        file.write_bytes(b"2" * (17 << 20))
        storage.upload(file, "data")
    for key in ("entry", "data"):
        facts = s3.client().head_object(Bucket=s3.name, Key=f"some/where/{key}")
        assert (facts["ServerSideEncryption"], facts["SSEKMSKeyId"]) == ("aws:kms", "key-7")


# ---------------------------------------------------------------- the cache


@pytest.mark.live
def test_the_cache_is_bounded(s3: Bucket, tmp_path: Path) -> None:
    options = {
        "endpoint": s3.endpoint,
        "access_key_id": s3.key,
        "secret_access_key": s3.secret,
        "allow_http": "1",
    }
    with Storage.open(s3.url, options, cache=tmp_path, cache_bytes=250_000) as storage:
        for number in range(10):
            storage.create(f"f{number}", bytes([number]) * 100_000)
        kept = [storage.fetch(f"f{number}") for number in range(6)]
        assert [k.read_bytes()[0] for k in kept] == list(range(6))
        storage.release()
        for number in range(6, 10):
            last = storage.fetch(f"f{number}")
            storage.release() if number < 9 else None
        objects = [p for p in tmp_path.rglob("*") if p.is_file() and "objects" in p.parts]
        assert sum(p.stat().st_size for p in objects) <= 300_000
        assert last.read_bytes()[0] == 9
    left = [p for p in tmp_path.rglob("*") if p.is_file() and "objects" not in p.parts]
    assert left == []


@pytest.mark.live
def test_a_copy_is_used_again_and_mended(s3: Bucket, proxy: HttpProxy, tmp_path: Path) -> None:
    digest = hashlib.sha256(b"content").hexdigest()

    def fetch() -> int:
        """Fetch in a new process's place; how often the server was asked for the file."""
        before = len(proxy.seen)
        with open_bucket(s3.via(proxy.endpoint), tmp_path) as storage:
            assert storage.fetch("f", sha256=digest, size=7).read_bytes() == b"content"
        return len(proxy.seen) - before

    s3.client().put_object(Bucket=s3.name, Key="some/where/f", Body=b"content")
    assert [fetch(), fetch()] == [1, 0]
    (copy,) = [p for p in tmp_path.rglob("*") if p.is_file() and "objects" in p.parts]
    copy.write_bytes(b"CONTENT")
    assert [fetch(), fetch()] == [1, 0]
    copy.unlink()
    s3.client().put_object(Bucket=s3.name, Key="some/where/f", Body=b"damaged")
    with pytest.raises(Corrupt, match=digest), open_bucket(s3, tmp_path) as storage:
        storage.fetch("f", sha256=digest, size=7)
    assert not copy.exists()


# ---------------------------------------------------------------- settings


@pytest.mark.parametrize(
    ("url", "options", "says"),
    [
        ("gs://bucket", {}, "no store of kind gs"),
        ("s3://", {}, "no valid bucket"),
        ("s3://a", {}, "no valid bucket"),
        (f"s3://key:{SECRET}@bucket/x", {}, "no valid bucket"),
        ("", {}, "no name"),
        ("lake\0", {}, "no name"),
        ("file://host/x", {}, "absolute path"),
        ("file://relative", {}, "absolute path"),
        ("./lake", {"endpoint": "x"}, "takes no store options"),
        ("s3://bucket/x", {"end_point": "x"}, "no store option 'end_point'"),
        ("s3://bucket/x", {"endpoint": "minio:9000"}, "not a URL"),
        ("s3://bucket/x", {"endpoint": f"https://a:{SECRET}@minio"}, "not a URL"),
        ("s3://bucket/x", {"endpoint": "http://minio:9000"}, "not encrypted"),
        ("s3://bucket/x", {"secret_access_key": SECRET}, "go together"),
        ("s3://bucket/x", {"sse": "aes"}, "neither AES256"),
        ("s3://bucket/x", {"sse": "AES256", "sse_kms_key_id": "k"}, "needs sse: aws:kms"),
        ("s3://bucket/x", {"path_style": "maybe"}, "neither true nor false"),
        ("s3://bucket/x", {"timeout": "soon"}, "number of seconds"),
    ],
)
def test_wrong_settings(url: str, options: dict[str, str], says: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=says) as caught:
        Storage.open(url, options, cache=tmp_path)
    assert caught.value.hint
    assert SECRET not in say(caught.value)


def test_a_prefix_that_leads_out(tmp_path: Path) -> None:
    with pytest.raises(HeadwaterError):
        Storage.open("s3://bucket/a/../../b", cache=tmp_path)


def test_spellings_of_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    for url, folder in (
        ("lake", "lake"), ("./lake", "lake"), (str(tmp_path / "lake"), "lake"), ("a/../lake", "lake"),
        (f"file://{tmp_path}/my%20lake", "my lake"), ("~/lake", "home/lake"),
    ):  # fmt: skip
        assert Storage.open(url, cache=tmp_path).local == tmp_path / folder


def test_secrets_do_not_show(tmp_path: Path) -> None:
    storage = Storage.open(
        "s3://bucket/x",
        {"access_key_id": "k", "secret_access_key": SECRET, "session_token": TOKEN},
        cache=tmp_path,
    )
    shown = repr(storage) + repr(vars(storage))
    assert SECRET not in shown
    assert TOKEN not in shown
