"""The command as a process: start-up, pipes, terminals, signals."""

from __future__ import annotations

import os
import pty
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from headwater.config.template import template

TESTS = Path(__file__).parents[1]
HEAVY = ("duckdb", "deltalake", "pyarrow", "obstore", "psycopg", "rich", "numpy", "yaml", "dbt", "sqlite3")

# A process in which the stand-in answers; the rest is the real command.
WITH_STAND_IN = f"""
import sys
sys.path.insert(0, {str(TESTS)!r})
import headwater.pipeline
from cli.stand_in import StandIn, make_record
StandIn.reset()
headwater.pipeline.Pipeline = StandIn
from headwater.cli import main
"""

FOLLOWS = """
import time
def follow(self, sinks=(), pause=1.0, stop=lambda: False, *, build=True):
    yield make_record()
    while not stop():
        time.sleep(0.01)
    if len(sys.argv) > 2:
        time.sleep(60)
    yield make_record(run_id="last")
StandIn.follow = follow
sys.exit(main(["run", "--follow"]))
"""


@pytest.fixture(autouse=True)
def _file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "headwater.yml").write_text(template())


def loaded_after(words: str) -> set[str]:
    code = (
        "import sys; from headwater.cli import main\n"
        f"main({words!r}.split())\n"
        f"print([m for m in {HEAVY!r} if m in sys.modules], file=sys.stderr)"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(eval(found.stderr.splitlines()[-1]))


@pytest.mark.parametrize("words", ["--help", "run --help", "--version", "version", "rnu", "dbt"])
def test_what_needs_no_pipeline_loads_nothing_heavy(words: str) -> None:
    assert loaded_after(words) == set()


def test_the_look_at_loaded_modules_would_see_them() -> None:
    assert "yaml" in loaded_after("init -c x.yml --source postgresql://a@b/c")


def test_importing_headwater_loads_nothing_heavy_until_a_name_is_asked_for() -> None:
    code = (
        "import sys, headwater\n"
        f"heavy = lambda: [m for m in {HEAVY!r} if m in sys.modules]\n"
        "assert not heavy() and 'headwater.errors' not in sys.modules, heavy()\n"
        "assert headwater.__version__ and headwater.errors.HeadwaterError is headwater.HeadwaterError\n"
        "assert not heavy()\n"
        "assert headwater.TableId('a', 'b').name == 'b' and 'pyarrow' in sys.modules\n"
        "assert headwater.Pipeline.__name__ == 'Pipeline'\n"
        "assert set(dir(headwater)) >= {'Pipeline', 'TableId', 'errors', '__version__'}\n"
        "try: headwater.nonsense\n"
        "except AttributeError as e: assert 'nonsense' in str(e)\n"
        "else: raise SystemExit('no AttributeError')\n"
        "from headwater import *\n"
        "Pipeline, TableId, errors\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_help_comes_at_once() -> None:
    def took() -> float:
        began = time.monotonic()
        subprocess.run([sys.executable, "-m", "headwater", "--help"], check=True, stdout=subprocess.DEVNULL)
        return time.monotonic() - began

    assert min(took() for _ in range(5)) < 0.3


def test_python_m_headwater() -> None:
    words = [sys.executable, "-m", "headwater", "rnu"]
    found = subprocess.run(words, capture_output=True, text=True, check=False)
    assert (found.returncode, found.stderr) == (
        2,
        "headwater: 'rnu' is not a command\n  try: headwater run\n",
    )


#: A shell that runs the tests in its background has them ignore Ctrl-C, and their children too.
HEARS_CTRL_C = "import signal\nsignal.signal(signal.SIGINT, signal.default_int_handler)\n"


def stand_in(code: str, **given: object) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", HEARS_CTRL_C + WITH_STAND_IN + code],
        text=True,
        stderr=subprocess.PIPE,
        **given,  # type: ignore[call-overload]
    )


def test_a_reader_that_goes_away_is_no_crash() -> None:
    process = stand_in("sys.exit(main(['tables']))", stdout=subprocess.PIPE)
    process.stdout.close()  # type: ignore[union-attr]
    assert process.stderr is not None
    assert process.stderr.read() == ""
    assert process.wait() == 1


def test_a_full_disk_behind_the_output_is_a_sentence() -> None:
    with open("/dev/full", "w") as full:
        process = stand_in("sys.exit(main(['tables']))", stdout=full)
        _, err = process.communicate()
    assert process.returncode == 1
    assert err.splitlines()[0].startswith("headwater: the command is done, but its output cannot be written")
    assert "Traceback" not in err


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8"])
@pytest.mark.parametrize(
    "words", [["tables"], ["tables", "--json"], ["verify"], ["run", "-c", "ü\u202e.yml"]]
)
def test_a_terminal_that_knows_few_letters_is_no_crash(encoding: str, words: list[str]) -> None:
    code = """
from headwater.model import TableId
from dataclasses import replace
infos = StandIn.answers["tables"]
StandIn.answers["tables"] = [replace(i, note="für 東京 \\U0001f600") for i in infos]
check = StandIn.answers["verify"].tables[0]
check = replace(check, table=TableId("p", "東\\udcff"))
StandIn.answers["verify"] = replace(StandIn.answers["verify"], tables=(check,))
"""
    environment = {**os.environ, "PYTHONIOENCODING": encoding, "PYTHONUTF8": "0"}
    process = subprocess.Popen(
        [sys.executable, "-c", f"{WITH_STAND_IN}{code}sys.exit(main({words!r}))"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment,
    )  # fmt: skip
    out, err = process.communicate()
    assert b"Traceback" not in err
    assert process.returncode == (2 if "-c" in words else 0)
    (out + err).decode(encoding)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_first_signal_lets_the_round_end(number: signal.Signals) -> None:
    process = stand_in(FOLLOWS, stdout=subprocess.PIPE)
    assert process.stdout is not None
    assert "caught up" in process.stdout.readline()
    process.send_signal(number)
    out, err = process.communicate(timeout=20)
    assert process.returncode == 0
    assert out.splitlines()[-1] == "stopped; next: headwater verify"
    assert err == "headwater: stopping after this round; once more to stop at once\n"


def test_the_second_signal_ends_it_at_once() -> None:
    process = stand_in(FOLLOWS.replace("len(sys.argv) > 2", "True"), stdout=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.readline()
    process.send_signal(signal.SIGTERM)
    process.stderr.readline()
    began = time.monotonic()
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=20) == 1
    assert time.monotonic() - began < 5


def test_ctrl_c_in_a_run_says_that_nothing_is_lost() -> None:
    code = """
import time
def run(self, *given, **named):
    print("running", flush=True)
    time.sleep(60)
StandIn.run = run
sys.exit(main(["run"]))
"""
    process = stand_in(code, stdout=subprocess.PIPE)
    assert process.stdout is not None
    process.stdout.readline()
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=20)
    assert process.returncode == 1
    assert (
        err == "headwater: stopped; nothing is lost\n  try: headwater run   (goes on from the last entry)\n"
    )


def on_a_terminal(code: str) -> str:
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-c", WITH_STAND_IN + code],
        stdout=subprocess.PIPE, stderr=theirs, env={**os.environ, "TERM": "xterm", "COLUMNS": "120"},
    )  # fmt: skip
    os.close(theirs)
    shown = b""
    try:
        while piece := os.read(ours, 65536):
            shown += piece
    except OSError:
        pass  # the other end is closed
    process.wait()
    os.close(ours)
    return shown.decode()


