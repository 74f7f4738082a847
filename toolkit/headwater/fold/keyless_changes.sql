-- Change rows of a table without a key: a multiset. A delete takes the oldest of the equal rows that are there.
-- An era ends at a truncate.
CREATE OR REPLACE TEMP TABLE _hw_events AS
WITH truncates AS (
    SELECT _hw_seq, _hw_pos, _hw_at, _hw_tx, _hw_entry, row_number() OVER (ORDER BY _hw_seq) AS _hw_era
    FROM _hw_raw WHERE _hw_op = 't'
),
whole AS (
    SELECT $filled, c._hw_op, c._hw_seq, c._hw_pos, c._hw_at, c._hw_tx, $filled_text AS _hw_text, c._hw_entry,
        FALSE AS _hw_held,
        c._hw_op = 'd' AND len(c._hw_unset) > 0 OR len(c._hw_unset) > 0 AND d._hw_seq IS NULL AS _hw_lost
    FROM _hw_raw AS c
    LEFT JOIN (SELECT * FROM _hw_raw WHERE _hw_op = 'd') AS d
        ON d._hw_seq = c._hw_seq - 1 AND c._hw_op = 'c' AND len(c._hw_unset) > 0
    WHERE c._hw_op <> 't'
    UNION ALL
    SELECT $columns, 'r', _hw_seq, _hw_pos, _hw_at, _hw_tx, _hw_text, -1, TRUE, FALSE FROM _hw_base
),
placed AS (
    SELECT w.*, $image AS _hw_k0, coalesce(t._hw_era, 0) AS _hw_era
    FROM whole AS w ASOF LEFT JOIN truncates AS t ON w._hw_seq > t._hw_seq
)
SELECT *,
    row_number() OVER (
        PARTITION BY _hw_k0, _hw_era, _hw_op = 'd' ORDER BY _hw_seq
    ) AS _hw_nth,
    count(*) FILTER (_hw_op = 'd') OVER (PARTITION BY _hw_k0, _hw_era) AS _hw_deletes,
    (SELECT count(*) FROM truncates) AS _hw_last_era
FROM placed
