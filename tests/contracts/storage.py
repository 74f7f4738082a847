"""What every storage does. Subclass `StorageContract` and give it a `storage` fixture."""

import hashlib
import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from headwater.errors import Corrupt, StorageError
from headwater.model import TableId
from headwater.naming import table_path
from headwater.storage import Storage

HOSTILE = ("../up", "a//b", "/abs", "a/./b", "a/..", "", "a/", "nul\0byte", "back\\slash", "new\nline", "..")


class StorageContract:
    """One folder or bucket prefix; `storage` is a new, empty one for each test."""

    @pytest.fixture
    def storage(self) -> Storage:
        raise NotImplementedError

    def test_create_is_put_if_absent(self, storage: Storage) -> None:
        assert storage.create("a/one.json", b"first")
        assert not storage.create("a/one.json", b"second")
        assert storage.read("a/one.json") == b"first"

    def test_an_empty_file_is_a_file(self, storage: Storage) -> None:
        assert storage.create("empty", b"")
        assert storage.exists("empty")
        assert (storage.read("empty"), storage.size("empty")) == (b"", 0)
        assert not storage.create("empty", b"more")

    def test_of_sixteen_that_create_one_wins(self, storage: Storage) -> None:
        start = threading.Barrier(16)

        def race(number: int) -> bool:
            start.wait()
            return storage.create("log/entry", str(number).encode())

        with ThreadPoolExecutor(16) as pool:
            won = list(pool.map(race, range(16)))
        assert sum(won) == 1
        assert storage.read("log/entry") == str(won.index(True)).encode()

    def test_what_is_not_there(self, storage: Storage) -> None:
        assert storage.find("no/such") is None
        assert not storage.exists("no/such")
        assert list(storage.list("no")) == []
        for act in (storage.read, storage.size, storage.fetch):
            with pytest.raises(StorageError, match="no/such"):
                act("no/such")
        with pytest.raises(Corrupt, match="no/such"):
            storage.fetch("no/such", sha256="0" * 64, size=1)
        storage.delete(["no/such", "nor/this"])

    def test_upload_moves_the_file(self, storage: Storage) -> None:
        file = storage.scratch() / "made"
        file.write_bytes(b"x" * 1000)
        storage.upload(file, "data/x.bin")
        assert not file.exists()
        assert storage.size("data/x.bin") == 1000
        assert storage.read("data/x.bin") == b"x" * 1000

    def test_upload_from_anywhere_and_again(self, storage: Storage, tmp_path: Path) -> None:
        for _ in range(2):
            file = tmp_path / "elsewhere"
            file.write_bytes(b"same")
            storage.upload(file, "data/same")
            assert not file.exists()
        assert storage.read("data/same") == b"same"

    def test_a_big_file(self, storage: Storage, tmp_path: Path) -> None:
        file = tmp_path / "big"
        content = bytes(range(256)) * 4096 * 20
        file.write_bytes(content)
        storage.upload(file, "data/big")
        digest = hashlib.sha256(content).hexdigest()
        assert storage.fetch("data/big", sha256=digest, size=len(content)).read_bytes() == content

    def test_fetch_checks_hash_and_size(self, storage: Storage) -> None:
        storage.create("f", b"content")
        digest = hashlib.sha256(b"content").hexdigest()
        assert storage.fetch("f").read_bytes() == b"content"
        assert storage.fetch("f", sha256=digest, size=7).read_bytes() == b"content"
        with pytest.raises(Corrupt, match=rf"f: expected sha256 {'0' * 64}, found {digest}") as caught:
            storage.fetch("f", sha256="0" * 64)
        assert caught.value.hint
        with pytest.raises(Corrupt, match="f: expected 8 bytes, found 7"):
            storage.fetch("f", size=8)

    def test_listing_is_sorted_and_starts_behind(self, storage: Storage) -> None:
        names = ["a/1", "a/b/2", "a-b/3", "a.b/4", "a", "a~41/5", "ab", "b/x"]
        names.remove("a")  # a folder and a file of one name cannot both be in a file system
        for name in names:
            storage.create(name, name.encode())
        assert list(storage.list()) == sorted(names)
        assert list(storage.list("a")) == ["a/1", "a/b/2"]
        assert list(storage.list("a", "a/1")) == ["a/b/2"]
        for after in ("a.b", "a.b/4", "a/1", "a/b", "a/b/2", "a~41", "zz"):
            assert list(storage.list(after=after)) == [n for n in sorted(names) if n > after], after

    def test_a_listing_of_more_than_a_page(self, storage: Storage) -> None:
        names = [f"p/{i:05d}" for i in range(1205)]
        with ThreadPoolExecutor(8) as pool:
            assert all(pool.map(lambda name: storage.create(name, b""), names))
        assert list(storage.list("p")) == names
        assert list(storage.list("p", names[999])) == names[1000:]
        storage.delete(names)
        assert list(storage.list("p")) == []

    def test_files_know_size_and_time(self, storage: Storage) -> None:
        storage.create("t", b"12345")
        (file,) = storage.files()
        assert (file.path, file.size) == ("t", 5)
        assert abs(file.modified - datetime.now(UTC)) < timedelta(minutes=1)

    @pytest.mark.parametrize("name", HOSTILE)
    def test_no_name_leads_out(self, storage: Storage, name: str, tmp_path: Path) -> None:
        file = tmp_path / "f"
        file.write_bytes(b"")
        for act in (
            lambda: storage.create(name, b""),
            lambda: storage.upload(file, name),
            lambda: storage.find(name),
            lambda: storage.fetch(name),
            lambda: storage.exists(name),
            lambda: storage.delete([name]),
            lambda: storage.delta(name),
        ):
            with pytest.raises(StorageError, match="is not the name of a file"):
                act()

    def test_table_names_of_every_kind_stay_apart(self, storage: Storage) -> None:
        tables = [
            TableId("public", "Orders"), TableId("public", "orders"), TableId("public.a", "b"),
            TableId("public", "a.b"), TableId("..", ".."), TableId("", "t"), TableId("p", "a/b"),
            TableId("p", "%2f"), TableId("p", "/"), TableId("p", "~2f"), TableId("p", "é"),
            TableId("p", "e\u0301"), TableId("p", "n\0l"), TableId("p", "x" * 300), TableId("p", "x" * 301),
            TableId("p", "{{7*7}}"), TableId("p", "a b"), TableId("p", "a+b"), TableId("p", "a#b?c"),
        ]  # fmt: skip
        for number, table in enumerate(tables):
            assert storage.create(f"t/{table_path(table)}/f", str(number).encode()), table
        assert len(list(storage.list("t"))) == len(tables)
        for number, table in enumerate(tables):
            path = f"t/{table_path(table)}/f"
            assert storage.read(path) == str(number).encode()
            assert storage.fetch(path).read_bytes() == str(number).encode()

    def test_a_small_file_is_replaced(self, storage: Storage) -> None:
        for number in range(3):
            storage.replace("a/pointer", str(number).encode() * 100_000)
            assert storage.read("a/pointer") == str(number).encode() * 100_000
        storage.create("a/made", b"1")
        storage.replace("a/made", b"")
        assert storage.read("a/made") == b""
        assert list(storage.list()) == ["a/made", "a/pointer"]
        with pytest.raises(StorageError):
            storage.replace("../out", b"")

    def test_a_name_that_is_too_long(self, storage: Storage) -> None:
        with pytest.raises(StorageError):
            storage.create("n" * 1025, b"")

    def test_scratch_is_private_and_goes(self, storage: Storage) -> None:
        one, two = storage.scratch(), storage.scratch()
        assert one != two
        (one / "f").write_bytes(b"1")
        assert list(two.iterdir()) == []
        assert list(storage.list()) == []
        storage.close()
        assert not one.exists()
        assert not two.exists()
        storage.close()
        assert storage.scratch().is_dir()

    def test_a_handle_of_another_thread_is_left_alone(self, storage: Storage) -> None:
        storage.create("f", b"1")
        other = storage.reopen()
        file, scratch = other.fetch("f"), other.scratch()
        storage.fetch("f")
        storage.release()
        storage.close()
        assert (file.read_bytes(), scratch.is_dir()) == (b"1", True)
        other.close()
        assert not scratch.exists()
        assert storage.fetch("f").read_bytes() == b"1"

    def test_many_threads_fetch(self, storage: Storage) -> None:
        for number in range(20):
            storage.create(f"f/{number}", str(number).encode())
        wanted = [f"f/{n % 20}" for n in range(100)]
        with ThreadPoolExecutor(8) as pool:
            for name, file in zip(wanted, pool.map(storage.fetch, wanted), strict=True):
                assert file.read_bytes() == name[2:].encode()
        storage.release()
        assert storage.fetch("f/7").read_bytes() == b"7"

    def test_delta_tables(self, storage: Storage) -> None:
        import pyarrow as pa
        from deltalake import DeltaTable, write_deltalake

        uri, options = storage.delta("lake/p.t/mirror")
        for number in range(2):
            write_deltalake(uri, pa.table({"x": [number]}), mode="append", storage_options=options)
        assert DeltaTable(uri, storage_options=options).version() == 1
        assert any(name.startswith("lake/p.t/mirror/_delta_log/") for name in storage.list("lake"))
