-- The first change that cannot follow the one before it.
SELECT _hw_op, _hw_seq, FALSE, $parts
FROM (
    SELECT $parts, _hw_op, _hw_seq, lag(_hw_op) OVER (PARTITION BY $parts ORDER BY _hw_seq) AS _hw_was
    FROM _hw_raw SEMI JOIN (SELECT $parts FROM _hw_raw GROUP BY $parts HAVING count(*) > 1) AS k ON $same_key
)
WHERE CASE _hw_op WHEN 'c' THEN coalesce(_hw_was, 'd') <> 'd' ELSE _hw_was = 'd' END
ORDER BY _hw_seq
LIMIT 1
