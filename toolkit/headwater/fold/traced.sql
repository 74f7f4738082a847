-- A change of key is a delete and, one number on, an insert: the new key's life goes on from the old key's.
links AS (
    SELECT c._hw_life AS _hw_child, d._hw_life AS _hw_parent
    FROM lives AS c
    JOIN lives AS d ON d._hw_seq = c._hw_seq - 1
    WHERE c._hw_op = 'c' AND len(c._hw_unset) > 0 AND d._hw_op = 'd' AND NOT d._hw_held
),
origins(_hw_child, _hw_origin) AS (
    SELECT _hw_child, _hw_parent FROM links WHERE _hw_parent NOT IN (SELECT _hw_child FROM links)
    UNION ALL
    SELECT l._hw_child, o._hw_origin FROM links AS l JOIN origins AS o ON l._hw_parent = o._hw_child
),
traced AS (
    SELECT lives.*, coalesce(_hw_origin, _hw_life) AS _hw_lineage
    FROM lives LEFT JOIN origins ON _hw_child = _hw_life
),
