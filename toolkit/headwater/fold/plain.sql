-- Change rows that lack no cell are versions as they are. What they did, by the first and the last of each key.
SELECT coalesce(sum(n), 0), count(*) FILTER (first = 99 AND last <> 100), count(*) FILTER (first <> 99 AND last <> 100),
    count(*) FILTER (first <> 99 AND last = 100), coalesce(max(n), 0)
FROM (
    SELECT count(*) AS n, arg_min(ascii(_hw_op), _hw_seq) AS first, arg_max(ascii(_hw_op), _hw_seq) AS last
    FROM _hw_raw GROUP BY $parts
)
