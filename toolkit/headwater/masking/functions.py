"""The masks: MASKS has one function over a whole Arrow column for each. NULL stays NULL.

| mask | a value becomes | on a key |
|---|---|---|
| `hash` | HMAC-SHA-256 of its canonical text in UTF-8, 64 hex digits | allowed |
| `tokenize` | a text of the same shape, another one for every other value (`tokens.py`) | allowed |
| `redact` | `****` and the last n characters; of a text that is not longer, only `****` | refused |
| `truncate` | its first n characters | refused |
| `null` | NULL, in the column's own type | refused |
| `drop` | nothing: no row, no file has the column | refused |
"""

from __future__ import annotations

import contextlib
import hashlib
import hmac
from collections.abc import Callable, Mapping
from threading import Lock
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.compute as pc

from headwater.config import MaskKind
from headwater.errors import ConfigError
from headwater.masking.tokens import make_token
from headwater.secrets import Secret

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

#: Masks with a key. They give different values different texts, so that a key of a table stays a key.
KEYED: frozenset[MaskKind] = frozenset({"hash", "tokenize"})
#: Masks over the text that people read, which follows the type; `hash` is over the canonical text.
SHOWN: frozenset[MaskKind] = frozenset({"redact", "truncate", "tokenize"})

_STARS = "****"
_SHORTEST = 32


class MaskKey:
    """The key of `hash` and `tokenize`; never prints itself. `id` names it in schemas, and tells nothing."""

    __slots__ = ("id", "inner", "outer", "secret")

    def __init__(self, secret: Secret) -> None:
        """Raises ConfigError for a key that could be guessed."""
        key = secret.reveal().encode()
        if len(key) < _SHORTEST:
            raise ConfigError(
                f"the mask key has fewer than {_SHORTEST} characters",
                hint="export HEADWATER_MASK_KEY=$(openssl rand -hex 32)",
            )
        self.secret = key
        self.id = hmac.digest(key, b"headwater mask key", "sha256").hex()[:12]
        # The two blocks of HMAC (RFC 2104), for an engine that knows SHA-256 alone.
        block = (hashlib.sha256(key).digest() if len(key) > 64 else key).ljust(64, b"\0")
        self.inner, self.outer = (bytes(b ^ pad for b in block) for pad in (0x36, 0x5C))

    def __repr__(self) -> str:
        return "***"


class Refused(Exception):
    """The engine could not do it."""


class Tools:
    """What masks work with: a DuckDB that writes nothing to disk, and the key if any. Thread-safe."""

    def __init__(self, key: MaskKey | None) -> None:
        self._key = key
        self._connection: DuckDBPyConnection | None = None
        self._opening = Lock()

    @property
    def key(self) -> MaskKey:
        """The key; raises ConfigError without one."""
        if self._key is None:
            raise ConfigError("hash and tokenize need a key", hint="mask_key: env:HEADWATER_MASK_KEY")
        return self._key

    @property
    def key_id(self) -> str:
        """The key's name, "" without one."""
        return self._key.id if self._key else ""

    def query(self, sql: str, rows: pa.Table, *values: bytes) -> pa.Table:
        """The result of a query over `rows`, in their order; raises Refused."""
        import duckdb

        with self._cursor() as cursor:
            cursor.register("rows", rows)
            with contextlib.suppress(duckdb.Error):
                return cursor.sql(sql, params=list(values)).to_arrow_table()
        # What the engine said may quote the value it stumbled over: it does not travel as the context either.
        raise Refused

    def close(self) -> None:
        """Let go of the connection."""
        with self._opening:
            if self._connection is not None:
                self._connection.close()
                self._connection = None

    def _cursor(self) -> DuckDBPyConnection:
        """A connection of its own for one query: threads share nothing but the engine."""
        with self._opening:
            if self._connection is None:
                import duckdb

                # Without a temporary folder DuckDB cannot spill what is not masked yet.
                self._connection = duckdb.connect(config={"temp_directory": ""})
            return self._connection.cursor()


_HMAC = "sha256(?::BLOB || unhex(sha256(?::BLOB || encode(v))))"


def _hash(column: pa.ChunkedArray, _keep: int, tools: Tools) -> pa.ChunkedArray:
    key = tools.key

    def digest(distinct: pa.Array) -> pa.Array:
        found = tools.query(f"SELECT {_HMAC} AS h FROM rows", pa.table({"v": distinct}), key.outer, key.inner)
        return found["h"].combine_chunks()

    return _each_distinct(column, digest)


def _tokenize(column: pa.ChunkedArray, _keep: int, tools: Tools) -> pa.ChunkedArray:
    secret = tools.key.secret

    def tokens(distinct: pa.Array) -> pa.Array:
        return pa.array([make_token(text, secret) for text in distinct.to_pylist()], pa.string())

    return _each_distinct(column, tokens)


def _each_distinct(column: pa.ChunkedArray, make: Callable[[pa.Array], pa.Array]) -> pa.ChunkedArray:
    """The column with every distinct value put through `make` once."""
    whole = column.combine_chunks().dictionary_encode()
    return pa.chunked_array([make(whole.dictionary).take(whole.indices)], pa.string())


def _redact(column: pa.ChunkedArray, keep: int, _tools: Tools) -> pa.ChunkedArray:
    hidden = pc.if_else(column.is_valid(), pa.scalar(_STARS), pa.scalar(None, pa.string()))
    if not keep:
        return hidden
    tail = pc.utf8_slice_codeunits(column, start=-keep, stop=None)
    return pc.if_else(
        pc.greater(pc.utf8_length(column), keep), pc.binary_join_element_wise(_STARS, tail, ""), hidden
    )


def _truncate(column: pa.ChunkedArray, keep: int, _tools: Tools) -> pa.ChunkedArray:
    return pc.utf8_slice_codeunits(column, start=0, stop=keep)


def _null(column: pa.ChunkedArray, _keep: int, _tools: Tools) -> pa.ChunkedArray:
    return pa.chunked_array([pa.nulls(len(column), column.type)], column.type)


#: Kind -> what it makes of a column of texts (null: of any column), the number given, and the tools.
MASKS: Mapping[MaskKind, Callable[[pa.ChunkedArray, int, Tools], pa.ChunkedArray] | None] = {
    "hash": _hash,
    "tokenize": _tokenize,
    "redact": _redact,
    "truncate": _truncate,
    "null": _null,
    "drop": None,
}
