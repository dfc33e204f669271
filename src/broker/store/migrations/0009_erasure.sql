-- What keeps the leaf of a record as it was whose personal columns were erased: their
-- HMACs, one after the other. Its salt is gone then.
alter table audit_record add column erased bytea;
