"""The command line against a pipeline that only answers: what is parsed, called and printed."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from cli.stand_in import StandIn
from headwater.cli import main


@dataclass(frozen=True)
class Said:
    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


Run = Callable[..., Said]


@pytest.fixture
def pipeline(monkeypatch: pytest.MonkeyPatch) -> type[StandIn]:
    StandIn.reset()
    monkeypatch.setattr("headwater.pipeline.Pipeline", StandIn)
    return StandIn


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    monkeypatch.chdir(tmp_path)

    def run(*words: str) -> Said:
        code = main(list(words))
        out, err = capsys.readouterr()
        return Said(code, out, err)

    return run
