-- A row's life under one key begins where it was inserted, or with what the mirror holds.
lives AS $materialized (
    SELECT *,
        max(CASE WHEN _hw_was IS NULL OR _hw_was = 'd' THEN _hw_seq END) OVER (
            PARTITION BY $parts ORDER BY _hw_seq ROWS UNBOUNDED PRECEDING
        ) AS _hw_life
    FROM ordered
),
$traced
filled AS (
    SELECT * EXCLUDE ($unset), $fills
    FROM $traced_rows
    WINDOW lineage AS (PARTITION BY _hw_lineage ORDER BY _hw_seq ROWS UNBOUNDED PRECEDING)
)
