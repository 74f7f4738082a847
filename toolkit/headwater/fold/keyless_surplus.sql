-- The rows of the mirror that the new epoch does not have.
CREATE OR REPLACE TEMP TABLE _hw_gone AS
SELECT _hw_seq AS _hw_k0 FROM _hw_events WHERE _hw_held AND _hw_nth <= _hw_before - _hw_after
