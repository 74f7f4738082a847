"""Names that would like to run, and a password that would like to get out."""

from pathlib import Path

import pytest

from live.pipelines import Runner
from servers.postgres import Database

pytestmark = pytest.mark.live

NAMES = [
    *(
        "Orders",
        "orders",
        "ORDERS",
        "{{ env_var('CANARY') }}",
        "{% endraw %}",
        "{#",
        "a.b",
        "a/b",
        "../../x",
        "a'b",
    ),
    *(
        'a"b',
        "a b",
        "select",
        "sp__ace",
        "line\nbreak",
        "tab\there",
        "*/ --",
        "${HOME}",
        "%s",
        "%00",
        "naïve",
    ),
    *("表", "x" * 63, "é" * 31, "_hw_seq", "con", ".", "..", "-", "~7e", "a\\b", "🦆"),
]
#: What the folds call things inside.
INNER = [
    *("e", "a", "s", "t", "c", "d", "n", "b", "o", "f", "r", "w", "life", "origin", "parent", "place", "tid"),
    *("rows", "sent", "truncates", "h", "k", "filename", "changes", "this", "_hw_op", "A", "N"),
]


def quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def create(pg: Database, name: str, columns: list[str], *, key: bool = True) -> None:
    named = ", ".join(f"{quoted(c)} text" for c in columns)
    pg.run(f"create table {quoted(name)} ({'id int primary key, ' if key else ''}{named})")
    if not key:
        pg.run(f"alter table {quoted(name)} replica identity full")


def insert(pg: Database, name: str, first: int, count: int) -> None:
    with pg.connect() as con:
        rows = con.execute(f"select * from {quoted(name)} limit 0".encode())
        width = len(rows.description or ())
        places = ", ".join(["%s"] * width)
        for number in range(first, first + count):
            values = [number, *["{{ 7*7 }}"] * (width - 1)]
            con.execute(f"insert into {quoted(name).replace('%', '%%')} values ({places})".encode(), values)


def everything(runner: Runner) -> list[bytes]:
    return [p.read_bytes() for p in runner.folder.rglob("*") if p.is_file() and p != runner.config]


@pytest.mark.slow
def test_hostile_names_from_source_to_warehouse(pg: Database, tmp_path: Path) -> None:
    for name in NAMES:
        create(pg, name, [*NAMES[:12], *INNER[:6]])
        insert(pg, name, 1, 2)
    create(pg, "inner names", INNER)
    create(pg, "inner keyless", INNER, key=False)
    insert(pg, "inner names", 1, 3)
    insert(pg, "inner keyless", 1, 3)
    runner = Runner(tmp_path / "p", pg.url, environment={"CANARY": "c4n4ry-escaped"})
    runner.run("run")
    for name in [*NAMES, "inner names", "inner keyless"]:
        insert(pg, name, 10, 1)
        pg.run(f"delete from {quoted(name)} where ctid = (select min(ctid) from {quoted(name)})")
    pg.run(f"update \"inner names\" set id = id + 100, {quoted('e')} = 'changed'")
    runner.run("run")
    done = runner.run("verify")
    assert done.stdout.splitlines()[-1] == f"verify: {len(NAMES) + 2} tables equal"
    for words in (["tables"], ["plan"], ["status"], ["check"], ["explain", "public.orders", "2"]):
        out = runner.run(*words).stdout
        assert "\x1b" not in out and "c4n4ry" not in out
    assert not any(b"c4n4ry-escaped" in data for data in everything(runner))
    assert not (tmp_path / "x").exists()


def test_a_password_never_gets_out(pg: Database, tmp_path: Path) -> None:
    name, url = pg.add_role("login replication superuser")
    canary = "p4ss w%rd'canary"
    with pg.connect() as con:
        con.execute(f"alter role {name} password '{canary.replace(chr(39), chr(39) * 2)}'")
    pg.run("create table t (id int primary key); insert into t values (1)")
    safe = url.partition("@")[2]
    runner = Runner(tmp_path / "p", f"postgresql://{name}:x@{safe}")
    runner.environment["SOAK_PASSWORD"] = canary
    said = []
    for words in (["check"], ["run"], ["run", "--debug"], ["verify", "--json"], ["status"], ["plan"]):
        done = runner.run(*words)
        said += [done.stdout, done.stderr]
    runner.environment["SOAK_PASSWORD"] = canary + "wrong"
    for words in (["check"], ["run"], ["run", "--debug"], ["verify", "--json"], ["tables"]):
        failed = runner.run(*words, ok=False)
        assert failed.returncode == 1
        said += [failed.stdout, failed.stderr]
    for text in [*said, *(data.decode("latin1") for data in everything(runner))]:
        assert "p4ss" not in text
