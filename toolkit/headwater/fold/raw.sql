-- One raw file's rows (or many of one schema) in the lake's columns and types.
SELECT $columns,
    _hw_op, _hw_seq, _hw_pos, _hw_at, _hw_tx, $unset AS _hw_unset, $text AS _hw_text,
    $absent AS _hw_absent, $entry
FROM (SELECT $inner FROM read_parquet([$paths]$named)) AS r
$entries
