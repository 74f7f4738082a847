"""kill -9 before and after every durable write: what was promised is there, what was not is invisible."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest

from headwater.raw import RawLog
from headwater.storage import Storage
from raw.batches import make_batch

pytestmark = pytest.mark.crash

# Appends three batches of five rows and prints each promise it got. Started again, it goes on from there.
WRITER = """
import sys
from pathlib import Path
from headwater.model import Position
from headwater.raw import RawLog
from headwater.storage import Storage
from raw.batches import make_batch
with Storage.open(sys.argv[1], cache=Path(sys.argv[1])) as storage:
    log = RawLog(storage)
    last = log.last()
    for number in range(last.seq + 1 if last else 0, 3):
        base = number * 20
        made = log.stage(make_batch(5, phase="snapshot_end" if number == 0 else "changes"), 1, base)
        print("entry", log.append([made], Position(str(number)), base + 20).seq, flush=True)
print("done", flush=True)
"""
STEPS = [
    f"{step}.{side}:{nth}" for step in ("stage", "entry") for side in ("before", "after") for nth in (1, 3)
]
STEPS += ["schema.before", "schema.after"]


def run(lake: Path, failpoint: str = "") -> subprocess.CompletedProcess[str]:
    tests = Path(__file__).parents[1]
    environment = {**os.environ, "PYTHONPATH": str(tests), "HEADWATER_FAILPOINT": failpoint}
    return subprocess.run(
        [sys.executable, "-c", WRITER, str(lake)],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize("failpoint", STEPS)
def test_killed_at_a_durable_step(tmp_path: Path, failpoint: str) -> None:
    lake = tmp_path / "lake"
    killed = run(lake, failpoint)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    promised = killed.stdout.count("entry")

    with Storage.open(str(lake), cache=tmp_path) as storage:
        log = RawLog(storage)
        there = list(log.entries())
        # At most the entry whose promise was on its way is there beyond the promised ones.
        assert promised <= len(there) <= promised + 1
        assert (len(there) > promised) == failpoint.startswith("entry.after")
        for entry in there:
            assert [log.fetch(ref).stat().st_size for ref in entry.batches] == [
                r.bytes for r in entry.batches
            ]

    assert run(lake).stdout.splitlines()[-1] == "done"
    with Storage.open(str(lake), cache=tmp_path) as storage:
        log = RawLog(storage)
        entries = list(log.entries())
        assert [e.position.token for e in entries] == ["0", "1", "2"]
        assert [ref.first_seq for e in entries for ref in e.batches] == [2, 22, 42]
        # The same rows staged again made the same file: nothing is left over, in data or in scratch.
        assert len(list(storage.list("raw/data"))) == 3
        assert log.collect(timedelta(0)) == []
        storage.scratch()
        assert len([p for p in (lake / ".scratch").iterdir() if p.is_dir()]) == 1


def test_an_orphan_is_invisible_and_collected(tmp_path: Path) -> None:
    lake = tmp_path / "lake"
    run(lake, "entry.before:2")
    with Storage.open(str(lake), cache=tmp_path) as storage:
        log = RawLog(storage)
        (entry,) = log.entries()
        (orphan,) = set(storage.list("raw/data")) - {entry.batches[0].path}
        # The source gives other rows this time; an entry goes beyond the orphan's place.
        other = log.stage(make_batch(6), 1, 20)
        assert log.collect(timedelta(0)) == []
        log.append([other], entry.position, 44)
        assert log.collect(timedelta(0)) == [orphan]
        assert log.collect(timedelta(0)) == []
        assert [log.fetch(ref).exists() for e in log.entries() for ref in e.batches] == [True, True]


def test_a_writer_that_was_stopped_and_overtaken_ends(tmp_path: Path) -> None:
    """SIGSTOP, as a machine that was suspended, and SIGCONT when another writer has gone on."""
    lake = tmp_path / "lake"
    code = WRITER.replace(
        "    for number", "    print('stands', flush=True); sys.stdin.readline()\n    for number"
    )
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}
    stale = subprocess.Popen(
        [sys.executable, "-c", code, str(lake)],
        env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert stale.stdout
    assert stale.stdout.readline() == "stands\n"
    stale.send_signal(signal.SIGSTOP)
    assert "done" in run(lake).stdout
    stale.send_signal(signal.SIGCONT)
    out, errors = stale.communicate("\n", timeout=60)
    assert "entry" not in out
    assert "Conflict: another writer appended" in errors
    with Storage.open(str(lake), cache=tmp_path) as storage:
        assert len(list(RawLog(storage).entries())) == 3


def test_many_processes_one_log(tmp_path: Path) -> None:
    """Eight start at once; whoever loses a number ends. No number is written twice, none is left out."""
    lake = tmp_path / "lake"
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}
    racers = [
        subprocess.Popen(
            [sys.executable, "-c", WRITER, str(lake)],
            env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )
        for _ in range(8)
    ]  # fmt: skip
    outputs = [racer.communicate(timeout=120) for racer in racers]
    won = sorted(line for out, _ in outputs for line in out.splitlines() if line.startswith("entry"))
    assert won == ["entry 0", "entry 1", "entry 2"]
    assert all("done" in out or "Conflict" in errors for out, errors in outputs)


def test_scratch_of_the_living_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hold = (
        "import sys; from pathlib import Path; from headwater.storage import Storage\n"
        "s = Storage.open(sys.argv[1], cache=Path('x')); print(s.scratch(), flush=True); sys.stdin.readline()"
    )
    holder = subprocess.Popen(
        [sys.executable, "-c", hold, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert holder.stdout
    folder = Path(holder.stdout.readline().strip())
    folder.joinpath("f").write_text("mine")
    Storage.open(str(tmp_path), cache=tmp_path).scratch()
    assert folder.joinpath("f").exists()
    holder.kill()
    holder.communicate()
    assert folder.joinpath("f").exists()
    Storage.open(str(tmp_path), cache=tmp_path).scratch()
    assert not folder.exists()


def test_a_forked_child_leaves_its_parents_scratch(tmp_path: Path) -> None:
    storage = Storage.open(str(tmp_path), cache=tmp_path)
    folder = storage.scratch()
    code = (
        "import os, sys, time; from pathlib import Path; from headwater.storage import Storage\n"
        "s = Storage.open(sys.argv[1], cache=Path('x')); f = s.scratch()\n"
        "pid = os.fork()\n"
        "if not pid: sys.exit(0)\n"
        "os.waitpid(pid, 0); print(f.is_dir())"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=False
    )
    assert done.stdout == "True\n", done.stderr
    assert folder.is_dir()


def test_failpoints_cost_nothing_when_unset() -> None:
    from headwater.failpoints import reach

    began = time.perf_counter()
    for _ in range(100_000):
        reach("x.before")
    assert time.perf_counter() - began < 0.5


def test_every_durable_step_passes_its_points(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The list of steps above is the list of writes that really happen."""
    from headwater.storage import folder

    passed: list[str] = []
    note: Callable[[str], None] = passed.append
    monkeypatch.setattr(folder, "reach", note)
    with Storage.open(str(tmp_path), cache=tmp_path) as storage:
        log = RawLog(storage)
        from headwater.model import Position

        log.append([log.stage(make_batch(5), 1, 0)], Position("0"), 20)
    assert passed == [
        f"{step}.{side}" for step in ("schema", "stage", "entry") for side in ("before", "after")
    ]
