"""What else makes the server keep its log: old transactions, other slots, as far as the role may see."""

from __future__ import annotations

import psycopg

from headwater.printable import size, span
from headwater.sources.postgres.quoting import quote_text

#: A transaction that is open for so long (seconds) is worth a name: the log from its start on is kept.
OLD_SECONDS = 300


def look(session: psycopg.Connection, slot: str) -> tuple[str, str, int | None]:
    """(what holds the log beside us, the statement that ends the oldest transaction, bytes of log on disk).

    Other roles' transactions and the folder of the log show only to members of `pg_monitor`: "" and None.
    """
    found = session.execute(_HOLDERS, {"slot": slot, "old": OLD_SECONDS}).fetchall()
    said, release = [], ""
    for kind, name, pid, who, seconds, held in found:
        if kind == "session":
            said.append(f"a transaction of process {pid} ({who}), open for {span(seconds)}")
            release = release or f"select pg_terminate_backend({pid});   (ends the transaction of {who})"
        elif kind == "prepared":
            said.append(f"the prepared transaction {name} of {who}, open for {span(seconds)}")
            release = release or f"COMMIT PREPARED {quote_text(name)};   or ROLLBACK PREPARED"
        else:
            said.append(f"the slot {name}, which nobody reads, with {size(held)}")
    return "; ".join(said), release, _on_disk(session)


def _on_disk(session: psycopg.Connection) -> int | None:
    row = session.execute("select has_function_privilege('pg_ls_waldir()', 'execute')").fetchone()
    if row is None or not row[0]:
        return None
    total = session.execute("select sum(size)::bigint from pg_ls_waldir()").fetchone()
    return total[0] if total else None


_HOLDERS = """
(select 'session' as kind, '' as name, pid, concat_ws(', ', usename, nullif(application_name, '')) as who,
        extract(epoch from clock_timestamp() - xact_start)::bigint as seconds, null::bigint as held
 from pg_stat_activity
 where backend_xid is not null and xact_start < clock_timestamp() - make_interval(secs => %(old)s)
 order by xact_start limit 3)
union all
(select 'prepared', gid, null, owner::text, extract(epoch from clock_timestamp() - prepared)::bigint, null
 from pg_prepared_xacts where prepared < clock_timestamp() - make_interval(secs => %(old)s)
 order by prepared limit 3)
union all
(select 'slot', slot_name::text, null, '', null, (pg_current_wal_lsn() - restart_lsn)::bigint
 from pg_replication_slots
 where slot_name <> %(slot)s and not active and restart_lsn is not null and not pg_is_in_recovery()
 order by restart_lsn limit 3)
"""
