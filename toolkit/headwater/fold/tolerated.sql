-- The copy holds some of the source's rows only, so changes come of rows that are not in it: an update of such a row
-- brings it in, a delete of one is nothing.
tolerated AS (
    SELECT * EXCLUDE (_hw_before)
        REPLACE (CASE WHEN _hw_op = 'u' AND coalesce(_hw_before, 'd') = 'd' THEN 'c' ELSE _hw_op END AS _hw_op)
    FROM (
        SELECT *, lag(_hw_op) OVER (PARTITION BY $parts ORDER BY _hw_seq) AS _hw_before FROM $happened
    )
    WHERE _hw_op <> 'd' OR coalesce(_hw_before, 'd') <> 'd'
),
