-- What is there at the end of such an epoch: rows that were read once, after the last truncate, and what became of
-- the others.
CREATE TEMP VIEW _hw_raw AS
SELECT $columns, _hw_op, _hw_seq, _hw_pos, _hw_at, _hw_tx, _hw_unset, _hw_text, _hw_absent, _hw_entry, $parts
FROM _hw_all AS r
ANTI JOIN _hw_many AS k ON $same_key
WHERE _hw_op = 'r' AND _hw_seq > (SELECT coalesce(max(_hw_seq), -1) FROM _hw_all WHERE _hw_op = 't')
UNION ALL
SELECT $columns, 'r', _hw_seq, _hw_pos, _hw_at, _hw_tx, NULL, _hw_text, NULL, $entry, $parts FROM _hw_net
