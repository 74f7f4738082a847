-- Change rows of a table with a key, on top of rows that are there for keys they touch: all of them where the fold
-- is exact, else those that cells are to be filled from.
--
-- One pass over each key in _hw_seq order says what came before a change and what ends it. Cells the log did not
-- carry are filled along the row's lineage: back through the same key, and through a change of key. Deletes are
-- left as they came.
CREATE OR REPLACE TEMP TABLE _hw_versions AS
WITH RECURSIVE
sent AS (
    SELECT $columns, _hw_op, _hw_seq, _hw_pos, _hw_at, _hw_tx, _hw_unset, _hw_text, _hw_absent, $parts,
        FALSE AS _hw_held
    FROM _hw_raw
    WHERE _hw_op <> 't'
    UNION ALL
    SELECT $columns, 'r', _hw_seq, _hw_pos, _hw_at, _hw_tx, NULL, _hw_text, _hw_absent, $parts,
        TRUE
    FROM _hw_base
),
$emptied
$tolerated
ordered AS (
    SELECT *,
        lag(_hw_op) OVER one_key AS _hw_was,
        lead(_hw_seq) OVER one_key AS _hw_seq_to,
        first_value(_hw_held OR _hw_op <> 'c') OVER one_key AS _hw_known
    FROM $happened
    WINDOW one_key AS (PARTITION BY $parts ORDER BY _hw_seq)
),
$filled
SELECT $values, _hw_op, _hw_seq, _hw_pos, _hw_at, _hw_tx, $text AS _hw_text, $parts,
    _hw_was, _hw_known, _hw_op <> 'd' AND _hw_seq_to IS NULL AS _hw_live, _hw_seq_to IS NULL AS _hw_last,
    $lost AS _hw_lost
FROM $settled
WHERE NOT _hw_held
