"""Jobs that do as little as can be: what no reader of PostgreSQL can be faster than."""

from __future__ import annotations

import subprocess
from typing import Any

from benchmarks.bench import BINARIES
from benchmarks.stopwatch import Stopwatch


def receive(watch: Stopwatch, url: str, slot: str, publication: str, until: str) -> dict[str, Any]:
    """`pg_recvlogical > /dev/null`: the slot's content as the server sends it, with our own options."""
    command = [
        str(BINARIES / "pg_recvlogical"), "-d", url, "--slot", slot, "--start", "--no-loop", "-f", "-",
        "-o", "proto_version=1", "-o", f"publication_names={publication}", "--endpos", until,
    ]  # fmt: skip
    with watch:
        subprocess.run(command, stdout=subprocess.DEVNULL, check=True)
    return {}


def copy(watch: Stopwatch, url: str, targets: list[str]) -> dict[str, Any]:
    """`psql -c "COPY ... TO STDOUT (FORMAT binary)" > /dev/null`: libpq in C, one process a connection."""
    psql = [str(BINARIES / "psql"), "-X", "-q", "-d", url, "-c"]
    with watch:
        started = [
            subprocess.Popen([*psql, f"copy {t} to stdout (format binary)"], stdout=subprocess.DEVNULL)
            for t in targets
        ]
        codes = [process.wait() for process in started]
    assert not any(codes)
    return {}
