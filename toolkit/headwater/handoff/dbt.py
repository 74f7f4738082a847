"""The generated dbt models: each captured table as a source, its state, its current rows and its history.

Two rules keep a hostile name from running anything: files and models are called `naming.relation_name`, which
is plain, and every other text stands in a file only as an escaped literal (`literals`).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from functools import cache
from importlib.resources import files
from pathlib import Path
from string import Template

from headwater.config import Config, WarehouseConfig
from headwater.errors import ConfigError
from headwater.handoff.literals import jinja, jinja_dict, jinja_list
from headwater.handoff.project import Generated, Project
from headwater.handoff.properties import properties
from headwater.handoff.tables import TableModel, open_end, table_model, table_models
from headwater.handoff.warehouses import Warehouse, warehouse_of
from headwater.naming import relation_name

__all__ = ["Generated", "TableModel", "diff", "generate", "macros", "render", "table_model", "table_models"]

_PACKAGE = "headwater"


def generate(
    project: Path,
    tables: Sequence[TableModel],
    config: Config,
    *,
    kept: Collection[str] = (),
    force: bool = False,
) -> Generated:
    """Write the models of all tables into a dbt project, and make one there if there is none.

    kept  relations of other tables, whose files stay as they are
    Touches only the folder of ours and the macros; files of removed tables go. Raises ConfigError, before
    anything is written, when a file of ours was edited; with `force` it is written again.
    """
    place = Project(project, config.dbt.folder, owner=config.name)
    models = {**place.written(kept), **render(tables, config)}
    return place.write(models, macros(), scaffold(config, project), force=force)


def diff(project: Path, tables: Sequence[TableModel], config: Config) -> list[str]:
    """What `generate` would change, as a unified diff; nothing is written."""
    place = Project(project, config.dbt.folder, owner=config.name)
    return place.diff(render(tables, config), macros(), scaffold(config, project))


def render(tables: Sequence[TableModel], config: Config) -> Mapping[str, str]:
    """Path below the folder of ours -> text, for all tables. Pure: same input, same bytes."""
    warehouse = _warehouse(config)
    facts = warehouse_of(warehouse)
    source = relation_name(config.name)
    found: dict[str, str] = {}
    for table in sorted(tables, key=lambda t: t.relation):
        folder = table.relation
        if f"{folder}/_{folder}.yml" in found:
            raise ConfigError(f"two tables would both be called {folder} in dbt", hint="capture one of them")
        found[f"{folder}/_{folder}.yml"] = properties(table, source, warehouse.staging_schema, facts)
        for model, text in _models(table, source, facts).items():
            found[f"{folder}/{model}.sql"] = text
    return found


@cache
def macros() -> Mapping[str, str]:
    """File name -> text of the macros that the models call."""
    folder = _macro_folder()
    return {p.name: p.read_text("utf-8") for p in sorted(folder.glob("*.sql"))}


def scaffold(config: Config, project: Path) -> Mapping[str, str]:
    """File name -> text of a minimal dbt project of its own; for a folder that has no dbt_project.yml."""
    from headwater.handoff.profile import project_files

    return project_files(config, _warehouse(config), project)


def _models(table: TableModel, source: str, facts: Warehouse) -> Mapping[str, str]:
    """Model name -> SQL file."""
    key, names, end = table.schema.key, table.history, open_end(table.history)
    values = {
        "source": source,
        "relation": table.relation,
        "current_as": _alias(table.current_as),
        "past_as": _alias(table.past_as),
        "key": jinja_list(key),
        "version_key": jinja_list((*key, "_hw_seq")),
        "columns": jinja_dict({c.name: facts.column_type(c.type) for c in table.schema.columns}),
        "valid_from": jinja(names.valid_from),
        "valid_to": jinja(names.valid_to),
        "current": jinja(names.current),
        "open_end": f'"cast({_moment(end)} as {facts.moment})"' if end else "'null'",
    }
    # Rows of before and after a column went are told apart by what both have.
    retired = [c.name for c in table.schema.columns if c.retired]
    values["but"] = f", but={jinja_list(retired)}" if retired else ""
    kind = "" if key else "_log"
    found = {
        table.base: _template(f"base{kind}").substitute(values),
        table.current: _template(f"stg{kind}").substitute(values),
    }
    if table.versioned:
        found[table.versions] = _template("base_history").substitute(values)
        found[table.past] = _template("stg_history").substitute(values)
    return found


def _alias(name: str) -> str:
    return f", alias={jinja(name)}" if name else ""


def _moment(end: object) -> str:
    return f"'{end}'"


@cache
def _template(name: str) -> Template:
    return Template(files("headwater.handoff").joinpath("templates", f"{name}.sql").read_text("utf-8"))


def _macro_folder() -> Path:
    """Where the macros are: beside this file in an installed package, in dbt_project/ in the repository."""
    here = Path(__file__).resolve()
    for folder in (here.parent / "dbt_project", here.parents[3] / "dbt_project"):
        if (folder / "macros" / _PACKAGE).is_dir():
            return folder / "macros" / _PACKAGE
    raise ConfigError("the dbt macros are missing", hint="pip install --force-reinstall 'headwater[dbt]'")


def _warehouse(config: Config) -> WarehouseConfig:
    if config.warehouse is None:
        raise ConfigError(
            f"pipeline {config.name} has no warehouse",
            hint="in headwater.yml: warehouse: duckdb:///wh.duckdb",
        )
    return config.warehouse
