"""Leases: one runner at a time, a dead one never in the way, and no clock compared between machines."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from headwater.errors import Conflict, StorageError
from headwater.state import Owner, hold, holder
from headwater.state import lease as leases
from headwater.state.sqlite import SqliteState

HERE = Owner.here()
ELSEWHERE = replace(HERE, host="other.example.com", place="another boot/pid:[1]", pid=77, user="ann")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "headwater.db"


@pytest.fixture
def store(path: Path) -> Iterator[SqliteState]:
    made = SqliteState(path)
    yield made
    made.close()


class Clock:
    """A clock that only the test moves; what happens meanwhile is the test's to say."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 1000.0
        self.meanwhile = lambda: None
        monkeypatch.setattr(leases, "_now", lambda: self.now)

    def sleep(self, seconds: float) -> None:
        self.now += seconds
        self.meanwhile()


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


def abandon(store: SqliteState, owner: Owner, ttl: float = 60.0) -> leases.Hold:
    """A lease whose holder never renews nor releases."""
    return leases._acquire(store, "shop", owner, ttl, time.sleep)


def test_a_free_pipeline_is_held_and_let_go(store: SqliteState) -> None:
    with hold(store, "shop") as one:
        one.check()
        assert one.fence == 1
        assert str(os.getpid()) in holder(store, "shop")
    assert holder(store, "shop") == ""
    with hold(store, "shop") as two:
        assert two.fence == 2


def test_pipelines_do_not_wait_for_each_other(store: SqliteState) -> None:
    with hold(store, "shop"), hold(store, "other"):
        pass


def test_a_second_runner_in_this_process_is_told(store: SqliteState) -> None:
    with hold(store, "shop"), pytest.raises(Conflict, match="this very process"), hold(store, "shop"):
        pass


def test_it_is_let_go_after_an_error_too(store: SqliteState) -> None:
    with pytest.raises(KeyError), hold(store, "shop"):
        raise KeyError
    assert holder(store, "shop") == ""


