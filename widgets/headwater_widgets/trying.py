"""Partitions and filters tried out while somebody types them, on rows of the source that were read once."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

from headwater.background import describe
from headwater.config import Config
from headwater.errors import HeadwaterError
from headwater.model import TableId
from headwater.partition import parse
from headwater.pipeline import Pipeline
from headwater.predicate import parse_predicate
from headwater.trials import take_sample, try_filter, try_layout, unfiltered
from headwater_widgets.worker import Worker

if TYPE_CHECKING:
    from headwater.config import TableSpec
    from headwater.model import ChangeBatch

Said = Mapping[str, object]

#: The settings that are tried, and how their text is read.
TRIED: Mapping[str, Callable[[str], object]] = {
    "partition": parse,
    "where": parse_predicate,
    "initial_where": parse_predicate,
}


class Trying:
    """Tries settings of one table after the other, beside the kernel's own work."""

    def __init__(self, tell: Callable[[int, str, Said], None]) -> None:
        """`tell` is given the index of a table, the setting, and what came out, from any thread."""
        self._tell = tell
        self._sample: tuple[TableSpec, ChangeBatch] | None = None
        self._worker = Worker()

    def attempt(
        self, index: int, field: str, text: str, config: Callable[[], Config], table: TableId
    ) -> None:
        """Try a text; what cannot be read is said at once."""
        if not text.strip():
            self._tell(index, field, {})
            return
        try:
            TRIED[field](text)
            wanted = unfiltered(config())
        except HeadwaterError as failed:
            self._tell(index, field, _wrong(failed))
            return
        self._tell(index, field, {"reading": True})

        def work() -> None:
            try:
                found = self._outcome(wanted, table, field, text)
            except Exception as failed:  # noqa: BLE001  a person must get a sentence, also for a bug
                found = _wrong(failed)
            self._tell(index, field, found)

        self._worker.do("try", work)

    def wait(self, seconds: float = 30.0) -> bool:
        """Wait until nothing is left to try; whether that is so."""
        return self._worker.wait(seconds)

    def close(self) -> None:
        """End."""
        self._worker.close()

    def _outcome(self, config: Config, table: TableId, field: str, text: str) -> Said:
        spec = config.spec(table)
        sample = self._rows(config, spec)
        if field == "partition":
            found = try_layout(spec, sample, text)
            return {"folders": list(found.folders), "says": list(found.says)}
        kept = try_filter(sample, text)
        if kept.why:
            return {"says": [kept.why]}
        return {"kept": kept.kept, "looked": kept.looked_at}

    def _rows(self, config: Config, spec: TableSpec) -> ChangeBatch:
        """Rows of the table as its masks and columns let them through; read again where these changed."""
        kept = replace(spec, partition=None, casts={}, formats=())
        if self._sample is None or self._sample[0] != kept:
            with Pipeline(config) as pipeline:
                self._sample = kept, take_sample(pipeline.parts, spec.table)
        return self._sample[1]


def _wrong(failed: BaseException) -> Said:
    said = describe(failed)
    return {"error": said.message, "hint": said.hint}
