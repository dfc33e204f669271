-- What was issued, by when it ends: tokens that are good are counted without a look at the
-- others, however many these are.

create index audit_record_end on audit_record ((at + ttl * 1000000)) where decision = 'issued';
