"""Leases: one runner for each pipeline. A courtesy: what fences is the raw log's create-only entry.

A lease is one key of the state: who holds it, a token that changes with every renewal, a number that grows
with every new holder. No clock is compared between machines: a lease has run out when an observer sees the
same token for the lease's whole time by its own clock. On the holder's own machine its process is looked at
instead, so that a killed run never blocks the next one.
"""

from __future__ import annotations

import getpass
import os
import socket
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from headwater.errors import Conflict, StorageError
from headwater.state.store import Saved, StateStore

#: A holder that shows no sign of life for so long (seconds) has lost the pipeline to whoever asks.
TTL = 60.0


@dataclass(frozen=True, slots=True)
class Owner:
    """A process, told apart from every other one: also after a reboot, a container, or its pid used again.

    place      the boot and the pid namespace in which `pid` and `started` mean something; "" where unknown
    """

    host: str
    pid: int
    started: str
    place: str
    user: str = ""

    @classmethod
    def here(cls) -> Owner:
        """This process."""
        pid = os.getpid()
        return cls(_host(), pid, _start_of(pid) or "", _place(), _user())


@dataclass(slots=True)
class Hold:
    """A lease that is held. `fence` grows with every holder the pipeline ever had."""

    pipeline: str
    owner: Owner
    fence: int
    _store: StateStore
    _ttl: float
    _version: int
    _renewed: float
    _lost: Conflict | None = None
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def check(self) -> None:
        """Raise Conflict if another runner took the pipeline; cheap, so ask before every durable write."""
        if self._lost is None and _now() - self._renewed > self._ttl / 2:
            self.renew()  # the process was stopped or starved: look before going on
        if self._lost is not None:
            raise self._lost

    def renew(self) -> None:
        """Show a sign of life; raises Conflict when the lease is another's by now."""
        with self._lock:
            if self._lost is not None:
                raise self._lost
            value = _value(self.owner, self.fence, self._ttl)
            try:
                self._version = self._store.save(_key(self.pipeline), value, expect=self._version).version
            except Conflict:
                self._renew_again(value)
            self._renewed = _now()

    def _renew_again(self, value: Mapping[str, Any]) -> None:
        """After a lost reply or a state that was lost, the lease may still be nobody else's."""
        saved = self._store.load(_key(self.pipeline))
        ours = (
            saved is None
            or saved.value.get("fence") == self.fence
            and saved.value.get("owner") == value["owner"]
        )
        if not ours:
            holder = "another runner" if saved is None else _name(saved.value)
            self._lost = Conflict(
                f"{holder} took over {self.pipeline} while this run was stopped",
                hint="headwater status   (nothing is lost: the other run goes on from the last entry)",
            )
            raise self._lost
        version = 0 if saved is None else saved.version
        self._version = self._store.save(_key(self.pipeline), value, expect=version).version

    def _release(self) -> None:
        with self._lock:
            if self._lost is None:
                value = {**_value(self.owner, self.fence, self._ttl), "owner": None}
                self._store.save(_key(self.pipeline), value, expect=self._version)


@contextmanager
def hold(
    store: StateStore,
    pipeline: str,
    owner: Owner | None = None,
    ttl: float = TTL,
    *,
    sleep: Callable[[float], None] = time.sleep,
) -> Iterator[Hold]:
    """Hold the pipeline while the block runs, renewed from a thread; Conflict names who holds it already.

    A holder on this machine is judged at once. For one elsewhere this waits for its next sign of life, up to
    its `ttl`, and takes over when there is none.
    """
    held = _acquire(store, pipeline, owner or Owner.here(), ttl, sleep)
    ended = threading.Event()
    thread = threading.Thread(
        target=_keep, args=(held, ended), name=f"headwater lease {pipeline}", daemon=True
    )
    thread.start()
    try:
        yield held
    except BaseException:
        _end(thread, ended)
        with suppress(Conflict, StorageError):  # the error that ended the block says more; leases run out
            held._release()
        raise
    _end(thread, ended)
    with suppress(Conflict):  # another runner took it in the last moment: it is theirs now
        held._release()


