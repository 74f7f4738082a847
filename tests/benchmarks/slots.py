"""Replication slots as a measurement needs them: the same content, read again and again."""

from __future__ import annotations

import time

import psycopg


def copy_slot(url: str, source: str, target: str) -> None:
    """Make `target` stand where `source` does, whatever it was before."""
    with psycopg.connect(url, autocommit=True) as session:
        drop_slot(session, target)
        session.execute("select pg_copy_logical_replication_slot(%s, %s)", [source, target])


def drop_slot(session: psycopg.Connection, slot: str) -> None:
    """Drop a slot, if it is there, once its last reader is gone."""
    query = "select active_pid from pg_replication_slots where slot_name = %s"
    for _ in range(1000):
        row = session.execute(query, [slot]).fetchone()
        if row is None:
            return
        if row[0] is None:
            session.execute("select pg_drop_replication_slot(%s)", [slot])
            return
        time.sleep(0.02)
    raise TimeoutError(f"the slot {slot} is still being read")