_HOLDER = """
import sys, time
from headwater.state import hold
from headwater.state.sqlite import SqliteState
with hold(SqliteState(sys.argv[1]), "shop"):
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def other(path: Path, store: SqliteState) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen([sys.executable, "-c", _HOLDER, path], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.wait()


def test_a_live_runner_on_this_machine_is_named_at_once(
    store: SqliteState, other: subprocess.Popen[str]
) -> None:
    began = time.monotonic()
    with pytest.raises(Conflict) as failed, hold(store, "shop"):
        pass
    assert time.monotonic() - began < 1
    assert f"process {other.pid}" in str(failed.value)
    assert HERE.host in str(failed.value)
    assert f"kill {other.pid}" in failed.value.hint


@pytest.mark.crash
@pytest.mark.parametrize("reap", [True, False])
def test_a_killed_runner_is_not_in_the_way(
    store: SqliteState, other: subprocess.Popen[str], reap: bool
) -> None:
    other.kill()
    if reap:
        other.wait()
    else:  # a zombie: still listed, never again alive
        os.waitid(os.P_PID, other.pid, os.WEXITED | os.WNOWAIT)
    assert holder(store, "shop") == ""
    began = time.monotonic()
    with hold(store, "shop") as held:
        assert held.fence == 2
    assert time.monotonic() - began < 1


def test_a_stopped_runner_keeps_its_pipeline_on_this_machine(
    store: SqliteState, other: subprocess.Popen[str]
) -> None:
    other.send_signal(signal.SIGSTOP)
    with pytest.raises(Conflict), hold(store, "shop"):
        pass
    other.send_signal(signal.SIGCONT)


def test_a_pid_used_again_is_not_its_runner(store: SqliteState) -> None:
    abandon(store, replace(HERE, started="1"))
    with hold(store, "shop") as held:
        assert held.fence == 2


def test_a_silent_runner_elsewhere_is_waited_for_then_replaced(store: SqliteState, clock: Clock) -> None:
    lost = abandon(store, ELSEWHERE, ttl=40)
    began = clock.now
    with hold(store, "shop", HERE, sleep=clock.sleep) as held:
        assert 40 <= clock.now - began < 45
        assert held.fence == 2
        with pytest.raises(Conflict, match="took over"):
            lost.renew()
        with pytest.raises(Conflict):
            lost.check()
        held.check()


def test_a_renewing_runner_elsewhere_is_never_replaced(store: SqliteState, clock: Clock) -> None:
    alive = abandon(store, ELSEWHERE, ttl=40)
    began = clock.now
    clock.meanwhile = lambda: alive.renew() if clock.now - began > 15 else None
    with pytest.raises(Conflict) as failed, hold(store, "shop", HERE, sleep=clock.sleep):
        pass
    assert clock.now - began < 25
    assert "process 77 of ann on other.example.com" in str(failed.value)
    assert "on other.example.com: kill 77" in failed.value.hint


def test_a_container_with_the_same_boot_is_elsewhere(store: SqliteState, clock: Clock) -> None:
    boot = HERE.place.partition("/")[0]
    abandon(store, replace(HERE, place=f"{boot}/pid:[1]", pid=2**22 - 1), ttl=40)
    began = clock.now
    with hold(store, "shop", HERE, sleep=clock.sleep):
        assert clock.now - began >= 40


def test_one_that_lets_go_while_we_wait_is_followed_at_once(store: SqliteState, clock: Clock) -> None:
    going = abandon(store, ELSEWHERE, ttl=40)
    began = clock.now
    clock.meanwhile = lambda: going._release() if clock.now - began == 3 else None
    with hold(store, "shop", HERE, sleep=clock.sleep) as held:
        assert clock.now - began == 3
        assert held.fence == 2


def test_of_two_that_find_it_dead_one_gets_it(store: SqliteState, path: Path) -> None:
    abandon(store, replace(HERE, started="1"))
    start, fences, refused = threading.Barrier(6), [], []

    def race() -> None:
        mine = SqliteState(path)
        start.wait()
        try:
            with hold(mine, "shop") as held:
                fences.append(held.fence)
                done.wait(10)
        except Conflict as failed:
            refused.append(failed)

    done = threading.Event()
    threads = [threading.Thread(target=race) for _ in range(6)]
    for thread in threads:
        thread.start()
    deadline = time.monotonic() + 10
    while len(refused) < 5 and time.monotonic() < deadline:
        time.sleep(0.01)
    done.set()
    for thread in threads:
        thread.join()
    assert (fences, len(refused)) == ([2], 5)


def test_a_long_step_keeps_the_lease(store: SqliteState) -> None:
    with hold(store, "shop", ELSEWHERE, ttl=0.3):
        first = store.load("shop/lease")
        time.sleep(0.5)
        later = store.load("shop/lease")
        assert first is not None
        assert later is not None
        assert first.value["token"] != later.value["token"]


def test_one_that_slept_past_its_lease_looks_before_it_goes_on(store: SqliteState, clock: Clock) -> None:
    slept = abandon(store, ELSEWHERE, ttl=40)
    clock.now += 39
    slept.check()  # nobody took it: renewed
    clock.now += 3600
    with hold(store, "shop", HERE, sleep=clock.sleep), pytest.raises(Conflict, match="took over"):
        slept.check()


def test_a_lost_state_file_is_not_a_lost_lease(store: SqliteState) -> None:
    with hold(store, "shop") as held:
        store.drop("shop/lease")
        held.renew()
        held.check()
        assert holder(store, "shop")


def test_a_state_that_is_away_for_a_moment_does_not_end_the_lease(store: SqliteState) -> None:
    save = store.save

    def refuse(*_given: object, **_named: object) -> None:
        raise StorageError("the disk is full")

    with hold(store, "shop", ELSEWHERE, ttl=0.15):
        store.save = refuse  # type: ignore[method-assign, assignment]
        time.sleep(0.2)
        before = store.load("shop/lease")
        store.save = save  # type: ignore[method-assign]
        time.sleep(0.2)
        after = store.load("shop/lease")
        assert before is not None
        assert after is not None
        assert before.value["token"] != after.value["token"]
