-- A new epoch in place of everything: the first one, or one under another key.
CREATE OR REPLACE TEMP VIEW _hw_versions AS
SELECT $columns, _hw_op, _hw_seq, _hw_pos, _hw_at, _hw_tx, _hw_text, _hw_entry, $parts,
    CAST(NULL AS VARCHAR) AS _hw_was,
    FALSE AS _hw_known,
    TRUE AS _hw_last,
    TRUE AS _hw_live,
    FALSE AS _hw_lost
FROM _hw_raw
UNION ALL
SELECT $columns, 'd', $seq, $pos, $at, $tx, _hw_text, $entry, $parts,
    'r', TRUE, TRUE, FALSE, FALSE
FROM _hw_base
-- Under another key, several rows of before may have what is one key now.
QUALIFY row_number() OVER (PARTITION BY $parts ORDER BY _hw_seq DESC) = 1
