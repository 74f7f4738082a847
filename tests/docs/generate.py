"""Write the generated parts of the documentation: `python tests/docs/generate.py`. The tests compare them."""

from __future__ import annotations

import argparse
import ast
import json
import re
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from docs.bryteflow import bryteflow_tables
from docs.typepage import type_contract, type_settings
from headwater.casts import TARGETS, Cast
from headwater.cli.words import Parser, make_parser
from headwater.config.fields import FILE, Field
from headwater.config.schema import json_schema
from headwater.datepattern import LETTERS
from headwater.partition import CODES

DOCS = Path(__file__).parents[2] / "docs"

_KINDS = {
    "text": "text", "path": "path", "number": "number", "flag": "true or false", "secret": "secret",
    "moment": "date or null", "mapping": "mapping", "list": "list", "plain": "mapping",
}  # fmt: skip


def schema_text() -> str:
    """docs/headwater.schema.json."""
    return json.dumps(json_schema(), indent=2, ensure_ascii=False) + "\n"


def field_places(field: Field = FILE, place: str = "") -> Iterator[tuple[str, Field]]:
    """Every field with its place, as error texts write it."""
    for each in field.fields:
        path = f"{place}.{each.name}" if place else each.name
        yield path, each
        yield from field_places(each, path)
        if each.item is not None:
            yield from field_places(each.item, f"{path}[]")


def field_table() -> str:
    """The reference of all fields."""
    lines = ["| field | kind | default | meaning | example |", "|---|---|---|---|---|"]
    for path, field in field_places():
        kind = _KINDS[field.kind] + (" or text" if field.short else "")
        kind = ", ".join(f"`{c}`" for c in field.choices) or kind
        default = "**required**" if field.required else f"`{field.default}`" if field.default else ""
        cells = [f"`{path}`", kind, default, field.says, f"`{field.example}`"]
        lines.append("| " + " | ".join(c.replace("|", "\\|") for c in cells) + " |")
    return "\n".join(lines)


def commands(parser: argparse.ArgumentParser | None = None) -> Iterator[Parser]:
    """Every command's parser, in the order of the help."""
    for action in (parser or make_parser())._actions:
        if isinstance(action, argparse._SubParsersAction):
            for each in action.choices.values():
                yield each
                yield from commands(each)


def words(parser: argparse.ArgumentParser) -> list[argparse.Action]:
    """The words of one command, without the ones that all have."""
    common = {"help", "config", "json", "debug", "source", "store", "warehouse", "tables", "name"}
    return [
        a for a in parser._actions if a.dest not in common and not isinstance(a, argparse._SubParsersAction)
    ]


def command_reference() -> str:
    """The reference of all commands."""
    return "\n\n".join(_command(p) for p in commands() if words(p) or not list(commands(p)))


def _command(parser: Parser) -> str:
    lines = [f"### {parser.prog}", "", parser.description or "", "", "```"]
    examples = (parser.epilog or "").removeprefix("examples:\n")
    lines += [line.removeprefix("  ") for line in examples.splitlines()] + ["```"]
    found = words(parser)
    if found:
        lines += ["", "| word | meaning |", "|---|---|"]
    for action in found:
        shown = ", ".join(action.option_strings) or str(action.metavar)
        shown += f" {action.metavar}" if action.option_strings and action.metavar else ""
        lines.append(f"| `{shown}` | {action.help} |")
    return "\n".join(lines)


def partition_codes() -> str:
    """The codes of the partition language."""
    lines = ["| code | takes | gives | for example | is |", "|---|---|---|---|---|"]
    lines += [f"| `{c.spelling}` | {c.takes} | {c.says} | {c.value} | `{c.gives}` |" for c in CODES.values()]
    return "\n".join(lines)


def type_table() -> str:
    """What a column can become."""
    lines = ["| in words | in letters | Arrow type | meaning |", "|---|---|---|---|"]
    for target in TARGETS.values():
        word = "decimal(p,s)" if target.word == "decimal" else target.word
        letters = Cast(target.word, "format" * target.takes_format).letters()
        arrow = "decimal128(p, s)" if target.word == "decimal" else target.type
        cells = [f"`{word}`", f"`{letters}`" if letters else "", str(arrow), target.says]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def pattern_letters() -> str:
    """The letters of date formats."""
    lines = ["| letters | mean | for example |", "|---|---|---|"]
    lines += [f"| `{row.spelling}` | {row.says} | `{row.example}` |" for row in LETTERS.values()]
    return "\n".join(lines)


@cache
def known() -> frozenset[str]:
    """Every field, command (with its words) and event there is."""
    found = {path for path, _ in field_places()} | event_kinds()
    for parser in commands():
        found |= {parser.prog, *(f"{parser.prog} {o}" for a in words(parser) for o in a.option_strings)}
        found |= {f"{parser.prog} {a.metavar}" for a in words(parser) if not a.option_strings}
    return frozenset(found)


#: Functions that are given an event's kind.
TELLERS = ("Event", "_tell", "tell", "_watch", "_hold_off")


def event_kinds() -> set[str]:
    """Every text in the toolkit that is passed on as an event's kind."""
    kinds = set()
    for path in (DOCS.parent / "toolkit" / "headwater").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.Constant):
                name = getattr(node.func, "id", getattr(node.func, "attr", ""))
                kind = str(node.args[0].value)
                if name in TELLERS and re.fullmatch(r"[a-z]+\.[a-z]+", kind):
                    kinds.add(kind)
    return kinds


def filled(page: str, name: str, text: str) -> str:
    """The page with the text between the marks of a generated part."""
    begin, end = f"<!-- generated: {name} -->", f"<!-- end: {name} -->"
    assert page.count(begin) == page.count(end) == 1, f"the page has no place for {name}"
    return re.sub(f"{begin}.*?{end}", lambda _: f"{begin}\n\n{text}\n\n{end}", page, flags=re.DOTALL)


def pages() -> dict[Path, str]:
    """Every page with generated parts, as it should be."""
    configuration, cli = DOCS / "configuration.md", DOCS / "cli.md"
    partitions, changes = DOCS / "partitions.md", DOCS / "type-changes.md"
    options = DOCS / "from-bryteflow.md"
    contract = filled((DOCS / "types.md").read_text(), "contract", type_contract())
    types = filled(changes.read_text(), "types", type_table())
    return {
        DOCS / "headwater.schema.json": schema_text(),
        DOCS / "from-bryteflow.md": filled(options.read_text(), "options", bryteflow_tables(known())),
        DOCS / "types.md": filled(contract, "settings", type_settings()),
        configuration: filled(configuration.read_text(), "fields", field_table()),
        cli: filled(cli.read_text(), "commands", command_reference()),
        partitions: filled(partitions.read_text(), "partition codes", partition_codes()),
        changes: filled(types, "pattern letters", pattern_letters()),
    }


if __name__ == "__main__":
    for _path, _text in pages().items():
        _path.write_text(_text)
