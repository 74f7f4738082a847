"""Local files for pyiceberg's readers and writers: its own way there loads pandas and every file system."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import IO

from pyiceberg.io import FileIO, InputFile, OutputFile


class LocalFile(InputFile, OutputFile):
    """A file of this machine."""

    def __init__(self, path: Path) -> None:
        super().__init__(str(path))
        self._path = path

    def __len__(self) -> int:
        """Its size in bytes."""
        return self._path.stat().st_size

    def exists(self) -> bool:
        """Is it there?"""
        return self._path.exists()

    def open(self, seekable: bool = True) -> IO[bytes]:
        """For reading."""
        return self._path.open("rb")

    def create(self, overwrite: bool = False) -> IO[bytes]:
        """For writing."""
        return self._path.open("wb" if overwrite else "xb")

    def to_input_file(self) -> LocalFile:
        """The same, for reading."""
        return self


class Fetched(FileIO):
    """Files by their address in the store, as `fetch` brings them here."""

    def __init__(self, fetch: Callable[[str], Path]) -> None:
        super().__init__()
        self._fetch = fetch

    def new_input(self, location: str) -> InputFile:
        """A file of the store."""
        return LocalFile(self._fetch(location))

    def new_output(self, location: str) -> OutputFile:
        """Nothing is written by address."""
        raise NotImplementedError(location)

    def delete(self, location: str | InputFile | OutputFile) -> None:
        """Nothing is deleted by address."""
        raise NotImplementedError(str(location))
