"""Results at rest: `quality/results/<time>-<run>.json` in the store, and the page `quality/report.html`."""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from itertools import islice

from headwater.quality import QualityResult
from headwater.storage import Storage

FOLDER = "quality/results"
PAGE = "quality/report.html"

#: So many results are kept, and so many of them are drawn.
KEPT = 500
DRAWN = 60


def keep(storage: Storage, result: QualityResult) -> QualityResult:
    """Store a result and the page with it as the newest; returns it with the place of the page."""
    from headwater.quality.page import render

    result = replace(result, page=place_of(storage, PAGE))
    names = list(storage.list(FOLDER))
    name = f"{FOLDER}/{result.at:%Y%m%dT%H%M%S%f}-{result.run_id}.json"
    storage.create(name, json.dumps(result.to_json()).encode(), step="result")
    past = [*load(storage, names[-DRAWN:]), result]
    storage.replace(PAGE, render(past).encode(), step="result")
    storage.delete(names[: max(0, len(names) + 1 - KEPT)])
    return result


def load_past(storage: Storage, most: int = DRAWN) -> list[QualityResult]:
    """The newest results, oldest first."""
    return load(storage, list(storage.list(FOLDER))[-most:])


def load(storage: Storage, names: Sequence[str]) -> list[QualityResult]:
    """Results by the names of their files; one that went meanwhile, or cannot be read, is left out."""
    found = (_read(storage.find(name)) for name in islice(names, DRAWN))
    return [result for result in found if result is not None]


def _read(data: bytes | None) -> QualityResult | None:
    # They are there to be drawn: one that is damaged, or of another version, is no reason to stop a run.
    with suppress(ValueError, TypeError, KeyError, AttributeError):
        return None if data is None else QualityResult.from_json(json.loads(data))
    return None


def place_of(storage: Storage, name: str) -> str:
    """Where a file of the store is, for a person: its path, or its URL in a bucket."""
    return str(storage.local / name) if storage.local else storage.delta(name)[0]
