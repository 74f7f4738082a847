"""Where dbt put the models when it last ran here, by its manifest, and where the next build puts them."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from headwater.config import WarehouseConfig
from headwater.handoff.project import RECORD

#: Schema and name of a relation in the warehouse.
Place = tuple[str, str]

_ASKED = re.compile(r"\{\{ config\(materialized='view', alias='([^']*)'\) \}\}")


@dataclass(frozen=True, slots=True)
class BuiltModel:
    """One model: its place, the name that it asked for itself ("": none), and whether a setting of the user's
    project gave it a schema.
    """

    place: Place
    asked: str = ""
    apart: bool = False


@dataclass(frozen=True, slots=True)
class Built:
    """What the last manifest says; nothing before dbt ran.

    staging   the schema of our sources; "" when unknown
    follows   the profile is the one we write, so `warehouse.schema` counts
    """

    models: Mapping[str, BuiltModel] = field(default_factory=dict)
    staging: str = ""
    follows: bool = True

    def places(self) -> Mapping[str, Place]:
        """Where each model is."""
        return {name: model.place for name, model in self.models.items()}

    def schema(self, model: str, warehouse: WarehouseConfig) -> str:
        """The schema that the next build puts a model into."""
        known = self.models.get(model)
        return warehouse.schema if known is None or (self.follows and not known.apart) else known.place[0]


def read_built(project: Path, target: Path, source: str) -> Built:
    """Read the manifest of a project; `source` is the name of our sources there."""
    try:
        doc = json.loads((target / "manifest.json").read_text("utf-8"))
        models = {
            str(n["name"]): BuiltModel(
                (str(n["schema"]), str(n["alias"])),
                asked(str(n["raw_code"])),
                bool(n["config"].get("schema")),
            )
            for n in doc["nodes"].values()
            if n["resource_type"] == "model"
        }
        staging = [str(s["schema"]) for s in doc["sources"].values() if s["source_name"] == source]
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return Built(follows=_follows(project))
    return Built(models, staging[0] if staging else "", _follows(project))


def asked(code: str) -> str:
    """The name that a generated model asks for; "" when it leaves that to dbt."""
    found = _ASKED.match(code)
    return found[1] if found else ""


def _follows(project: Path) -> bool:
    """Whether the project has no profile yet but the one we wrote, unedited."""
    if not (project / "dbt_project.yml").exists():
        return True
    try:
        return "profiles.yml" in json.loads((project / RECORD).read_text("utf-8"))["files"]
    except (OSError, ValueError, KeyError, TypeError):
        return False
