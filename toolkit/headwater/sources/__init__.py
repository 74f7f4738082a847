"""Sources: anything that can be read whole and then followed.

To add one, write ``sources/<kind>.py`` (or ``sources/<kind>/`` where there is a wire format) with a class
that satisfies `Source`, register it under the entry-point group ``headwater.sources``, and subclass the
contract suite in ``tests/contracts``.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Protocol

from headwater.model import ChangeBatch, Digest, Finding, Position, TableId, TableInfo, TableSchema


class Cut(Protocol):
    """The source frozen at one position: every read through it sees exactly the commits before `position`."""

    @property
    def position(self) -> Position:
        """The position; changes from here on are exactly the ones the reads do not contain."""
        ...

    def read(self, table: TableId) -> Iterator[ChangeBatch]:
        """Every row as `r`, in bounded memory; the last batch, which may be empty, is ``snapshot_end``."""
        ...

    def digest(self, schema: TableSchema, where: str = "") -> Digest:
        """The digest of the table's rows, computed in the source with the canonical text of `verify`."""
        ...


class Source(Protocol):
    """A system we copy from. Methods block; none is called concurrently. Errors are `SourceError`s."""

    def check(self, tables: Sequence[TableId]) -> Sequence[Finding]:
        """The preflight: reads only, changes nothing; `fix` holds the exact statement to run."""
        ...

    def tables(self) -> Sequence[TableInfo]:
        """Tables that could be captured; a constant number of catalogue queries, also for 10,000 tables."""
        ...

    def head(self) -> Position:
        """The newest position right now."""
        ...

    def behind(self, position: Position) -> int:
        """How far `position` is behind the head, in bytes of log; 0 when caught up."""
        ...

    def show(self, position: Position) -> str:
        """A position as the source's own tools print it (LSN, SCN, ...); needs no connection."""
        ...

    def prepare(self, tables: Sequence[TableId], since: Position | None) -> Sequence[TableId]:
        """Make the source keep what happens from now on; idempotent; before the first cut.

        Returns the tables whose changes it did not keep until now: read them, even if they were before.

        Raises PositionLost when `since` can no longer be continued, PreflightFailed when it cannot be set up.
        """
        ...

    def unlogged(self, known: Mapping[TableId, TableSchema]) -> Sequence[TableId]:
        """Those tables whose rows now read otherwise than logged: a default, a rename or a new type since.

        `known` is the newest logged schema of each. The stream tells the same as `ChangeBatch.reload`, but
        only with the next change of the table.
        """
        ...

    def cut(self) -> AbstractContextManager[Cut]:
        """Freeze the source at a position, for a full load or a comparison."""
        ...

    def changes(
        self,
        tables: Sequence[TableId],
        since: Position,
        until: Position | None = None,
        *,
        known: Mapping[TableId, TableSchema],
    ) -> Iterator[ChangeBatch | Position]:
        """Committed changes from `since` on, in commit order, up to `until` (default: the head at the call).

        Yields the batches of a window (one for each table and schema version in it), then the Position they
        reach: the only safe places to stop. A window ends between transactions; one huge transaction is many
        batches and one Position. The last item is the Position reached, if nothing matched too. Ends only
        when `until` is reached, else raises. `_hw_seq` starts at 0 with each call (see STRIDE). `known` is
        the newest logged schema of each table: an unlogged difference to it sets `ChangeBatch.reload`.
        """
        ...

    def confirm(self, position: Position) -> None:
        """All up to here is durable with us; the source may forget it. Never called before it is."""
        ...

    def facts(self) -> Mapping[str, str | int | None]:
        """What the source says of the log it keeps for us, for `status`; empty when it has nothing to say."""
        ...

    def close(self) -> None:
        """Let go of connections; the source keeps what `prepare` set up."""
        ...
