"""Great Expectations at arm's length: imported with care, given small pandas frames, never taken at its word.

It never sees SQL: over DuckDB it reports failures that there are not. An `exception_info` is no success.
"""

from __future__ import annotations

import os
import re
import threading
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from headwater.errors import ConfigError, HeadwaterError
from headwater.quality.rows import KEYS
from headwater.startup import without

if TYPE_CHECKING:
    import pandas as pd

#: The number of an expectation among those judged together, in its `meta`.
_NUMBER = "headwater"
_WRONG, _ALLOWED, _NTH = "wrong", "allowed", "nth"
_IMPORTING = threading.Lock()


def require() -> None:
    """Raise ConfigError unless Great Expectations is installed; imports nothing."""
    for name in ("great_expectations", "pandas"):
        if find_spec(name) is None:
            raise ConfigError(
                f"quality needs {name}, which is not installed", hint="pip install 'headwater[quality]'"
            )


@cache
def library() -> Any:
    """The imported library; raises ConfigError where it is missing or does not import."""
    require()
    os.environ["GX_ANALYTICS_ENABLED"] = "False"
    # Importing pyspark without grpc can end the process, with exit code 0 (pyspark.sql.connect.utils).
    with _IMPORTING, without("pyspark"):
        try:
            import great_expectations
            import great_expectations.expectations.registry
        except (Exception, SystemExit) as failed:
            raise ConfigError(
                f"great_expectations cannot be imported: {type(failed).__name__}: {failed}",
                hint="pip install --force-reinstall 'headwater[quality]'",
            ) from None
    return great_expectations


@dataclass(frozen=True, slots=True)
class Told:
    """What was said of one expectation over one or more frames: an error, or numbers.

    seqs   the `_hw_seq` of the first rows that are not as wanted
    """

    success: bool
    rows: int = 0
    missing: int = 0
    unexpected: int = 0
    seqs: tuple[int, ...] = ()
    error: str = ""

    def add(self, other: Told) -> Told:
        """Both together, of two pieces of the same rows."""
        return Told(
            self.success and other.success,
            self.rows + other.rows,
            self.missing + other.missing,
            self.unexpected + other.unexpected,
            (*self.seqs, *other.seqs)[:KEYS],
            self.error or other.error,
        )


class Judge:
    """Judges frames; has a context of its own, in memory."""

    def __init__(self) -> None:
        gx = library()
        from great_expectations.data_context.types.base import (
            DataContextConfig,
            InMemoryStoreBackendDefaults,
            ProgressBarsConfig,
        )

        # Without a word it would leave folders for its documentation in /tmp.
        stores = InMemoryStoreBackendDefaults(init_temp_docs_sites=False)
        config = DataContextConfig(store_backend_defaults=stores)
        context = gx.get_context(mode="ephemeral", project_config=config)
        context.variables.progress_bars = ProgressBarsConfig(globally=False, metric_calculations=False)
        asset = context.data_sources.add_pandas("headwater").add_dataframe_asset("rows")
        self._batches = asset.add_batch_definition_whole_dataframe("all")
        self._gx = gx

    def counts(self, wrong: Sequence[int]) -> Sequence[Told]:
        """Judges numbers of what is wrong, all at once: none may be above 0."""
        import pandas as pd

        if not wrong:
            return ()
        n = len(wrong)
        frame = pd.DataFrame({_NTH: range(n), _WRONG: list(wrong), _ALLOWED: [0] * n})
        kwargs = {"column_A": _ALLOWED, "column_B": _WRONG, "or_equal": True}
        expectation = make("expect_column_pair_values_a_to_be_greater_than_b", kwargs)
        (told,) = self.frame(frame, [expectation], every=_NTH)
        if told.error:
            return [Told(False, error=told.error)] * n
        above = set(told.seqs)
        if len(above) != told.unexpected or told.rows != n:
            return [Told(False, error="the numbers of what is wrong were not judged")] * n
        return [Told(number not in above) for number in range(n)]

    def frame(
        self, frame: pd.DataFrame, expectations: Sequence[Any], *, index: str = "", every: str = ""
    ) -> Sequence[Told]:
        """Judges a frame; `index` (for the first rows) or `every` names a column that tells rows apart."""
        formed: dict[str, Any] = {"result_format": "COMPLETE" if every else "SUMMARY"}
        formed["partial_unexpected_count"] = KEYS
        if index or every:
            formed["unexpected_index_column_names"] = [index or every]
        for number, expectation in enumerate(expectations):
            expectation.meta = {_NUMBER: number}
        suite = self._gx.ExpectationSuite(name="headwater", expectations=list(expectations))
        try:
            batch = self._batches.get_batch({"dataframe": frame})
            results = batch.validate(suite, result_format=formed).results
        except Exception as failed:  # noqa: BLE001  whatever kept it from judging, nothing was judged
            return [Told(False, error=_short(failed))] * len(expectations)
        found = {
            r.expectation_config.meta[_NUMBER]: _told(r, index or every, all_of=bool(every)) for r in results
        }
        missed = Told(False, error="Great Expectations gave no result")
        return [found.get(number, missed) for number in range(len(expectations))]


