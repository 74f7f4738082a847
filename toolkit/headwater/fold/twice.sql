-- A key that two rows of a full load have.
SELECT 'r', max(_hw_seq), FALSE, $parts FROM _hw_raw GROUP BY $parts HAVING count(*) > 1 LIMIT 1
