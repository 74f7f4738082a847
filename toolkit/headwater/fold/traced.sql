-- A change of key is a delete and, one number on, an insert: the new key's life goes on from the old key's.
links AS (
    SELECT c._hw_life AS life, d._hw_life AS parent
    FROM lives AS c
    JOIN lives AS d ON d._hw_seq = c._hw_seq - 1
    WHERE c._hw_op = 'c' AND len(c._hw_unset) > 0 AND d._hw_op = 'd' AND NOT d._hw_held
),
origins(life, origin) AS (
    SELECT life, parent FROM links WHERE parent NOT IN (SELECT life FROM links)
    UNION ALL
    SELECT l.life, o.origin FROM links AS l JOIN origins AS o ON l.parent = o.life
),
traced AS (
    SELECT lives.*, coalesce(origin, _hw_life) AS _hw_lineage
    FROM lives LEFT JOIN origins ON life = _hw_life
),
