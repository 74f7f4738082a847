"""headwater.yml under edit: what is not changed stays as it is, and what comes out says what was wanted."""

from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from headwater.config.draft import Draft, table_fields
from headwater.config.edit import PipelineFile, known_values, read_value, write_value
from headwater.config.fields import FILE
from headwater.config.patterns import is_chosen, toggle_column
from headwater.config.rewrite import rewrite, same
from headwater.errors import ConfigError, Conflict
from headwater.model import TableId

TEXT = """\
# our pipeline
pipeline: shop   # the name

source:
  kind: postgres
  host: db   # where
  # the user below may only read
  user: headwater
  dbname: "shop"
store: {url: "s3://b/p", region: eu-1}
tables:
  - nyc.*      # everything
  - "!nyc.audit_*"
  # sessions are huge
  - name: public.sessions   # keep small
    mode: mirror            # current rows only
    masks: {email: hash}
  - name: public.users
    masks:
      email: hash  # a secret
      phone: {redact: 4}
    columns:
      - "*"
      # not these
      - "!internal"
  - {name: a.b, mode: mirror}
mask_key: env:K
warehouse: duckdb:///w.duckdb  # the end
"""

VALUES = st.sampled_from(
    [1, True, None, "x", "a: b", "# x", "yes", "1", "ü 🐟", "\u2028", '"', "'", "a, b]", "!z", "*", "null",
     ["a", "b: c"], {"q": "!z"}, {"k": {"redact": 4}}]
)  # fmt: skip


@st.composite
def changed(draw: st.DrawFn, value: Any) -> Any:
    """A document near another one: values replaced, keys and entries gone and come."""
    if isinstance(value, dict):
        kept = {k: v for k, v in value.items() if k == "name" or draw(st.integers(0, 9))} or dict(value)
        made = {k: v if k == "name" or draw(st.booleans()) else draw(changed(v)) for k, v in kept.items()}
        return made | draw(st.dictionaries(st.sampled_from(["new", "é: x", "# k"]), VALUES, max_size=1))
    if isinstance(value, list):
        kept = [draw(changed(v)) if isinstance(v, dict) else v for v in value if draw(st.integers(0, 6))]
        more = draw(st.lists(st.integers(0, 999), unique=True, max_size=3))
        new = [f"n.t{n}" if n % 2 else {"name": f"n.t{n}", "masks": {"x": {"redact": 4}}} for n in more]
        return [*kept, *new] or ["z.z"]
    return draw(st.one_of(st.just(value), VALUES))


@settings(max_examples=50)
@given(st.data(), st.sampled_from(["\n", "\r\n"]), st.booleans())
def test_any_change_comes_out_as_wanted(data: st.DataObject, newline: str, ends: bool) -> None:
    text = TEXT.replace("\n", newline)
    text = text if ends else text.rstrip()
    for _ in range(3):
        wanted = data.draw(changed(yaml.safe_load(text)))
        text = rewrite(text, wanted)
        assert same(yaml.safe_load(text), wanted)


def test_nothing_to_change_changes_nothing() -> None:
    assert rewrite(TEXT, yaml.safe_load(TEXT)) == TEXT


@pytest.mark.parametrize(
    "text", ["pipeline: &a x\nname: *a\n", "? a\n: b\n", "{a: b}\n", "a: !!str 1\nb: 1\n"]
)
def test_shapes_that_are_not_edited_are_refused_or_right(text: str) -> None:
    wanted = {k: "other" for k in yaml.safe_load(text)}
    try:
        assert same(yaml.safe_load(rewrite(text, wanted)), wanted)
    except ConfigError as refused:
        assert "by hand" in refused.hint


TABLES = [TableId("nyc", n) for n in ("flights", "planes", "audit_a", "Orders", 'or"d')]
TABLES += [TableId("public", n) for n in ("sessions", "users", "b.c")] + [TableId("a", "b")]


def draft(tmp_path: Path, text: str = TEXT) -> Draft:
    path = tmp_path / "headwater.yml"
    path.write_text(text)
    return Draft(PipelineFile(path), TABLES)


def lines(made: Draft) -> tuple[list[str], list[str]]:
    """The lines a proposal takes away and adds."""
    body = made.propose().diff.splitlines()[2:]
    return [x[1:].strip() for x in body if x[0] == "-"], [x[1:].strip() for x in body if x[0] == "+"]


