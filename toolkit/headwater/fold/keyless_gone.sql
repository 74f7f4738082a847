-- The rows of the mirror that the events took away.
CREATE OR REPLACE TEMP TABLE _hw_gone AS
SELECT _hw_seq AS _hw_k0
FROM _hw_events
WHERE _hw_held AND (_hw_nth <= _hw_deletes OR _hw_era < _hw_last_era)
