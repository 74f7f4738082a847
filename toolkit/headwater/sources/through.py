"""What a source that stands before another one passes on as it is; masks and filters add the rest."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from headwater.model import Position, Reference
from headwater.sources import Cut, Source


class Through:
    """The part of `Source` that does not look at rows or columns."""

    def __init__(self, source: Source) -> None:
        self._source = source

    def head(self) -> Position:
        """The source's head."""
        return self._source.head()

    def behind(self, position: Position) -> int:
        """The source's own measure."""
        return self._source.behind(position)

    def show(self, position: Position) -> str:
        """The source's own spelling."""
        return self._source.show(position)

    def confirm(self, position: Position) -> None:
        """The source's."""
        self._source.confirm(position)

    def facts(self) -> Mapping[str, str | int | None]:
        """The source's."""
        return self._source.facts()

    def references(self) -> Sequence[Reference]:
        """The source's."""
        return self._source.references()


class ThroughCut:
    """The part of `Cut` that does not look at rows or columns."""

    def __init__(self, cut: Cut) -> None:
        self._cut = cut

    @property
    def position(self) -> Position:
        """The cut's position."""
        return self._cut.position

    @property
    def readers(self) -> int:
        """The cut's."""
        return self._cut.readers

    @property
    def expired(self) -> bool:
        """The cut's."""
        return self._cut.expired

    def stop(self) -> None:
        """Stop the cut's reads."""
        self._cut.stop()
