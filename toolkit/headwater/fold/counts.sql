-- What the batch did to the mirror.
SELECT count(*),
    count(*) FILTER (_hw_live AND NOT _hw_known),
    count(*) FILTER (_hw_live AND _hw_known),
    count(*) FILTER (_hw_last AND NOT _hw_live AND _hw_known)
FROM _hw_versions