def test_one_table_of_a_pattern_is_left_out_by_name(tmp_path: Path) -> None:
    made = draft(tmp_path)
    made.choose([TABLES[1]], False)
    assert lines(made) == ([], ["- '!nyc.planes'"])
    made.choose([TABLES[1]], True)
    assert made.propose().diff == "" and not made.changed


def test_a_whole_schema_goes_and_comes(tmp_path: Path) -> None:
    made = draft(tmp_path)
    made.choose(TABLES[:5], False)
    assert lines(made) == (["- nyc.*      # everything"], [])
    made = draft(tmp_path, TEXT.replace("  - nyc.*      # everything\n", ""))
    made.choose(TABLES[:5], True)
    assert lines(made) == (['- "!nyc.audit_*"'], ["- nyc.*"])


def test_few_of_a_schema_are_named(tmp_path: Path) -> None:
    made = draft(tmp_path)
    made.choose(TABLES[:5], False)
    made.choose([TABLES[4]], True)
    assert lines(made) == (["- nyc.*      # everything"], ['- nyc."or""d"'])


def test_everything_is_the_default(tmp_path: Path) -> None:
    made = draft(tmp_path, TEXT[: TEXT.index("tables:")])
    assert made.chosen == set(TABLES)
    made.choose([TABLES[0]], False)
    assert lines(made) == ([], ["tables:", "- '*.*'", "- '!nyc.flights'"])


def test_an_exclusion_by_wildcard_is_named_not_broken(tmp_path: Path) -> None:
    made = draft(tmp_path)
    made.choose([TABLES[2]], True)
    with pytest.raises(ConfigError, match=r"left out by '!nyc.audit_\*'"):
        made.propose()


def test_no_table_at_all_is_refused(tmp_path: Path) -> None:
    made = draft(tmp_path)
    made.choose(TABLES, False)
    with pytest.raises(ConfigError, match="no table"):
        made.propose()


def test_settings_go_into_the_tables_own_entry_with_its_comments(tmp_path: Path) -> None:
    made = draft(tmp_path)
    made.change(TABLES[5], "masks", {"email": "hash", "ip": {"truncate": 3}})
    assert lines(made) == (["masks: {email: hash}"], ["masks: {email: hash, ip: {truncate: 3}}"])
    made.change(TABLES[5], "masks", {"email": "hash"})
    assert not made.changed


def test_a_new_entry_keeps_what_patterns_gave_before(tmp_path: Path) -> None:
    text = TEXT.replace("- nyc.*      # everything", "- {name: nyc.*, mode: mirror, masks: {tail: hash}}")
    made = draft(tmp_path, text)
    made.change(TABLES[0], "columns", ["*", "!x"])
    proposal = made.propose()
    spec = proposal.config.spec(TABLES[0])
    assert (spec.mode, spec.columns, dict(spec.masks)["tail"].kind) == ("mirror", ("*", "!x"), "hash")
    assert made.inherited(TABLES[0]) == {"tail": "hash"}


def test_a_later_pattern_does_not_win_over_what_was_just_chosen(tmp_path: Path) -> None:
    text = TEXT.replace("  - {name: a.b, mode: mirror}", "  - {name: public.*, mode: mirror}")
    made = draft(tmp_path, text)
    made.change(TABLES[6], "mode", "history")
    spec = made.propose().config.spec(TABLES[6])
    assert spec.mode == "history" and set(spec.masks) == {"email", "phone"} and spec.columns


@given(
    st.lists(st.tuples(st.sampled_from(TABLES), st.booleans()), max_size=8),
    st.lists(st.tuples(st.sampled_from(TABLES), st.sampled_from(["history", "mirror"])), max_size=4),
)
def test_any_choice_is_what_the_file_then_means(choices: list[Any], modes: list[Any]) -> None:
    from tempfile import TemporaryDirectory

    from headwater.config import select

    with TemporaryDirectory() as folder:
        made = draft(Path(folder))
        for table, on in choices:
            made.choose([table], on)
        for table, mode in modes:
            made.change(table, "mode", mode)
        try:
            proposal = made.propose()
        except ConfigError:
            return
        assert set(select(proposal.config.tables, TABLES)) == made.chosen
        for table, mode in dict(modes).items():
            assert table not in made.chosen or proposal.config.spec(table).mode == mode
        made.save(proposal)
        assert not made.changed and made.propose().diff == ""


