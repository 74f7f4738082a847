-- History rows that end in this batch: open rows whose key got a version, and versions that another one follows.
SELECT $open_columns, o.$valid_from AS $valid_from, n._hw_at AS $valid_to, FALSE AS $current,
    o._hw_op, o._hw_seq, o._hw_pos, o._hw_at, o._hw_tx, o._hw_text, n._hw_seq AS _hw_seq_to
FROM _hw_open AS o
JOIN (
    SELECT $parts, _hw_seq, _hw_at
    FROM $versions
    WHERE _hw_entry > $mark
    QUALIFY row_number() OVER (PARTITION BY $parts ORDER BY _hw_seq) = 1
) AS n ON $same_key
UNION ALL
SELECT $columns, _hw_at, _hw_at_to, FALSE,
    _hw_op, _hw_seq, _hw_pos, _hw_at, _hw_tx, _hw_text, _hw_seq_to
FROM $versions
WHERE _hw_entry > $mark AND _hw_op <> 'd' AND _hw_seq_to IS NOT NULL