def make(name: str, kwargs: Mapping[str, Any]) -> Any:
    """An expectation; raises ConfigError where the library has no such one, or it does not take these."""
    library()
    from great_expectations.exceptions import ExpectationNotFoundError
    from great_expectations.expectations.registry import (
        get_expectation_impl,
        list_registered_expectation_implementations,
    )

    try:
        made = get_expectation_impl(name)
    except ExpectationNotFoundError:
        import difflib

        near = difflib.get_close_matches(name, list_registered_expectation_implementations(), n=1)
        hint = f"did you mean {near[0]}?" if near else "https://greatexpectations.io/expectations"
        raise ConfigError(f"Great Expectations has no {name}", hint=hint) from None
    known = set(made.__fields__) - _OURS
    odd = [word for word in kwargs if word not in known]
    if odd:
        raise ConfigError(f"{name} takes no {odd[0]}", hint=f"it takes: {', '.join(sorted(known))}")
    parsed = {"condition_parser": "pandas"} if isinstance(kwargs.get("row_condition"), str) else {}
    try:
        return made(**kwargs, **parsed)
    except Exception as failed:  # noqa: BLE001  pydantic's, and what validators of expectations raise
        raise ConfigError(f"{name}: {_short(failed)}", hint="mend its kwargs") from None


#: Fields of every expectation that are not for a pipeline file to say.
_OURS = {
    "id", "meta", "notes", "result_format", "catch_exceptions", "rendered_content", "windows", "batch_id",
    "severity", "description", "condition_parser", "library_metadata",
}  # fmt: skip


def to_frame(piece: pa.Table, plain: frozenset[str]) -> pd.DataFrame:
    """A piece as pandas, every value as it is; columns in `plain` as Python objects.

    pandas itself would make floats of whole numbers beside NULL; who compares columns takes no Arrow NULL.
    """
    import pandas as pd

    made = {}
    for name in piece.column_names:
        cells = piece[name]
        if name in plain:
            made[name] = pd.Series(cells.to_pylist(), dtype=object)
        elif not cells.null_count and (cells.type == pa.bool_() or _exact(cells)):
            made[name] = pd.Series(cells.to_numpy())
        else:
            made[name] = pd.Series(pd.arrays.ArrowExtensionArray(cells))
    return pd.DataFrame(made)


def _exact(cells: pa.ChunkedArray) -> bool:
    """Whether numpy compares these whole numbers with floats exactly, as Great Expectations has bounds."""
    import pyarrow.compute as pc

    if cells.type != pa.int64() or not len(cells):
        return False
    ends = pc.min_max(cells)
    return bool(ends["min"].as_py() > -(2**53) and ends["max"].as_py() < 2**53)


def _told(result: Any, index: str, *, all_of: bool) -> Told:
    if error := _error(result.exception_info):
        return Told(False, error=error)
    numbers: Mapping[str, Any] = result.result
    where = numbers.get("unexpected_index_list" if all_of else "partial_unexpected_index_list") or ()
    seqs = tuple(int(row[index]) for row in where if isinstance(row, Mapping)) if index else ()
    return Told(
        bool(result.success),
        int(numbers.get("element_count") or 0),
        int(numbers.get("missing_count") or 0),
        int(numbers.get("unexpected_count") or 0),
        seqs,
    )


def _error(info: Mapping[str, Any]) -> str:
    """What kept an expectation from being judged; "" for nothing."""
    if info.get("raised_exception"):
        return _first(str(info.get("exception_message")))
    raised = [i for i in info.values() if isinstance(i, Mapping) and i.get("raised_exception")]
    texts = Counter(_first(str(i.get("exception_message"))) for i in raised)
    return next(iter(texts), "")


def _short(failed: BaseException) -> str:
    return (
        f"{type(failed).__name__}: {_first(str(failed))}"
        if not isinstance(failed, HeadwaterError)
        else str(failed)
    )


def _first(text: str) -> str:
    """The start of an error text, without what it quotes: that may be the value of a cell."""
    bare = re.sub(r"""'[^']*'|"[^"]*"|\b\d[\d.,:-]*""", "…", " ".join(text.split()))
    return bare[:200] or "an error without a message"
