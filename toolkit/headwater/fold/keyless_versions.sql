-- What a multiset's events mean: each event is a version; a truncate deletes what its era left over.
CREATE OR REPLACE TEMP TABLE _hw_versions AS
WITH truncates AS (
    SELECT _hw_seq, _hw_pos, _hw_at, _hw_tx, _hw_entry, row_number() OVER (ORDER BY _hw_seq) - 1 AS _hw_era
    FROM _hw_raw WHERE _hw_op = 't'
)
SELECT $columns, e._hw_op, e._hw_seq, e._hw_pos, e._hw_at, e._hw_tx, e._hw_text, e._hw_entry, e._hw_k0,
    CASE WHEN e._hw_op <> 'd' OR a._hw_seq < e._hw_seq THEN NULL ELSE 'unmatched' END AS _hw_was,
    FALSE AS _hw_known,
    TRUE AS _hw_last,
    e._hw_op <> 'd' AND e._hw_nth > e._hw_deletes AND e._hw_era = e._hw_last_era AS _hw_live,
    e._hw_lost
FROM _hw_events AS e
LEFT JOIN (SELECT _hw_k0, _hw_era, _hw_nth, _hw_seq FROM _hw_events WHERE _hw_op <> 'd') AS a
    ON e._hw_op = 'd' AND a._hw_k0 = e._hw_k0 AND a._hw_era = e._hw_era AND a._hw_nth = e._hw_nth
WHERE NOT e._hw_held
UNION ALL
SELECT $columns, 'd', t._hw_seq, t._hw_pos, t._hw_at, t._hw_tx, e._hw_text, t._hw_entry, e._hw_k0,
    NULL, FALSE, TRUE, FALSE, FALSE
FROM _hw_events AS e
JOIN truncates AS t ON t._hw_era = e._hw_era
WHERE e._hw_op <> 'd' AND e._hw_nth > e._hw_deletes
