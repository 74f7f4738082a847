-- History rows that end in this tail: open rows whose key got a version, and versions that another one follows.
SELECT $open_columns, o.$valid_from AS $valid_from, n._hw_at AS $valid_to, FALSE AS $current,
    o._hw_op, o._hw_seq, o._hw_pos, o._hw_at, o._hw_tx, o._hw_text, n._hw_seq AS _hw_seq_to
FROM _hw_open AS o
JOIN (SELECT * FROM _hw_order WHERE _hw_nth = 1) AS n ON $same_key
UNION ALL
SELECT $tail_columns, t._hw_at, n._hw_at_to, FALSE,
    t._hw_op, t._hw_seq, t._hw_pos, t._hw_at, t._hw_tx, t._hw_text, n._hw_seq_to
FROM $tail AS t
JOIN (SELECT * FROM _hw_order WHERE _hw_op <> 'd' AND _hw_seq_to IS NOT NULL) AS n ON t._hw_seq = n._hw_seq
WHERE t._hw_op <> 'd'
