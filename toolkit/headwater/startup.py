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
        if self.hides(name):
            raise ModuleNotFoundError(f"{name} is left out", name=name)

    def hides(self, name: str) -> bool:
        return name.partition(".")[0] in self._names


@contextmanager
def without(*names: str) -> Iterator[None]:
    """Inside, these packages count as not installed, also those that are imported already."""
    hidden = _Hidden(names)
    aside = {name: sys.modules.pop(name) for name in list(sys.modules) if hidden.hides(name)}
    sys.meta_path.insert(0, hidden)
    try:
        yield
    finally:
        sys.meta_path.remove(hidden)
        sys.modules.update(aside)


def spare_pandas() -> None:
    """Keep pyarrow from importing pandas with its first array: a second that no command needs.

    pyarrow looks once, and again whenever a frame is asked for (pandas-shim.pxi): `to_pandas` still works.
    """
    import pyarrow as pa

    with without("pandas"):
        pa.array([])
