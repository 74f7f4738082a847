"""From a checked `Config` to open parts: the only room that knows every kind and resolves secrets."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from functools import cache, partial
from importlib.metadata import entry_points
from pathlib import Path
from typing import TYPE_CHECKING

from headwater.config import Config
from headwater.errors import ConfigError
from headwater.secrets import Secret, resolve

if TYPE_CHECKING:
    from headwater.deliver import Parts
    from headwater.formats import Catalog
    from headwater.sources import Source
    from headwater.state import StateStore
    from headwater.storage import Storage

#: Store options that are secrets by reference; all others are plain words.
_SECRET_OPTIONS = ("access_key_id", "secret_access_key", "session_token")


def open_parts(config: Config) -> Parts:
    """Open everything a run needs. The source connects when it is first asked."""
    from headwater.deliver import Parts
    from headwater.lake.delta import Lake
    from headwater.raw import RawLog

    storage, make = open_storage(config), find_source(config)
    return Parts(
        config=config,
        source=_chosen(config, make()),
        look=make(),
        storage=storage,
        log=RawLog(storage),
        lake=Lake(storage, config.memory_limit),
        state=open_state(config),
        catalog=open_catalog(config),
    )


def _chosen(config: Config, source: Source) -> Source:
    """The source behind the filters and the masks of the pipeline; no row is read past them."""
    from headwater.filters import Filtered
    from headwater.masking import Masked, MaskKey

    key = MaskKey(resolve(config.mask_key)) if config.mask_key else None
    # Filters see the values as they are, so the masks come behind them.
    return Masked(Filtered(source, config), config, key)


def find_source(config: Config) -> Callable[[], Source]:
    """How to make the source a pipeline names, by the entry-point group ``headwater.sources``."""
    given = dict(config.source)
    kind = str(given.pop("kind"))
    known = {e.name: e for e in entry_points(group="headwater.sources")}
    if kind not in known:
        raise ConfigError(f"no source kind {kind!r}", hint=f"one of: {', '.join(sorted(known))}")
    try:
        make = known[kind].load()
    except ImportError as missing:
        hint = f"pip install 'headwater[{kind}]'"
        raise ConfigError(
            f"the source {kind!r} needs {missing.name}, which is not installed", hint=hint
        ) from None
    if "password" in given:
        given["password"] = resolve(_secret(given["password"])).reveal()
    given.setdefault("slot", f"headwater_{config.name}"[:50] + "_" + _fingerprint(config))
    given.setdefault("publication", f"headwater_{config.name}")
    if any(spec.key for spec in config.overrides.values()):
        given["keys"] = cache(lambda table: config.spec(table).key)
    return partial(make, **given)


def open_storage(config: Config) -> Storage:
    """The folder or bucket of a pipeline."""
    return _storage(config, config.store)


def open_folder(config: Config, url: str) -> Storage:
    """A folder, or a prefix of a bucket that the credentials of the pipeline's store open."""
    return _storage(config, url)


def _storage(config: Config, url: str) -> Storage:
    from headwater.storage import Storage

    if not url.startswith("s3://"):
        return Storage.open(url, cache=Path())
    options = {
        name: resolve(value).reveal() if name in _SECRET_OPTIONS else value
        for name, value in config.store_options.items()
    }
    if options.get("endpoint", "").startswith("http://"):
        options["allow_http"] = "true"
    caches = Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")).expanduser()
    return Storage.open(url, options, cache=caches / "headwater" / _fingerprint(config))


def open_catalog(config: Config) -> Catalog | None:
    """Where published views are registered; the credentials are the store's."""
    if config.glue is None:
        return None
    try:
        from headwater.formats.aws import Glue

        names = {f"aws_{name}": name for name in _SECRET_OPTIONS if name in config.store_options}
        session = {word: resolve(config.store_options[name]).reveal() for word, name in names.items()}
        region = config.glue.region or config.store_options.get("region", "")
        return Glue(config.glue.database, session=session, endpoint=config.glue.endpoint, region=region)
    except ImportError:
        raise ConfigError(
            "lake.glue needs boto3, which is not installed", hint="pip install 'headwater[aws]'"
        ) from None


def open_state(config: Config) -> StateStore:
    """The run records and leases of a pipeline."""
    from headwater.state import default_path
    from headwater.state.sqlite import SqliteState

    return SqliteState(config.state or default_path(config))


def _fingerprint(config: Config) -> str:
    """Tells two pipelines of one name apart by the place they write to."""
    return hashlib.sha256(f"{config.name}\0{config.store}".encode()).hexdigest()[:8]


def _secret(value: object) -> str | Secret:
    return value if isinstance(value, Secret) else str(value)