def test_a_mask_that_needs_a_key_brings_its_reference(tmp_path: Path) -> None:
    made = draft(tmp_path, TEXT.replace("mask_key: env:K\n", "").replace("hash", "drop"))
    made.change(TABLES[0], "masks", {"tail": "tokenize", "x": "null"})
    assert "mask_key: env:HEADWATER_MASK_KEY" in lines(made)[1]
    assert made.propose().config.spec(TABLES[0]).masks["x"].kind == "null"


def test_a_file_that_somebody_else_changed_is_not_overwritten(tmp_path: Path) -> None:
    made = draft(tmp_path)
    made.choose([TABLES[1]], False)
    path = tmp_path / "headwater.yml"
    path.write_text(TEXT + "# by somebody else\n")
    with pytest.raises(Conflict, match="somebody else"):
        made.save(made.propose())
    assert path.read_text().endswith("# by somebody else\n")
    assert [p.name for p in tmp_path.iterdir()] == ["headwater.yml"]


def test_links_rights_and_the_byte_order_mark_stay(tmp_path: Path) -> None:
    real = tmp_path / "real.yml"
    real.write_bytes(b"\xef\xbb\xbf" + TEXT.encode())
    real.chmod(0o640)
    link = tmp_path / "headwater.yml"
    link.symlink_to(real)
    made = Draft(PipelineFile(link), TABLES)
    made.choose([TABLES[1]], False)
    made.save(made.propose())
    assert link.is_symlink() and real.stat().st_mode & 0o777 == 0o640
    assert real.read_bytes().startswith(b"\xef\xbb\xbf# our") and b"!nyc.planes" in real.read_bytes()


def test_a_file_that_is_not_there_begins_as_init_writes_it(tmp_path: Path) -> None:
    path = tmp_path / "headwater.yml"
    with pytest.raises(ConfigError, match="there is no"):
        PipelineFile(path)
    file = PipelineFile(path, make=True)
    file.save(file.propose({**file.doc, "pipeline": "mine"}))
    assert "pipeline: mine" in path.read_text() and "# " in path.read_text()


@pytest.mark.parametrize("typed", ["hunter2", "env:hunter 2", "env:", "sk-live-123"])
def test_a_secret_is_refused_and_not_repeated(typed: str) -> None:
    source = next(f for f in FILE.fields if f.name == "source")
    password = next(f for f in source.fields if f.name == "password")
    with pytest.raises(ConfigError) as refused:
        read_value(password, typed)
    assert "hunter" not in str(refused.value) + refused.value.hint
    assert known_values({"source": {"password": typed, "host": "h"}}, FILE) == {"source": {"host": "h"}}


def test_a_password_in_a_url_is_refused_and_not_shown() -> None:
    source = next(f for f in FILE.fields if f.name == "source")
    url = "postgresql://u:hunter2@h/d"
    with pytest.raises(ConfigError) as refused:
        read_value(next(f for f in source.fields if f.name == "url"), url)
    assert "hunter" not in str(refused.value) + refused.value.hint
    assert known_values({"source": {"url": url}, "unknown": 1}, FILE) == {"source": {}}


def test_what_is_shown_is_read_back() -> None:
    fields = {f.name: f for f in table_fields()}
    columns = ["*", "!in, ternal", 'a"b']
    assert read_value(fields["columns"], write_value(fields["columns"], columns)) == columns
    assert read_value(fields["mode"], " mirror ") == "mirror"


NAMES = ["id", "email", "in*side", "!x", 'q"q', "e mail"]


@given(st.lists(st.tuples(st.sampled_from(NAMES), st.booleans()), max_size=10),
       st.sampled_from([[], ["id", "email"], ["*", "!e*"], ["e*"], ['"in*side"', "!email"]]))  # fmt: skip
def test_columns_toggle_one_at_a_time(toggles: list[tuple[str, bool]], columns: list[str]) -> None:
    for name, on in toggles:
        before = {n for n in NAMES if is_chosen(n, columns)}
        columns = toggle_column(columns, name, on=on, names=NAMES)
        wanted = before | {name} if on else before - {name}
        if wanted:
            assert {n for n in NAMES if is_chosen(n, columns)} == wanted
