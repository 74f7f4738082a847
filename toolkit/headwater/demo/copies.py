"""`headwater notebooks`: the notebooks of the package, copied to where somebody works."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

from headwater.errors import ConfigError


def find_notebooks() -> Sequence[Path]:
    """Where the notebooks are: beside this file in an installed package, in notebooks/ in the repository."""
    here = Path(__file__).resolve()
    for folder in (here.parent / "notebooks", here.parents[3] / "notebooks"):
        if found := sorted(folder.glob("*.ipynb")):
            return found
    raise ConfigError("the notebooks are missing", hint="pip install --force-reinstall 'headwater[notebook]'")


def copy_notebooks(folder: Path) -> Sequence[Path]:
    """Copy those that are not there yet, and return them; one that is there may have been edited."""
    copied = []
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for notebook in find_notebooks():
            place = folder / notebook.name
            if not place.exists():
                shutil.copyfile(notebook, place)
                copied.append(place)
    except OSError as failed:
        raise ConfigError(
            f"the notebooks cannot be written to {folder}: {failed.strerror}", hint="headwater notebooks PATH"
        ) from None
    return copied
