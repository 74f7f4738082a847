"""Errors: what is raised says what to type next, wherever it is shown."""

from __future__ import annotations

import pickle
import traceback

from headwater.errors import ConfigError, PreflightFailed


def test_a_traceback_ends_in_the_hint() -> None:
    said = traceback.format_exception(ConfigError("no such table", hint="headwater tables"))
    assert said[-2:] == ["headwater.errors.ConfigError: no such table\n", "try: headwater tables\n"]
    assert traceback.format_exception(PreflightFailed("x"))[-1] == "try: headwater check\n"
    assert len(traceback.format_exception(ConfigError("x"))) == 1


def test_the_hint_is_said_once_after_a_pickle() -> None:
    failed = pickle.loads(pickle.dumps(ConfigError("x", hint="y")))
    assert (failed.hint, failed.__notes__) == ("y", ["try: y"])
