-- Every version that the changes table holds, as the fold left it: history is made anew from these.
CREATE OR REPLACE TEMP VIEW _hw_replayed AS
SELECT *, $entry AS _hw_entry, _hw_op <> 'd' AND _hw_seq_to IS NULL AS _hw_live
FROM (
    SELECT *,
        lead(_hw_seq) OVER one_key AS _hw_seq_to,
        lead(_hw_at) OVER one_key AS _hw_at_to
    FROM (SELECT *, $key_parts FROM $changes)
    WINDOW one_key AS (PARTITION BY $parts ORDER BY _hw_seq)
)