def holder(store: StateStore, pipeline: str) -> str:
    """Who holds the pipeline, for a person; "" when nobody does or its process is gone."""
    saved = store.load(_key(pipeline))
    if saved is None or not saved.value.get("owner") or _is_alive(_owner(saved.value)) is False:
        return ""
    return _name(saved.value)


def _acquire(
    store: StateStore, pipeline: str, owner: Owner, ttl: float, sleep: Callable[[float], None]
) -> Hold:
    while True:
        saved = store.load(_key(pipeline))
        if saved is not None and saved.value.get("owner"):
            saved = _outlive(store, pipeline, saved, sleep)
        fence = int(saved.value["fence"]) + 1 if saved else 1
        try:
            taken = store.save(
                _key(pipeline), _value(owner, fence, ttl), expect=saved.version if saved else 0
            )
        except Conflict:
            continue  # another one was faster: look at it as at any holder
        return Hold(pipeline, owner, fence, store, ttl, taken.version, _now())


def _outlive(store: StateStore, pipeline: str, first: Saved, sleep: Callable[[float], None]) -> Saved | None:
    """The lease once its holder is known to be gone; Conflict as soon as it is known to live."""
    alive = _is_alive(_owner(first.value))
    if alive:
        raise _busy(pipeline, first.value)
    if alive is False:
        return first
    ttl = float(first.value["ttl"])
    began = _now()
    while _now() - began < ttl:
        sleep(min(1.0, ttl / 10))
        seen = store.load(_key(pipeline))
        if seen is None or not seen.value.get("owner"):
            return seen
        if seen.value["token"] != first.value["token"]:
            raise _busy(pipeline, seen.value)
    return first


def _keep(held: Hold, ended: threading.Event) -> None:
    while not ended.wait(held._ttl / 3):
        try:
            held.renew()
        except Conflict:
            return  # `check` tells the runner
        except StorageError:
            continue  # the store may be back for the next try; `check` tries too


def _end(thread: threading.Thread, ended: threading.Event) -> None:
    ended.set()
    thread.join()


def _busy(pipeline: str, value: Mapping[str, Any]) -> Conflict:
    owner = _owner(value)
    kill = f"kill {owner.pid}" if owner.host == _host() else f"on {owner.host}: kill {owner.pid}"
    return Conflict(
        f"{pipeline} is being run by {_name(value)}",
        hint=f"wait for it, or end it ({kill}; safe at any moment), and run the command again",
    )


def _key(pipeline: str) -> str:
    return f"{pipeline}/lease"


def _value(owner: Owner, fence: int, ttl: float) -> dict[str, Any]:
    now = datetime.now(UTC).isoformat(timespec="seconds")  # for people only; nothing compares it
    return {"owner": asdict(owner), "fence": fence, "ttl": ttl, "token": uuid.uuid4().hex, "at": now}


def _owner(value: Mapping[str, Any]) -> Owner:
    found = value.get("owner") or {}
    return Owner(
        str(found.get("host", "?")), int(found.get("pid", 0)), str(found.get("started", "")),
        str(found.get("place", "")), str(found.get("user", "")),
    )  # fmt: skip


def _name(value: Mapping[str, Any]) -> str:
    owner = _owner(value)
    user = f" of {owner.user}" if owner.user else ""
    here = " (this very process)" if owner == Owner.here() else ""
    return f"process {owner.pid}{user} on {owner.host}{here}, last seen {value.get('at', 'never')}"


def _is_alive(owner: Owner) -> bool | None:
    """Whether the process still runs; None when this machine cannot tell."""
    if not owner.place or not owner.started or owner.place != _place():
        return None
    return _start_of(owner.pid) == owner.started


def _start_of(pid: int) -> str | None:
    """When a living process started, in ticks since the boot; None when there is none, or only a zombie."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(errors="replace")
    except OSError:
        return None
    after = text.rpartition(")")[2].split()  # the command's name may hold spaces and brackets
    return None if after[0] in ("Z", "X") else after[19]


def _place() -> str:
    # Two containers may share the boot, but not the pid namespace in which a pid means something.
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot}/{os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return ""


def _host() -> str:
    return socket.gethostname()


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return ""


def _now() -> float:
    """A clock that never goes back and also counts while the machine sleeps, where there is one."""
    return time.clock_gettime(getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC))
