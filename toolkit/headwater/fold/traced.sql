-- A change of key is a delete and, one number on, an insert: the new key's life goes on from the old key's.
links AS (
    SELECT c._hw_life AS _hw_to, d._hw_life AS _hw_from
    FROM lives AS c
    JOIN lives AS d ON d._hw_seq = c._hw_seq - 1
    WHERE c._hw_op = 'c' AND len(c._hw_unset) > 0 AND d._hw_op = 'd' AND NOT d._hw_held
),
origins AS (
    SELECT _hw_to, _hw_from AS _hw_origin FROM links WHERE _hw_from NOT IN (SELECT _hw_to FROM links)
    UNION ALL
    SELECT l._hw_to, o._hw_origin FROM links AS l JOIN origins AS o ON l._hw_from = o._hw_to
),
traced AS (
    SELECT lives.*, coalesce(origins._hw_origin, lives._hw_life) AS _hw_lineage
    FROM lives LEFT JOIN origins ON origins._hw_to = lives._hw_life
),
