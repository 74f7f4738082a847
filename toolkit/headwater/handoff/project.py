"""Files of ours inside a dbt project: written, kept and removed without touching a file of anyone else.

A record in each folder of ours says which files we wrote, and the SHA-256 of each. A file that is not what
the record says was edited: it is named, not overwritten.
"""

from __future__ import annotations

import difflib
import hashlib
import json
import os
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import yaml

from headwater.errors import ConfigError, StorageError

RECORD = ".headwater.json"

_FORCE = "headwater dbt generate --force   (writes them again; or move your changes to files of your own)"


@dataclass(frozen=True, slots=True)
class Generated:
    """What `generate` did: files below the project, by path."""

    written: tuple[str, ...]
    unchanged: int
    removed: tuple[str, ...]


class Project:
    """A dbt project folder, the user's or our own, and the folders in it that are ours."""

    def __init__(self, root: Path, folder: str, *, owner: str) -> None:
        self._root = root
        self._folder = _inside(folder)
        self._owner = owner

    def write(
        self,
        models: Mapping[str, str],
        macros: Mapping[str, str],
        scaffold: Mapping[str, str],
        *,
        force: bool = False,
    ) -> Generated:
        """Make the folders of ours hold exactly these files, beside whatever others put there."""
        folders = self._folders(models, macros, scaffold)
        edited = [path for folder in folders for path in folder.edited()]
        if edited and not force:
            some = ", ".join(edited[:5]) + (f" and {len(edited) - 5} more" if len(edited) > 5 else "")
            raise ConfigError(f"generated files were edited by hand: {some}", hint=_FORCE)
        done = [folder.apply() for folder in folders]
        return Generated(
            tuple(path for d in done for path in d.written),
            sum(d.unchanged for d in done),
            tuple(path for d in done for path in d.removed),
        )

    def written(self, relations: Collection[str]) -> Mapping[str, str]:
        """The files of ours in the folders of these relations, as they were written and are still there."""
        return _Folder(self._root, self._folder, self._owner, {}).untouched(relations) if relations else {}

    def diff(
        self, models: Mapping[str, str], macros: Mapping[str, str], scaffold: Mapping[str, str]
    ) -> list[str]:
        """What `write` would change, as a unified diff."""
        return [line for folder in self._folders(models, macros, scaffold) for line in folder.diff()]

    def _folders(
        self, models: Mapping[str, str], macros: Mapping[str, str], scaffold: Mapping[str, str]
    ) -> list[_Folder]:
        own = self._is_own()
        settings = self._settings() if (self._root / "dbt_project.yml").exists() else {}
        macro_folder = f"{_first(settings, 'macro-paths', 'macros')}/headwater"
        self._check_place(settings, models)
        folders = [
            _Folder(self._root, macro_folder, "", macros),
            _Folder(self._root, self._folder, self._owner, models),
        ]
        if own:
            folders.insert(0, _Scaffold(self._root, "", self._owner, scaffold))
        return folders

    def _is_own(self) -> bool:
        """Whether this is a project that we made, or make now."""
        return not (self._root / "dbt_project.yml").exists() or (self._root / RECORD).exists()

    def _settings(self) -> Mapping[str, object]:
        path = self._root / "dbt_project.yml"
        try:
            found = yaml.safe_load(path.read_text("utf-8"))
        except (OSError, UnicodeDecodeError, yaml.YAMLError) as failed:
            raise ConfigError(f"{path} cannot be read: {type(failed).__name__}", hint="dbt debug") from None
        if not isinstance(found, dict):
            raise ConfigError(f"{path} is not a mapping of settings", hint="dbt debug")
        return found

    def _check_place(self, settings: Mapping[str, object], models: Mapping[str, str]) -> None:
        """Our folder must be where dbt looks, and our model names must be free."""
        found = settings.get("model-paths")
        paths = [str(p) for p in found] if isinstance(found, list) and found else None
        if paths is None:
            paths = ["models"] if settings else [PurePosixPath(self._folder).parts[0]]
        if not any(PurePosixPath(self._folder).is_relative_to(_clean(p)) for p in paths):
            raise ConfigError(
                f"dbt does not read {self._folder}: its model-paths are {', '.join(paths)}",
                hint=f"in headwater.yml: dbt: {{folder: {_clean(paths[0])}/headwater}}",
            )
        ours = {PurePosixPath(p).stem for p in models if p.endswith(".sql")}
        mine = self._root / self._folder
        for path in sorted(q for p in paths for q in (self._root / _clean(p)).rglob("*.sql")):
            if path.stem in ours and not path.is_relative_to(mine):
                raise ConfigError(
                    f"the project has a model {path.stem} of its own: {path.relative_to(self._root)}",
                    hint="rename that model: dbt has one name space for all models",
                )


@dataclass(frozen=True, slots=True)
class _Done:
    written: Sequence[str]
    unchanged: int
    removed: Sequence[str]


