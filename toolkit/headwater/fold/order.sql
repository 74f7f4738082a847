-- The versions of a tail in order, without their values: what was before, what ends it.
CREATE OR REPLACE TEMP TABLE _hw_order AS
SELECT *,
    lag(_hw_op) OVER one_key AS _hw_was,
    lead(_hw_seq) OVER one_key AS _hw_seq_to,
    lead(_hw_at) OVER one_key AS _hw_at_to,
    row_number() OVER one_key AS _hw_nth
FROM $keys
WINDOW one_key AS (PARTITION BY $parts ORDER BY _hw_seq)
