-- The first version that cannot be: the log and the lake do not speak of the same table.
SELECT _hw_op, _hw_seq, _hw_lost, $parts
FROM _hw_versions
WHERE _hw_lost OR CASE _hw_op
    WHEN 'c' THEN coalesce(_hw_was, 'd') <> 'd'
    WHEN 'r' THEN FALSE
    ELSE $unknown
END
ORDER BY _hw_seq
LIMIT 1
