-- History rows that are open at the end of this tail.
SELECT $columns, _hw_at AS $valid_from, $open_end AS $valid_to, TRUE AS $current,
    _hw_op, _hw_seq, _hw_pos, _hw_at, _hw_tx, _hw_text, CAST(NULL AS BIGINT) AS _hw_seq_to
FROM _hw_fresh