class _Folder:
    """One folder of ours: what it should hold, and what the record says we put there."""

    def __init__(self, root: Path, path: str, owner: str, wanted: Mapping[str, str]) -> None:
        self._root = root
        self._path = path
        self._owner = owner
        self._wanted = wanted
        self._record = self._load()

    def edited(self) -> list[str]:
        """Files that we would overwrite or remove though they are not as we left them."""
        names = sorted({*self._wanted, *self._record})
        return [self._named(name) for name in names if self._is_edited(name)]

    def diff(self) -> Iterator[str]:
        """A unified diff from what is there to what should be."""
        for name in sorted({*self._wanted, *self._record}):
            old, new = self._text(name), self._wanted.get(name)
            if old != new and (old is not None or new is not None):
                path = self._named(name)
                yield from difflib.unified_diff(
                    (old or "").splitlines(),
                    (new or "").splitlines(),
                    f"a/{path}" if old is not None else "/dev/null",
                    f"b/{path}" if new is not None else "/dev/null",
                    lineterm="",
                )

    def untouched(self, relations: Collection[str]) -> dict[str, str]:
        """Name -> text of the files below these folders that nobody edited."""
        names = [n for n in self._record if n.partition("/")[0] in relations and not self._is_edited(n)]
        return {name: text for name in names if (text := self._text(name)) is not None}

    def _text(self, name: str) -> str | None:
        try:
            return self._place(name).read_text("utf-8", errors="replace")
        except (FileNotFoundError, NotADirectoryError):
            return None

    def apply(self) -> _Done:
        """Write what differs, remove what is no longer wanted."""
        stale = [n for n in sorted(self._record) if n not in self._wanted and self._held(n) is not None]
        changed = [n for n, text in sorted(self._wanted.items()) if self._held(n) != _hash(text)]
        record = {n: [_hash(text)] for n, text in self._wanted.items()}
        if changed or stale or record != self._record:
            # Before and after are both ours while we write: after a stop in between nothing looks edited.
            both = {n: [*self._record.get(n, []), *record.get(n, [])] for n in {*self._record, *record}}
            self._save(both)
            for name in changed:
                _put(self._place(name), self._wanted[name])
            for name in stale:
                self._remove(name)
            self._save(record)
        return _Done(
            [self._named(n) for n in changed],
            len(self._wanted) - len(changed),
            [self._named(n) for n in stale],
        )

    def _is_edited(self, name: str) -> bool:
        held = self._held(name)
        wanted = self._wanted.get(name)
        if held is None or (wanted is not None and held == _hash(wanted)):
            return False
        return held not in self._record.get(name, [])

    def _held(self, name: str) -> str | None:
        try:
            return hashlib.sha256(self._place(name).read_bytes()).hexdigest()
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as failed:
            raise StorageError(f"{self._place(name)} cannot be read: {failed.strerror}") from None

    def _load(self) -> dict[str, list[str]]:
        path = self._place(RECORD)
        try:
            doc = json.loads(path.read_text("utf-8"))
            owner, found = doc["pipeline"], {str(n): [str(h) for h in hs] for n, hs in doc["files"].items()}
        except FileNotFoundError:
            return {}
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            raise ConfigError(f"{path} is not the record that headwater wrote", hint=f"rm {path}") from None
        if owner != self._owner:
            raise ConfigError(
                f"{self._root / self._path} belongs to the pipeline {owner}",
                hint=f"in headwater.yml: dbt: {{folder: {self._path}_2}}   (a folder for each pipeline)",
            )
        return {n: hashes for n, hashes in found.items() if _is_plain(n)}

    def _save(self, record: Mapping[str, Iterable[str]]) -> None:
        doc = {
            "about": "files written by `headwater dbt generate`, and the SHA-256 of each",
            "pipeline": self._owner,
            "files": {n: list(hashes) for n, hashes in sorted(record.items())},
        }
        _put(self._place(RECORD), json.dumps(doc, indent=1) + "\n")

    def _remove(self, name: str) -> None:
        path = self._place(name)
        path.unlink(missing_ok=True)
        folder = path.parent
        if folder != self._root / self._path and not any(folder.iterdir()):
            folder.rmdir()

    def _place(self, name: str) -> Path:
        return self._root / self._path / name

    def _named(self, name: str) -> str:
        return f"{self._path}/{name}" if self._path else name


class _Scaffold(_Folder):
    """Files of a project we made: a start, which becomes the user's own with the first edit."""

    def __init__(self, root: Path, path: str, owner: str, wanted: Mapping[str, str]) -> None:
        super().__init__(root, path, owner, wanted)
        mine = {n: t for n, t in wanted.items() if not self._is_edited(n)}
        self._wanted = mine
        self._record = {n: h for n, h in self._record.items() if n in mine}

    def edited(self) -> list[str]:
        return []


def _put(path: Path, text: str) -> None:
    """Replace a file whole: nobody sees half of it."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_text(text, "utf-8", newline="\n")
        temporary.replace(path)
    except OSError as failed:
        raise StorageError(f"{path} cannot be written: {failed.strerror}") from None


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8")).hexdigest()


def _inside(folder: str) -> str:
    """A folder below the project, `/`-separated."""
    path = PurePosixPath(folder)
    if path.is_absolute() or ".." in path.parts or not path.parts:
        raise ConfigError(
            f"{folder!r} is not a folder in the dbt project", hint="dbt: {folder: models/headwater}"
        )
    return str(path)


def _is_plain(name: str) -> bool:
    path = PurePosixPath(name)
    return not path.is_absolute() and ".." not in path.parts and bool(path.parts)


def _clean(path: str) -> str:
    return str(PurePosixPath(path))


def _first(settings: Mapping[str, object], name: str, default: str) -> str:
    found = settings.get(name)
    return _inside(str(found[0])) if isinstance(found, list) and found else default
