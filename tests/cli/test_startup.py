"""What our own processes leave out when they start."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from headwater.errors import HeadwaterError
from headwater.startup import without


def run(words: list[str], folder: Path) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [sys.executable, *words], cwd=folder, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    return done


def test_pyarrow_makes_arrays_without_pandas_and_frames_with_it(tmp_path: Path) -> None:
    (tmp_path / "look.py").write_text("""\
import sys
import pyarrow as pa
from headwater.startup import spare_pandas
spare_pandas()
table = pa.table({"a": pa.array([1, None])})
assert "pandas" not in sys.modules
frame = table.to_pandas()
import pandas
assert isinstance(frame, pandas.DataFrame)
assert pa.array(pandas.Series([1, 2])).to_pylist() == [1, 2]
assert pa.Table.from_pandas(frame).num_rows == 2
""")
    run(["look.py"], tmp_path)


def test_a_command_imports_no_pandas(tmp_path: Path) -> None:
    (tmp_path / "headwater.yml").write_text(
        "pipeline: p\nsource: {kind: postgres, host: 127.0.0.1, port: 1, dbname: x, user: x}\n"
        "store: ./lake\ntables: ['*.*']\n"
    )
    said = run(["-X", "importtime", "-m", "headwater", "status"], tmp_path).stderr
    assert "pyarrow.lib" in said
    assert "pandas.core" not in said


def test_dbt_starts_without_the_grammar_of_urls(tmp_path: Path) -> None:
    words = ["-X", "importtime", "-m", "headwater.handoff.child", str(os.getpid()), "--version"]
    said = run(words, tmp_path).stderr
    assert "dbt.cli.main" in said
    assert "rfc3987_syntax.syntax_helpers" not in said


def test_what_is_hidden_is_hidden_for_the_time_only() -> None:
    sys.modules.pop("this", None)
    with pytest.raises(HeadwaterError), without("this"):
        with pytest.raises(ModuleNotFoundError):
            __import__("this")
        raise HeadwaterError("the hook goes away after an error too")
    assert __import__("this")
    with without("this"), pytest.raises(ModuleNotFoundError):  # imported already, and hidden all the same
        __import__("this")
    assert "this" in sys.modules
