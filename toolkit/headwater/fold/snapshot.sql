-- A new epoch against the whole mirror: rows that are equal make no version, keys that are gone get a delete at the
-- first number of the snapshot.
CREATE OR REPLACE TEMP TABLE _hw_versions AS
SELECT $new_columns, n._hw_op, n._hw_seq, n._hw_pos, n._hw_at, n._hw_tx, n._hw_text, n._hw_entry, $new_parts,
    CASE WHEN b._hw_seq IS NULL THEN NULL ELSE 'r' END AS _hw_was,
    b._hw_seq IS NOT NULL AS _hw_known,
    TRUE AS _hw_last,
    TRUE AS _hw_live,
    FALSE AS _hw_lost
FROM _hw_raw AS n
LEFT JOIN _hw_base AS b ON $same_key
WHERE b._hw_seq IS NULL OR ($differs)
UNION ALL
SELECT $base_columns, 'd', $seq, $pos, $at, $tx, b._hw_text, $entry, $base_parts,
    'r', TRUE, TRUE, FALSE, FALSE
FROM _hw_base AS b
ANTI JOIN _hw_raw AS n ON $same_key
