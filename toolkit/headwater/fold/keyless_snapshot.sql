-- A new epoch of a multiset: of n equal rows before and m now, the surplus is deleted or added.
CREATE OR REPLACE TEMP TABLE _hw_events AS
WITH both_sides AS (
    SELECT $columns, _hw_op, _hw_seq, _hw_pos, _hw_at, _hw_tx, _hw_text, _hw_entry, $image AS _hw_k0,
        FALSE AS _hw_held FROM _hw_raw
    UNION ALL
    SELECT $columns, 'r', _hw_seq, _hw_pos, _hw_at, _hw_tx, _hw_text, -1, $image, TRUE FROM _hw_base
)
SELECT *,
    row_number() OVER (PARTITION BY _hw_k0, _hw_held ORDER BY _hw_seq) AS _hw_nth,
    count(*) FILTER (_hw_held) OVER (PARTITION BY _hw_k0) AS _hw_before,
    count(*) FILTER (NOT _hw_held) OVER (PARTITION BY _hw_k0) AS _hw_after
FROM both_sides
