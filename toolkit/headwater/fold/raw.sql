-- One raw file's rows (or many of one schema) in the lake's columns and types.
SELECT $columns,
    _hw_op, _hw_seq, _hw_pos, _hw_at, _hw_tx, $unset AS _hw_unset, $text AS _hw_text,
    $absent AS _hw_absent, f._hw_entry
FROM read_parquet([$paths], filename = '_hw_file') AS r
JOIN (VALUES $entries) AS f(_hw_name, _hw_entry) ON r._hw_file = f._hw_name
