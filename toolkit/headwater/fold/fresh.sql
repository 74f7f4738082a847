-- The rows of a tail that are there at its end, by key: each group of files reads its own range of them.
CREATE OR REPLACE TEMP TABLE _hw_fresh AS
SELECT * FROM $tail AS t
SEMI JOIN (SELECT _hw_seq FROM _hw_order WHERE _hw_seq_to IS NULL AND _hw_op <> 'd') AS n ON t._hw_seq = n._hw_seq
WHERE t._hw_op <> 'd'
ORDER BY $order
