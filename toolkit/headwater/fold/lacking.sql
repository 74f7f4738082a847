-- The keys whose rows give a change the cells it lacks: its own, or the one that a change of key came from. A row
-- that was inserted in the batch has them from there.
CREATE OR REPLACE TEMP TABLE _hw_touched AS
SELECT DISTINCT $parts
FROM (
    SELECT $parts, _hw_seq, first_value(_hw_op) OVER (PARTITION BY $parts ORDER BY _hw_seq) AS _hw_first
    FROM _hw_raw WHERE _hw_op <> 't'
) AS r
SEMI JOIN (
    SELECT CASE _hw_op WHEN 'c' THEN _hw_seq - 1 ELSE _hw_seq END AS _hw_seq
    FROM _hw_raw WHERE _hw_op <> 'd' AND len(_hw_unset) > 0
) AS l ON r._hw_seq = l._hw_seq
WHERE _hw_first <> 'c'
