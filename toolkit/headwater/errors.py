"""Every error this package raises.

HeadwaterError
  ConfigError           the pipeline file or a word on the command line is wrong; nothing ran
  SecretError           a secret reference cannot be resolved
  SourceError           the source refused, went away or sent something unreadable
    PreflightFailed     the source is not set up for capture; each finding says what to run
    PositionLost        the source no longer holds what follows our position: going on would lose changes
    DecodeError         bytes from the source do not follow its wire format
  StorageError          the folder or bucket cannot be read or written
    Corrupt             a stored file is not the bytes its entry names
  Conflict              another writer won, or another runner holds the pipeline; reload and try again
  CastFailed            a value does not fit the type its column is cast to, and the table is to stop then
  SchemaConflict        a column changed in a way the lake cannot carry
    Incomplete          a row came into the copy with values left out: only reading the table again has them
  SchemaRefused         a change of schema that the table's policy does not let in until a person accepts it
  WarehouseError        the warehouse or dbt refused
  VerifyFailed          source, lake and warehouse differ; the keys are named
  QualityFailed         data is not as it should be, and the handoff of its tables is held back
"""

from __future__ import annotations


class HeadwaterError(Exception):
    """What failed (never with a secret in it), plus `hint`: the next command or statement to type."""

    hint = ""

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint or self.hint
        if self.hint:
            self.add_note(f"try: {self.hint}")  # a traceback in a script or a notebook shows it


class ConfigError(HeadwaterError):
    """The pipeline file or a word on the command line is wrong; nothing ran."""


class SecretError(HeadwaterError):
    """A secret reference cannot be resolved."""


class SourceError(HeadwaterError):
    """The source refused, went away or sent something unreadable."""


class PreflightFailed(SourceError):
    """The source is not set up for capture; each finding says what to run."""

    hint = "headwater check"


class PositionLost(SourceError):
    """The source no longer holds what follows our position: going on would lose changes."""

    hint = "headwater run --full   (reads every table again; history is kept)"


class DecodeError(SourceError):
    """Bytes from the source do not follow its wire format."""

    hint = "headwater check   (compares the server's settings and encoding with what the reader needs)"


class StorageError(HeadwaterError):
    """The folder or bucket cannot be read or written."""


class Corrupt(StorageError):
    """A stored file is not the bytes its entry names."""


class Conflict(HeadwaterError):
    """Another writer won, or another runner holds the pipeline; reload and try again."""


class SchemaConflict(HeadwaterError):
    """A column changed in a way the lake cannot carry."""


class CastFailed(HeadwaterError):
    """A value does not fit the type its column is cast to, and the table is to stop then."""


class Incomplete(SchemaConflict):
    """A row came into the copy with values left out: only reading the table again has them."""


class SchemaRefused(HeadwaterError):
    """A change of schema that the table's policy does not let in until a person accepts it."""

    hint = "headwater schema log"


class WarehouseError(HeadwaterError):
    """The warehouse or dbt refused."""


class VerifyFailed(HeadwaterError):
    """Source, lake and warehouse differ; the keys are named."""


class QualityFailed(HeadwaterError):
    """Data is not as it should be, and the handoff of its tables is held back."""

    hint = "headwater quality"