def test_bars_on_a_terminal() -> None:
    code = """
import time
from headwater.events import Event
from headwater.model import TableId
odd, even = TableId("public", "odd[red]\\x1b[2J"), TableId("public", "even[blue]\\x1b[2J")
def event(kind, table=None, **data):
    return Event(kind, "shop", table, data)
StandIn.events = [
    event("table.loading", odd, rows=n * 100000, total=400000, bytes=n << 20) for n in range(4)
]
StandIn.events += [event("table.loaded", odd, rows=400000), event("changes.captured", odd, rows=5)]
StandIn.events += [event("table.refreshed", even), event("handoff.started", tables=3), event("run.finished")]
class Slow(list):
    def __iter__(self):
        for event in list.__iter__(self):
            yield event
            time.sleep(0.3)
StandIn.events = Slow(StandIn.events)
sys.exit(main(["run"]))
"""
    shown = on_a_terminal(code)
    assert "public.odd[red]\\x1b[2J" in shown
    assert "public.even[blue]\\x1b[2J" in shown
    assert "300,000 of ~400,000 rows  3 MB" in shown
    assert "rows/s" in shown
    assert "3 tables" in shown
    assert "\x1b[2J" not in shown
    assert "Traceback" not in shown
    assert shown.count("\x1b[?25l") == shown.count("\x1b[?25h") == 1  # the cursor is given back
