-- Change rows without a key, the new half of an update with the cells that it lacks from the old half.
SELECT $filled, c._hw_op, c._hw_seq, c._hw_pos, c._hw_at, c._hw_tx,
    CASE WHEN c._hw_op <> 'c' OR d._hw_seq IS NULL THEN c._hw_unset END AS _hw_unset,
    $filled_text AS _hw_text, c._hw_absent, c._hw_entry
FROM _hw_lacking AS c
LEFT JOIN (SELECT * FROM _hw_lacking WHERE _hw_op = 'd') AS d
    ON d._hw_seq = c._hw_seq - 1 AND c._hw_op = 'c' AND len(c._hw_unset) > 0
