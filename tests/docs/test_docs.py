"""The documentation says what the code does: every field, command and event, and the schema."""

from __future__ import annotations

import json
import re
from pathlib import Path

import jsonschema
import pytest
import yaml

from docs import bryteflow, generate
from headwater.config import parse
from headwater.config.template import template

ROOT = Path(__file__).parents[2]


def page(name: str) -> str:
    return (ROOT / "docs" / name).read_text()


@pytest.mark.parametrize("path", generate.pages(), ids=lambda p: p.name)
def test_generated_parts_are_in_step(path: Path) -> None:
    assert path.exists() and path.read_text() == generate.pages()[path], "run: python tests/docs/generate.py"


def test_every_field_is_documented_once_with_an_example_that_works() -> None:
    table = page("configuration.md")
    for path, field in generate.field_places():
        assert table.count(f"\n| `{path}` |") == 1, path
        assert field.says and field.example, path


@pytest.mark.parametrize(
    ("path", "field"), list(generate.field_places()), ids=lambda x: x if isinstance(x, str) else ""
)
def test_every_example_is_accepted(path: str, field: generate.Field) -> None:
    """The examples are what error texts tell people to type."""
    doc = yaml.safe_load(WITH_EVERYTHING)
    *above, name = path.replace("[]", "").split(".")
    at = doc
    for step in above:
        at = at[step][-1] if isinstance(at[step], list) else at[step]
    value = field.example if field.kind in ("text", "path", "secret") else yaml.safe_load(field.example)
    if path == "source.url":
        doc["source"] = {"kind": "postgres"}
        at = doc["source"]
    if path == "store":
        doc["lake"].pop("glue")  # is for buckets
    at[name] = value
    parse(yaml.safe_dump(doc))
    jsonschema.validate(json.loads(json.dumps(doc, default=str)), generate.json_schema())


WITH_EVERYTHING = """
pipeline: a
source: {kind: postgres, host: h, user: u, dbname: d}
store: {url: "s3://bucket", sse: aws:kms}
tables:
  - public.*
  - name: public.a
    history: {current: now}
    lake: {slices: 2}
    quality: {gate: warn}
    expect: [{type: expect_table_row_count_to_equal, kwargs: {value: 1}}]
    references: [{columns: [a], table: public.b}]
quality: {gate: block}
history: {current: now}
lake: {compact: auto, format: iceberg, glue: {database: shop}}
names: {case: lower}
warehouse: {path: w.duckdb}
dbt: {project: d}
mask_key: env:K
verify: {sign: env:K}
"""


@pytest.mark.parametrize(
    "name",
    [
        "configuration.md",
        "masks.md",
        "names.md",
        "quality.md",
        "quarantine.md",
        "tables.md",
        "type-changes.md",
    ],
)
def test_the_page_shows_a_file_that_is_accepted(name: str) -> None:
    shown = re.findall(r"```yaml\n(.*?)```", page(name), re.DOTALL)
    assert shown
    for text in [*shown, template()]:
        parse(text)
        jsonschema.validate(yaml.safe_load(text), generate.json_schema())


@pytest.mark.parametrize(
    "wrong",
    [
        "pipelin: a", "pipeline: A b", "source: x", "source: {kind: mysql}", "store: {}", "tables: []",
        "tables: a.b",
        "tables: [{mode: mirror}]", "mode: scd2", "source: {kind: postgres, password: hunter2}",
        "tables: [{name: a.b, masks: {}}]", "tables: [{name: a.b, masks: {c: sha}}]", "mask_key: k",
        "tables: [{name: a.b, cast: {c: {format: x}}}]", "tables: [{name: a.b, on_cast_error: skip}]",
        "tables: [{name: a.b, masks: {c: {keep: 1}}}]", "tables: [{name: a.b, columns: []}]",
        "warehouse: {schema: A-b}", "dbt: {folder: ../x}", "memory_limit: 5", "store: {url: a, timeout: 0}",
    ],
)  # fmt: skip
def test_the_schema_refuses_what_the_reader_refuses(wrong: str) -> None:
    doc = yaml.safe_load(WITH_EVERYTHING) | yaml.safe_load(wrong)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(doc, generate.json_schema())


def test_every_command_has_an_example_and_every_word_a_meaning() -> None:
    reference = page("cli.md")
    for parser in generate.commands():
        assert "examples:\n  headwater" in str(parser.epilog), parser.prog
        for action in parser._actions:
            assert action.help or action.choices, f"{parser.prog} {action.dest}"
        for action in generate.words(parser):
            shown = (action.option_strings or [str(action.metavar)])[0]
            assert f"| `{shown}" in reference, f"{parser.prog} {shown}"
        if not list(generate.commands(parser)):
            assert f"### {parser.prog}\n" in reference


def test_the_words_of_a_one_liner_are_documented() -> None:
    reference = page("cli.md")
    for word in ("--source", "--store", "--warehouse", "--tables", "--name"):
        assert f"| `{word} " in reference


def test_every_event_is_documented_and_every_documented_event_exists() -> None:
    documented = set(re.findall(r"^\| `([a-z]+\.[a-z]+)` \|", page("cli.md"), re.MULTILINE))
    assert generate.event_kinds() == documented
    assert len(documented) > 5


#: What pages may speak of before it is there.
PENDING = {
    "headwater quarantine list", "headwater resync", "headwater schema log", "lake.compression",
    "lake.csv_compression", "lake.format", "lake.glue", "lake.slices", "tables[].cast", "tables[].deltas",
    "tables[].initial_load", "tables[].initial_where", "tables[].key", "tables[].on_cast_error",
    "tables[].partition", "tables[].views", "tables[].where",
}  # fmt: skip

OPTIONS = [option for group in bryteflow.groups().values() for option in group]


def test_the_page_for_users_of_bryteflow_names_nothing_that_does_not_exist() -> None:
    assert {need for option in OPTIONS for need in option.needs} - generate.known() <= PENDING
    text = page("from-bryteflow.md")
    for option in OPTIONS:
        assert f"| {option.called} | {option.says(generate.known())} |" in text
        told = " ".join(re.findall(r"`([^`]*)`", option.here))
        for need in option.needs:
            assert re.split(r"[. ]|\[\]\.", need)[-1] in told, f"{option.called}: {need}"


def test_the_page_for_users_of_bryteflow_shows_settings_that_are_accepted() -> None:
    top = {field.name for field in generate.FILE.fields}
    for option in OPTIONS:
        for span in option.settings() if set(option.needs) <= generate.known() else ():
            doc = yaml.safe_load(WITH_EVERYTHING)
            ((name, value),) = yaml.safe_load(span).items()
            at = doc if name in top else doc["tables"][-1]
            at[name] = {**at[name], **value} if isinstance(at.get(name), dict) else value
            parse(yaml.safe_dump(doc))


def test_every_link_between_pages_leads_somewhere() -> None:
    for path in [*(ROOT / "docs").rglob("*.md"), ROOT / "README.md"]:
        for target in re.findall(r"\]\(([^)#:]+\.md)(?:#[^)]*)?\)", path.read_text()):
            assert (path.parent / target).exists(), f"{path.name}: {target}"
