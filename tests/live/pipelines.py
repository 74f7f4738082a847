"""A pipeline of our own in a folder, driven through the command line as a user would."""

import contextlib
import io
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest import mock

import yaml

from headwater import Pipeline
from headwater.cli import main


@dataclass
class Runner:
    """`headwater` in a folder; every call is a process, or with `inside` a call in this one: quicker."""

    folder: Path
    url: str
    tables: tuple[str, ...] = ("public.*",)
    store: dict[str, str] | str = "./lake"
    warehouse: bool = True
    lake: dict[str, Any] = field(default_factory=dict)
    environment: dict[str, str] = field(default_factory=dict)
    timeout: float = 240
    inside: bool = False

    def __post_init__(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        head, _, rest = self.url.partition("://")
        user, _, place = rest.partition("@")
        name, _, password = user.partition(":")
        doc: dict[str, Any] = {
            "pipeline": "soak",
            "source": {
                "kind": "postgres",
                "url": f"{head}://{name}@{place}",
                "password": "env:SOAK_PASSWORD",
            },
            "store": self.store,
            "tables": list(self.tables),
        }
        if self.lake:
            doc["lake"] = self.lake
        if self.warehouse:
            doc["warehouse"] = "duckdb:///warehouse.duckdb"
        self.environment = {**os.environ, "SOAK_PASSWORD": password, **self.environment}
        self.config.write_text(yaml.safe_dump(doc))

    @property
    def config(self) -> Path:
        return self.folder / "headwater.yml"

    def run(self, *words: str, ok: bool = True, **environment: str) -> subprocess.CompletedProcess[str]:
        """Run a command to its end; with `ok`, its failure is the test's."""
        given = {**self.environment, **environment}
        if self.inside:
            done = _call(words, self.folder, given)
        else:
            done = subprocess.run(
                [sys.executable, "-m", "headwater", *words],
                cwd=self.folder,
                env=given,
                capture_output=True,
                text=True,
                timeout=self.timeout,
                check=False,
            )
        if ok:
            assert done.returncode == 0, (
                f"headwater {' '.join(words)}: {done.returncode}\n{done.stdout}\n{done.stderr}"
            )
        return done

    def json(self, *words: str) -> Any:
        """Run a command with --json and read what it printed."""
        return json.loads(self.run(*words, "--json").stdout)

    def start(self, *words: str) -> "subprocess.Popen[bytes]":
        """Start a command in the background; its output goes to `follow.log`."""
        with (self.folder / "follow.log").open("ab") as log:
            return subprocess.Popen(
                [sys.executable, "-m", "headwater", *words],
                cwd=self.folder, env=self.environment, stdout=log, stderr=log,
            )  # fmt: skip

    def open(self) -> Pipeline:
        """The pipeline in this process, for reading."""
        os.environ["SOAK_PASSWORD"] = self.environment["SOAK_PASSWORD"]
        return Pipeline.open(self.config)


def _call(
    words: Sequence[str], folder: Path, environment: Mapping[str, str]
) -> subprocess.CompletedProcess[str]:
    """The command in this process: its folder, environment and output, and all as before afterwards."""
    out, err = io.StringIO(), io.StringIO()
    printed = contextlib.redirect_stdout(out), contextlib.redirect_stderr(err)
    with contextlib.chdir(folder), mock.patch.dict(os.environ, environment), printed[0], printed[1]:
        code = main(words)
    return subprocess.CompletedProcess(words, code, out.getvalue(), err.getvalue())


def stop(process: "subprocess.Popen[bytes]", within: float = 90.0) -> int:
    """Ask a follower to end, and wait until it did."""
    process.send_signal(signal.SIGTERM)
    return process.wait(within)


def kill_after(process: "subprocess.Popen[bytes]", seconds: float) -> None:
    """kill -9, whatever it is doing."""
    time.sleep(seconds)
    process.kill()
    process.wait()
