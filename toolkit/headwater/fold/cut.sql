-- Where a new epoch was read. One without rows has no row that says so: then it is the last the table knew of.
CREATE OR REPLACE TEMP TABLE _hw_cut AS
SELECT _hw_pos, _hw_at, _hw_tx
FROM (
    SELECT _hw_pos, _hw_at, _hw_tx, 0 AS place, _hw_seq FROM _hw_raw
    UNION ALL
    SELECT NULL, max(_hw_at), NULL, 1, 0 FROM _hw_base
)
ORDER BY place, _hw_seq
LIMIT 1
