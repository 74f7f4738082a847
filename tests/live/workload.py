"""A pgbench load whose truth is known without us: a trigger writes every row version beside the table.

Row locks order the versions of one key, so `audit.id` is their order; rolled-back work leaves no audit row.
"""

import subprocess
from pathlib import Path

from servers.postgres import Database, find_version

SETUP = """
create table acct (id int primary key, v int not null, note text, big text);
create table audit (n bigint generated always as identity primary key,
    id int, op text, v int, note text, big text);
create function keep_audit() returns trigger language plpgsql security definer as $$
begin
  if tg_op = 'DELETE' or (tg_op = 'UPDATE' and old.id <> new.id) then
    insert into audit (id, op, v, note, big) values (old.id, 'd', old.v, old.note, md5(old.big));
  end if;
  if tg_op <> 'DELETE' then
    insert into audit (id, op, v, note, big) values (new.id, 'c', new.v, new.note, md5(new.big));
  end if;
  return null;
end $$;
create trigger keep_audit after insert or update or delete on acct for each row execute function keep_audit();
insert into acct select n, 0, 'n' || n, repeat(md5(n::text), 300) from generate_series(1, 500) n;
"""

#: One transaction of everything: TOAST left alone, a key change, a delete, a re-insert, a savepoint undone.
SCRIPT = r"""
\set a random(1, 500)
\set b random(1, 500)
\set c random(1, 1000)
\set v random(1, 1000000)
begin;
update acct set v = :v, note = case when :v % 7 = 0 then null else 'v' || :v end where id = :a;
savepoint s;
update acct set v = -1 where id = :b;
rollback to s;
update acct set big = repeat(md5(:v::text), 300) where id = :a and :v % 11 = 0;
delete from acct where id = :c and :v % 3 = 0;
insert into acct values (:c, :v, 'again', repeat(md5(:v::text), 200))
    on conflict (id) do update set v = excluded.v;
update acct set id = 1000 + :b
    where id = :b and :v % 5 = 0 and not exists (select from acct where id = 1000 + :b);
end;
"""


def prepare(pg: Database) -> None:
    """Create pgbench's tables and ours; the keyless one gets an identity, as a DBA is told to give it."""
    run_pgbench(pg, "-i", "-s", "1", "-q")
    pg.run("alter table pgbench_history replica identity full")
    pg.run(SETUP)


def start_load(pg: Database, folder: Path, seconds: int, rate: int = 0) -> "subprocess.Popen[bytes]":
    """Start 4 clients: TPC-B and the script above, half and half; at most `rate` transactions a second."""
    script = folder / "everything.sql"
    script.write_text(SCRIPT)
    options = ["-c", "4", "-j", "1", "-T", str(seconds), "-n", "-b", "tpcb-like@1", "-f", f"{script}@1"]
    options += ["-R", str(rate)] if rate else []
    # Deadlocks between key changes are the load's own affair.
    return subprocess.Popen(
        _pgbench(pg, *options, "--max-tries=20"), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    )


def run_pgbench(pg: Database, *options: str) -> None:
    """Run pgbench to its end."""
    subprocess.run(_pgbench(pg, *options), check=True, capture_output=True)


def _pgbench(pg: Database, *options: str) -> list[str]:
    binaries = find_version(15)
    assert binaries is not None
    return [str(binaries / "pgbench"), *options, pg.url]
