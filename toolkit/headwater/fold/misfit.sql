-- The first version of a tail that does not fit what it follows: in the tail, or in the base under it. What was
-- before the table was last read again ($whole) no longer matters.
SELECT o._hw_op, o._hw_seq, FALSE, $own_parts
FROM _hw_order AS o
LEFT JOIN (SELECT DISTINCT $parts, TRUE AS _hw_there FROM _hw_found) AS f ON o._hw_nth = 1 AND $same_key
WHERE o._hw_seq > $whole AND CASE
    WHEN o._hw_op = 'r' THEN FALSE
    WHEN o._hw_nth = 1 THEN (o._hw_op = 'c') = coalesce(f._hw_there, FALSE)
    ELSE (o._hw_op = 'c') = (o._hw_was <> 'd')
END
ORDER BY o._hw_seq
LIMIT 1
