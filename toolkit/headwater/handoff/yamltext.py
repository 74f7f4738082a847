"""YAML text in the style of dbt projects, byte for byte the same for the same values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import yaml

#: A value of a YAML document.
Node = str | int | bool | None | Sequence["Node"] | Mapping[str, "Node"]


class _Dumper(yaml.SafeDumper):
    """Block style as dbt projects write it: lists indented, SQL as literal blocks."""

    def ignore_aliases(self, data: object) -> bool:
        return True

    def increase_indent(self, flow: bool = False, indentless: bool = False) -> None:
        super().increase_indent(flow, False)


def _text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    style = "|" if "\n" in text else None
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


_Dumper.add_representer(str, _text)


def dump(node: Node) -> str:
    """YAML of plain values, in their order; the same values give the same bytes."""
    return yaml.dump(
        node, Dumper=_Dumper, sort_keys=False, allow_unicode=True, default_flow_style=False, width=1000
    )
