"""What the processes that are ours alone leave out when they start: packages that cost seconds."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager


class _Hidden:
    """An import hook that says some packages are not installed."""

    def __init__(self, names: tuple[str, ...]) -> None:
        self._names = names

    def find_spec(self, name: str, path: object = None, target: object = None) -> None:
        if name in self._names:
            raise ModuleNotFoundError(f"{name} is left out", name=name)


@contextmanager
def without(*names: str) -> Iterator[None]:
    """Inside, packages that are not imported yet count as not installed."""
    hidden = _Hidden(names)
    sys.meta_path.insert(0, hidden)
    try:
        yield
    finally:
        sys.meta_path.remove(hidden)


def spare_pandas() -> None:
    """Keep pyarrow from importing pandas with its first array: a second that no command needs.

    pyarrow looks once, and again whenever a frame is asked for (pandas-shim.pxi): `to_pandas` still works.
    """
    import pyarrow as pa

    with without("pandas"):
        pa.array([])
