"""A dbt project for who has none: dbt_project.yml, and a profile that opens the configured warehouse."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from headwater.config import Config, WarehouseConfig
from headwater.handoff.literals import jinja, rendered
from headwater.handoff.yamltext import Node, dump
from headwater.naming import relation_name

_HEAD = "# Written by `headwater dbt generate` for a start. It is yours with the first edit.\n"


def project_files(config: Config, warehouse: WarehouseConfig, project: Path) -> Mapping[str, str]:
    """File name -> text."""
    # dbt wants a name that starts with a letter and is not one of its own packages.
    name = f"headwater_{relation_name(config.name)}"
    top = Path(config.dbt.folder).parts[0]
    manifest: dict[str, Node] = {
        "name": name,
        "version": "1.0",
        "config-version": 2,
        "profile": name,
        **({"model-paths": [top]} if top != "models" else {}),
        "clean-targets": ["target"],
        "flags": {"send_anonymous_usage_stats": False},
    }
    profile: Node = {"target": "dev", "outputs": {"dev": _duckdb(config, warehouse, project)}}
    return {
        "dbt_project.yml": _HEAD + dump(manifest),
        "profiles.yml": _HEAD + dump({name: profile}),
        ".gitignore": "target/\nlogs/\n.headwater/\n.user.yml\n",
    }


def _duckdb(config: Config, warehouse: WarehouseConfig, project: Path) -> Node:
    # dbt works inside the project, so a relative path lets pipeline and project move together.
    path = os.path.relpath(os.path.realpath(warehouse.path), os.path.realpath(project))
    settings: dict[str, Node] = {"memory_limit": config.memory_limit, "TimeZone": "UTC"}
    return {
        "type": "duckdb",
        "path": rendered(path) if path.isprintable() else "{{ " + jinja(path) + " }}",
        "schema": warehouse.schema,
        "threads": 1,
        "settings": settings,
    }
