-- A truncate is one delete for each key that was live when it came.
emptied AS (
    SELECT s.* EXCLUDE (_hw_op, _hw_seq_to, _hw_seq), t.*
    FROM (
        SELECT $columns, $parts, _hw_text, _hw_op, _hw_seq,
            lead(_hw_seq) OVER (PARTITION BY $parts ORDER BY _hw_seq) AS _hw_seq_to
        FROM sent
    ) AS s
    ASOF JOIN (
        SELECT _hw_seq, _hw_pos, _hw_at, _hw_tx FROM _hw_raw WHERE _hw_op = 't'
    ) AS t ON s._hw_seq < t._hw_seq
    WHERE s._hw_op <> 'd' AND (s._hw_seq_to IS NULL OR s._hw_seq_to > t._hw_seq)
),
happened AS (
    SELECT * FROM sent
    UNION ALL
    SELECT $key_cells, 'd', _hw_seq, _hw_pos, _hw_at, _hw_tx, [$names], $key_text, NULL, $parts, FALSE
    FROM emptied
),
