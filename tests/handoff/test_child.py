"""A dbt that a run started does not outlive the run."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import pytest

CHILD = (
    "import sys, time; from headwater.handoff.child import _end_with; "
    "_end_with(int(sys.argv[1])); print('up', flush=True); time.sleep(60)"
)
PARENT = (
    "import os, subprocess, sys, time; "
    f"c = subprocess.Popen([sys.executable, '-c', {CHILD!r}, str(os.getpid())], stdout=subprocess.PIPE); "
    "c.stdout.readline(); print(c.pid, flush=True); time.sleep(60)"
)


def gone(pid: int) -> bool:
    """Whether a process ended; one that nobody waited for still has an entry, as a zombie."""
    try:
        with open(f"/proc/{pid}/stat") as stat:
            return stat.read().rsplit(")", 1)[1].split()[0] == "Z"
    except FileNotFoundError:
        return True


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a child that its parent died")
def test_the_child_ends_with_its_parent() -> None:
    with subprocess.Popen([sys.executable, "-c", PARENT], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        child = int(parent.stdout.readline())
        assert not gone(child)
        parent.send_signal(signal.SIGKILL)
        parent.wait()
    until = time.monotonic() + 10
    while not gone(child) and time.monotonic() < until:
        time.sleep(0.05)
    assert gone(child)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a child that its parent died")
def test_a_child_whose_parent_is_gone_already_ends_at_once() -> None:
    done = subprocess.run(
        [sys.executable, "-c", CHILD, str(os.getpid() + 1)], capture_output=True, check=False
    )
    assert (done.returncode, done.stdout) == (1, b"")
