-- The keys of an epoch that was read in several sittings whose rows are not simply read once.
CREATE TEMP TABLE _hw_many AS
SELECT $parts FROM _hw_all
WHERE _hw_op <> 't'
GROUP BY $parts
HAVING count(*) > 1 OR bool_or(_hw_op <> 'r')
