-- The versions of that surplus. The oldest of equal rows go first, as with any delete.
CREATE OR REPLACE TEMP TABLE _hw_versions AS
SELECT $columns, _hw_op, _hw_seq, _hw_pos, _hw_at, _hw_tx, _hw_text, _hw_entry, _hw_k0,
    CAST(NULL AS VARCHAR) AS _hw_was, FALSE AS _hw_known,
    TRUE AS _hw_last,
    TRUE AS _hw_live, FALSE AS _hw_lost
FROM _hw_events WHERE NOT _hw_held AND _hw_nth > _hw_before
UNION ALL
SELECT $columns, 'd', $seq, $pos, $at, $tx, _hw_text, $entry, _hw_k0,
    NULL, FALSE, TRUE, FALSE, FALSE
FROM _hw_events WHERE _hw_held AND _hw_nth <= _hw_before - _hw_after
