"""What `make lab` runs on beside JupyterLab."""

from __future__ import annotations

import signal
from pathlib import Path

import psycopg
import pytest
import yaml

from headwater.demo import data, lab, practice
from headwater.demo.server import EmbeddedPostgres, ServerFailed

pytestmark = pytest.mark.live


def test_the_slot_of_a_lab_that_is_left_open_never_fills_the_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(data, "load", lambda url: None)
    monkeypatch.setattr(practice, "mark", lambda url: None)
    with lab._served(tmp_path):
        port = yaml.safe_load((tmp_path / "headwater.yml").read_text())["source"]["port"]
        password = (tmp_path / "server-password").read_text()
        with psycopg.connect(f"host=127.0.0.1 port={port} user=postgres password={password}") as db:
            assert db.execute("show max_slot_wal_keep_size").fetchone() == ("4GB",)


def test_a_lab_whose_server_does_not_start_says_why(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(signal, "signal", lambda *_: None)
    monkeypatch.setattr(EmbeddedPostgres, "start", fail)
    assert lab.main([str(tmp_path), str(Path(__file__).parents[2] / "notebooks")]) == 1
    assert capsys.readouterr().err == "headwater: another run uses it\n  try: end it\n"


def fail(server: EmbeddedPostgres) -> None:
    raise ServerFailed("another run uses it", hint="end it")
