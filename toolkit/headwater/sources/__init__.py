"""Sources: anything that can be read whole and then followed.

To add one, write ``sources/<kind>.py`` (or ``sources/<kind>/`` where there is a wire format) with a class
that satisfies `Source`, register it under the entry-point group ``headwater.sources``, and subclass the
contract suite in ``tests/contracts``.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Protocol

import pyarrow as pa

from headwater.model import (
    ChangeBatch,
    Digest,
    Finding,
    Position,
    Reference,
    TableId,
    TableInfo,
    TableSchema,
)


@dataclass(frozen=True, slots=True)
class Begun:
    """What earlier cuts read of a table, for a later one to go on with.

    schema  of every row so far
    parts   what is durable, by the names that `Cut.parts` gave
    keys    the key columns of rows that changed since, and of which the log left values out
    """

    schema: TableSchema
    parts: Sequence[str]
    keys: pa.Table


class Cut(Protocol):
    """The source frozen at one position: every read through it sees exactly the commits before `position`.

    `parts`, `read` and `find` may be called by `readers` threads at once. A read left before its end ends the
    cut: no other one may follow.
    """

    @property
    def position(self) -> Position:
        """The position; changes from here on are exactly the ones the reads do not contain."""
        ...

    @property
    def readers(self) -> int:
        """How many reads may run at the same time."""
        ...

    @property
    def expired(self) -> bool:
        """Whether it has been held for as long as it should: end it soon, and take another for the rest."""
        ...

    def parts(self, table: TableId, begun: Begun | None = None) -> Sequence[str] | None:
        """Parts that together hold every row once, [""] where it is not worth a division.

        With `begun`: those that are missing beside what was read, so that the rows read then, the changes of
        the log since and the rows of these parts, in this order, are the table. None: they would not be,
        begin again. A name is valid in later cuts too, and does not begin with "keys ".
        """
        ...

    def read(self, table: TableId, part: str = "") -> Iterator[ChangeBatch]:
        """Every row of the part as `r`, in bounded memory; the last batch, maybe empty, is ``snapshot_end``.

        `_hw_seq` starts at 0 in each batch. The default is the whole table.
        """
        ...

    def find(self, table: TableId, keys: pa.Table) -> Iterator[ChangeBatch]:
        """The rows with these keys (of a `Begun` that `parts` took), as `read` gives them."""
        ...

    def stop(self) -> None:
        """Make the reads of all other threads end soon, with an error."""
        ...

    def digests(self, schema: TableSchema, slices: int = 1, part: str = "") -> Mapping[int, Digest]:
        """The digest of each slice of the part that has rows, by the canonical text of `verify`.

        Only digests travel where the source can compute them. Slices are told by the schema's key, without
        one by the whole row (docs/verify.md). A source waits after each call for as long as it was told to.
        """
        ...

    def pick(
        self, schema: TableSchema, slices: int, chosen: Collection[int], part: str = ""
    ) -> Iterator[ChangeBatch]:
        """The rows of some slices of the part, as `read` gives them."""
        ...


class Source(Protocol):
    """A system we copy from. Methods block; none is called concurrently. Errors are `SourceError`s."""

    def check(self, tables: Sequence[TableId], whole: Sequence[TableId] = ()) -> Sequence[Finding]:
        """The preflight: reads only, changes nothing; `fix` holds the exact statement to run.

        Of `whole`, nothing but a full load is asked.
        """
        ...

    def tables(self) -> Sequence[TableInfo]:
        """Tables that could be captured, and what can only be read whole (`logged` is false).

        A constant number of catalogue queries, also for 10,000 tables.
        """
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

    def evolved(self, known: Mapping[TableId, TableSchema]) -> Sequence[TableSchema]:
        """The schemas of those tables whose columns or key are others now than in the newest logged schema.

        They are what the next change of such a table would come under.
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

    def references(self) -> Sequence[Reference]:
        """The foreign keys between tables, by the source's names, that hold over all of their rows."""
        ...

    def close(self) -> None:
        """Let go of connections; the source keeps what `prepare` set up."""
        ...
