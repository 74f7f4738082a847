"""Real servers for tests, each started by the tests on free ports and gone with them, however they end.

`postgres`: PostgreSQL 15, 16 and 18. `s3`: moto (semantics) and Ceph RGW (checks signatures). `proxy`: the
network between, as bad as a test wants it. The fixtures over these are in `tests/conftest.py`.
"""

import os
import socket
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NoReturn

import pytest

_GUARD = '"$@" </dev/null & pid=$!; read -r _; kill -KILL $pid; wait'


def need(condition: object, how_to_install: str) -> None:
    """Go on if the machine has what a test needs; else skip, or fail in CI, where nothing may be missing."""
    if not condition:
        _give_up(f"missing on this machine; to install: {how_to_install}")


def _give_up(reason: str) -> NoReturn:
    if os.environ.get("CI") == "true":
        pytest.fail(reason, pytrace=False)
    pytest.skip(reason)


def free_ports(count: int) -> list[int]:
    """Return TCP ports of 127.0.0.1 that nothing listens on, all different."""
    probes = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [probe.getsockname()[1] for probe in probes]
    for probe in probes:
        probe.close()
    return ports


def spawn(
    command: Sequence[str], log: Path, environment: Mapping[str, str] | None = None
) -> subprocess.Popen[bytes]:
    """Start a program that is killed when we end, however that happens, or when `end` is called."""
    with log.open("ab") as output:
        return subprocess.Popen(
            ["/bin/sh", "-c", _GUARD, "sh", *command],
            stdin=subprocess.PIPE,
            stdout=output,
            stderr=output,
            env=environment,
            start_new_session=True,
        )


def end(process: subprocess.Popen[bytes]) -> None:
    """Kill what `spawn` started and wait until it is gone."""
    if process.stdin is not None:
        process.stdin.close()
    process.wait(10)


def wait_for(happened: Callable[[], bool], what: str, seconds: float = 30.0) -> None:
    """Poll until something happened; fail the test when it did not in time."""
    deadline = time.monotonic() + seconds
    while not happened():
        if time.monotonic() > deadline:
            pytest.fail(f"waited {seconds:.0f} s for {what}")
        time.sleep(0.02)
